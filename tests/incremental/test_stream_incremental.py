"""Incremental backups over a replication connection, from PostgreSQL 17 on."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import pytest

from drkit.model.label import BackupKind
from drkit.repository.chain import read_chain
from drkit.repository.unpacking import PackReader
from tests.incremental.links import Link, backup, prove, remember
from tests.incremental.workload import BETWEEN, MEANWHILE, Workload
from tests.incremental.workload import SETTINGS as WORK_SETTINGS
from tests.operations.backup_tools import (
    Listener,
    assert_not_in_backup,
    assert_tidy,
    content,
    restored,
    site,
)
from tests.operations.scene import Scene

if TYPE_CHECKING:
    from drkit.model.backup import BackupSummary
    from drkit.model.manifest import Manifest
    from drkit.model.pagemap import PageMap
    from tests.pg import Cluster, ClusterFactory
    from tests.protect import Protected

PAGE = 8192
SETTINGS = {"summarize_wal": "on", "autovacuum": "off"}
BEFORE = [step for step in BETWEEN if step != "promote"]
# Replay of a database's copy loses the maps of its BRIN indexes, which is PostgreSQL's
# own doing: their pages declare no content, so the full page images have none.
DURING = [step for step in MEANWHILE if step != "copy database by WAL"]


def incremental(
    protected: Protected, listener: Listener | None = None
) -> BackupSummary:
    """Take an incremental, which must not become a full backup."""
    taken = site(protected, jobs=2).take(listener, BackupKind.INCREMENTAL)
    assert taken.kind is BackupKind.INCREMENTAL, listener and listener.warnings
    return taken


def manifest(protected: Protected, taken: BackupSummary) -> Manifest:
    return site(protected).manifest(taken.label)


def page_map(protected: Protected, taken: BackupSummary) -> PageMap:
    repository = protected.repository()
    return read_chain(repository, repository.find(taken.label))


def file_of(cluster: Cluster, relation: str) -> str:
    path: str = cluster.sql(f"SELECT pg_relation_filepath('{relation}')")
    return path


@pytest.fixture
def protected(scene: Scene, newest_version: int) -> Protected:
    return scene.protect(newest_version, SETTINGS, source="stream")


def test_an_idle_cluster_needs_next_to_nothing(protected: Protected) -> None:
    protected.cluster.psql("""
        CREATE TABLE t AS SELECT n, repeat('x', 500) FROM generate_series(1, 5000) AS n;
        VACUUM t;
    """)
    full = site(protected).take()
    first, second = incremental(protected), incremental(protected)
    for taken in (first, second):
        assert len(manifest(protected, taken).paths) < 40
        assert taken.stored_bytes < full.stored_bytes / 8
        assert taken.files > full.files * 0.8
    table = os.fsencode(file_of(protected.cluster, "t"))
    number = page_map(protected, second).find(table)
    assert number is not None
    assert set(page_map(protected, second).pieces_of(number)["layer"]) == {0}


def test_changed_pages_and_no_others(scene: Scene, protected: Protected) -> None:
    cluster = protected.cluster
    cluster.psql("""
        CREATE TABLE t WITH (fillfactor = 50) AS
            SELECT n, repeat('x', 500) AS filler FROM generate_series(1, 5000) AS n;
        CREATE TABLE emptied AS SELECT n FROM generate_series(1, 5000) AS n;
        CREATE TABLE dropped AS SELECT n FROM generate_series(1, 5000) AS n;
        VACUUM;
    """)
    table = os.fsencode(file_of(cluster, "t"))
    emptied, dropped = file_of(cluster, "emptied"), file_of(cluster, "dropped")
    site(protected).take()
    changed = [5, 6, 300, 400]
    blocks = ", ".join(f"'({block},1)'" for block in changed)
    cluster.psql(f"""
        UPDATE t SET filler = 'short' WHERE ctid IN ({blocks});
        TRUNCATE emptied; DROP TABLE dropped; CHECKPOINT;
    """)
    taken = incremental(protected)
    found = manifest(protected, taken)
    number = found.find(table)
    assert number is not None
    runs = found.runs[found.run_files() == number]
    stored = {
        block
        for run in runs
        for block in range(
            run["position"] // PAGE, (run["position"] + run["length"]) // PAGE
        )
    }
    assert stored == set(changed)
    assert found.files["kept"][number] == found.files["size"][number]
    assert {os.fsencode(emptied), os.fsencode(dropped)} <= set(found.gone)
    protected.archive_now()
    assert_tidy(site(protected))
    with restored(scene, protected) as copy:
        assert content(copy) == content(cluster)


def test_regrown_relation_shows_nothing_of_before(
    scene: Scene, protected: Protected
) -> None:
    cluster = protected.cluster
    cluster.psql("""
        CREATE TABLE t (n int, filler text);
        INSERT INTO t SELECT n, repeat('x', 1000) FROM generate_series(1, 700) AS n;
        VACUUM FREEZE t;
    """)
    site(protected).take()
    # COPY adds more pages than it needs, and nothing is logged of those.
    lines = "".join(f"{n}\t{'y' * 1000}\n" for n in range(1000, 1150))
    cluster.psql(
        "DELETE FROM t WHERE n > 200; VACUUM (TRUNCATE) t;"
        f"COPY t FROM STDIN;\n{lines}\\.\nCHECKPOINT;"
    )
    expected = Path(cluster.data_directory, file_of(cluster, "t")).read_bytes()
    assert bytes(PAGE) in [
        expected[at : at + PAGE] for at in range(0, len(expected), PAGE)
    ], "the case needs pages that nobody wrote to"
    incremental(protected)
    protected.archive_now()
    with restored(scene, protected) as found:
        assert content(found) == content(cluster)


def test_visibility_maps_that_did_not_come_whole_are_left_out(
    scene: Scene, protected: Protected
) -> None:
    cluster = protected.cluster
    cluster.psql("""
        CREATE TABLE t (n int PRIMARY KEY); CREATE TABLE fresh (n int);
        INSERT INTO t SELECT generate_series(1, 5000); VACUUM t;
    """)
    old_map = os.fsencode(file_of(cluster, "t") + "_vm")
    assert page_map(protected, site(protected).take()).find(old_map) is not None
    cluster.psql("""
        DELETE FROM t WHERE n % 2 = 0;
        INSERT INTO fresh SELECT generate_series(1, 5000); VACUUM fresh;
    """)
    listener = Listener()
    taken = incremental(protected, listener)
    assert "visibility maps left out" in [name for name, _ in listener.events]
    found = page_map(protected, taken)
    assert found.find(old_map) is None
    fresh = os.fsencode(file_of(cluster, "fresh"))
    assert found.find(fresh + b"_vm") is not None
    protected.archive_now()
    with restored(scene, protected) as copy:
        copy.psql("SET enable_seqscan = off; SET enable_bitmapscan = off; VACUUM t;")
        assert copy.sql("SELECT count(*) FROM t WHERE n > 0") == 2500


def test_damage_in_a_changed_page_is_found(protected: Protected) -> None:
    cluster = protected.cluster
    cluster.psql("""
        CREATE TABLE t WITH (fillfactor = 50) AS
            SELECT n, repeat('x', 500) AS filler FROM generate_series(1, 500) AS n;
    """)
    site(protected).take()
    cluster.psql("""
        UPDATE t SET filler = '' WHERE ctid IN ('(3,1)', '(7,1)', '(20,1)'); CHECKPOINT;
    """)
    path = Path(cluster.data_directory, file_of(cluster, "t"))
    cluster.stop()
    with path.open("r+b") as file:
        file.seek(20 * PAGE + 5000)
        file.write(b"damage")
    cluster.start()
    listener = Listener()
    taken = incremental(protected, listener)
    assert taken.damaged_pages == 1
    assert [fields["block"] for _, fields in listener.warnings] == [20]
    found = manifest(protected, taken)
    assert [found.paths[file] for file, _ in found.damaged.tolist()] == [
        os.fsencode(file_of(cluster, "t"))
    ]
    again = site(protected).take(listener, BackupKind.INCREMENTAL)
    assert again.kind is BackupKind.FULL
    assert any("holds damaged pages of" in text for text, _ in listener.warnings)


# -- what makes a full backup


@pytest.mark.parametrize("version", [pytest.param(15, marks=pytest.mark.long), 16])
def test_older_servers_stream_full_backups(version: int, scene: Scene) -> None:
    protected = scene.protect(version, source="stream")
    backup(protected, "full")
    taken = backup(protected)
    assert taken.kind == "full"
    assert f"PostgreSQL {version} streams full backups only" in taken.reason


def test_a_full_where_the_server_can_not_compare(protected: Protected) -> None:
    """What was read from the data directory has no manifest of the server's own."""
    site(protected, "local").take()
    taken = backup(protected)
    assert taken.kind == "full"
    assert "was not streamed" in taken.reason
    local = site(protected, "local").take(kind=BackupKind.INCREMENTAL)
    assert local.kind is BackupKind.INCREMENTAL
    taken = backup(protected)
    assert taken.kind == "full"
    assert "was not streamed" in taken.reason
    assert backup(protected).kind == "incr"
    protected.cluster.rows("ALTER SYSTEM SET summarize_wal = off")
    protected.cluster.rows("SELECT pg_reload_conf()")
    taken = backup(protected)
    assert (taken.kind, taken.parent) == ("full", None)
    assert "summarize_wal is off" in taken.reason


def test_after_a_promotion_a_full(protected: Protected) -> None:
    backup(protected, "full")
    protected.archive_now()
    Workload(protected.cluster, Random(0), Path()).promote()
    taken = backup(protected)
    assert taken.kind == "full"
    assert "from timeline 1 to 2" in taken.reason
    assert backup(protected).kind == "incr"


def test_what_the_server_refuses_becomes_a_full(protected: Protected) -> None:
    cluster = protected.cluster
    backup(protected, "full")
    for _ in range(2):
        cluster.psql("CHECKPOINT; SELECT pg_switch_wal(); CHECKPOINT;")
    cluster.stop()
    for summary in Path(cluster.data_directory, "pg_wal/summaries").iterdir():
        summary.unlink()
    cluster.start()
    taken = backup(protected)
    assert taken.kind == "full"
    assert "WAL summaries are required" in taken.reason
    assert_not_in_backup(cluster)
    assert_tidy(site(protected))
    assert backup(protected).kind == "incr"


# -- chains


def _chain(
    scene: Scene, version: int, random: Random, links: int, steps: int
) -> tuple[Protected, list[Link]]:
    """Take incrementals after and during random work; return what there was."""
    protected = scene.protect(version, WORK_SETTINGS | SETTINGS, source="stream")
    work = Workload(protected.cluster, random, scene.directory())
    work.prepare()
    backup(protected, "full")
    chosen = random.sample(BEFORE, steps)
    remembered = []
    for number in range(links):
        work.run(chosen[number::links])
        with ThreadPoolExecutor(1) as pool:
            working = pool.submit(work.run, random.sample(DURING, steps // 6))
            taken = backup(protected)
            working.result(60)
        assert taken.kind == "incr", (taken, work.done)
        remembered.append(remember(scene, protected, taken))
    protected.archive_now()
    return protected, remembered


def test_a_chain_over_random_work(
    workshop: ClusterFactory, newest_version: int
) -> None:
    with Scene(workshop) as scene:
        protected, links = _chain(scene, newest_version, Random(17), 2, 16)
        prove(scene, protected, links[-1])


@pytest.mark.long
@pytest.mark.parametrize("seed", range(10))
def test_long_chains_over_random_work(
    seed: int, workshop: ClusterFactory, newest_version: int
) -> None:
    with Scene(workshop) as scene:
        protected, links = _chain(scene, newest_version, Random(seed), 5, len(BEFORE))
        for link in links:
            prove(scene, protected, link)


@pytest.mark.long
def test_a_relation_past_its_first_file(scene: Scene, newest_version: int) -> None:
    """Blocks and truncations count in the file, limits and checksums in the fork."""
    protected = scene.protect(
        newest_version,
        SETTINGS | {"max_wal_size": "4GB"},
        source="stream",
        wal_segment_size=64 << 20,
    )
    cluster = protected.cluster
    cluster.psql("""
        CREATE TABLE t (n int, filler text) WITH (fillfactor = 100);
        ALTER TABLE t ALTER filler SET STORAGE PLAIN;
        INSERT INTO t SELECT n, repeat('x', 7000) FROM generate_series(0, 131471) AS n;
        VACUUM FREEZE t; CHECKPOINT;
    """)
    site(protected).take()
    lines = "".join(f"{n}\t{'y' * 7000}\n" for n in range(40))
    cluster.psql(
        "DELETE FROM t WHERE n >= 131200; VACUUM (TRUNCATE) t;"
        "UPDATE t SET n = -n WHERE ctid IN ('(7,1)', '(131072,1)', '(131100,1)');"
        f"COPY t FROM STDIN;\n{lines}\\.\nCHECKPOINT;"
    )
    listener = Listener()
    taken = incremental(protected, listener)
    assert (taken.damaged_pages, listener.warnings) == (0, [])
    found, path = page_map(protected, taken), file_of(cluster, "t")
    reader = PackReader(protected.repository(), found)
    expected = Path(cluster.data_directory, path + ".1").read_bytes()
    for name, length in ((path, 100 * PAGE), (path + ".1", len(expected))):
        number = found.find(os.fsencode(name))
        assert number is not None
        with Path(cluster.data_directory, name).open("rb") as file:
            assert reader.read(number, 0, length) == file.read(length)
        layers = found.pieces_of(number)["layer"]
        assert set(layers.tolist()) == {0, 1}
