"""Backups of clusters whose files come, go, grow and shrink meanwhile."""

from __future__ import annotations

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from drkit.errors import PostgresRefused
from drkit.model.label import BackupKind
from tests.operations.backup_tools import (
    Listener,
    assert_tidy,
    content,
    restored,
    site,
)
from tests.operations.scene import restore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from drkit.protocols import Progress
    from tests.operations.scene import Scene
    from tests.pg import Cluster
    from tests.protect import Protected

CONTRIB = 15  # the only version under test that has amcheck
PAUSE = 0.004  # seconds after each read, so that the copy takes some
REST = 0.1  # seconds between two rounds of a workload

# Each runs in a session of its own, again and again; n counts.
WORKLOADS = {
    "create and drop": """
        CREATE TABLE IF NOT EXISTS made_{n} AS SELECT g FROM generate_series(1, 500) g;
        DROP TABLE IF EXISTS made_{older};
    """,
    "truncate and fill": """
        TRUNCATE changing;
        INSERT INTO changing SELECT g, md5(g::text) FROM generate_series(1, {n} * 50) g;
    """,
    "rewrite": """
        UPDATE steady SET filler = filler || 'x' WHERE n % 50 = {n} % 50;
        VACUUM FULL steady;
    """,
    "shrink": """
        INSERT INTO shrinking SELECT g FROM generate_series(1, 20000) g;
        DELETE FROM shrinking;
        VACUUM (TRUNCATE) shrinking;
    """,
    "index": """
        CREATE INDEX ON changing (filler);
        REINDEX TABLE changing;
        DROP INDEX IF EXISTS changing_filler_idx;
    """,
    "database by WAL": """
        CREATE DATABASE logged_{n} STRATEGY wal_log;
        DROP DATABASE IF EXISTS logged_{older};
    """,
    "database by files": """
        CREATE DATABASE copied_{n} STRATEGY file_copy;
        DROP DATABASE IF EXISTS copied_{older};
    """,
    "not logged": """
        CREATE UNLOGGED TABLE unlogged_{n} AS SELECT g FROM generate_series(1, 500) g;
        CREATE TEMPORARY TABLE passing_{n} AS SELECT g FROM generate_series(1, 5000) g;
        DROP TABLE IF EXISTS unlogged_{older};
        SELECT lo_from_bytea(0, decode(repeat('ab', 20000), 'hex'));
    """,
}


def _protect(scene: Scene, version: int) -> Protected:
    # Recovery makes a database that was copied by files out of the template as the
    # backup has it, changes of later on included (PostgreSQL's documentation,
    # "Continuous Archiving", "Caveats"). So nothing may change template1 meanwhile.
    settings = {"autovacuum": "off", "max_connections": "40"}
    made = scene.protect(version, settings, wal_segment_size=16 << 20)
    made.cluster.psql("""
        CREATE TABLE changing (n int PRIMARY KEY, filler text);
        CREATE TABLE shrinking (n int);
        CREATE TABLE steady AS SELECT n, repeat('x', 100) AS filler
            FROM generate_series(1, 5000) AS n;
        CREATE INDEX ON steady (n);
    """)
    return made


class Workload:
    """Sessions that change a cluster until told to stop."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._stop = threading.Event()
        self.failures: list[str] = []
        self.rounds = dict.fromkeys(WORKLOADS, 0)

    @contextmanager
    def running(self) -> Iterator[Workload]:
        threads = [
            threading.Thread(target=self._work, args=(name,)) for name in WORKLOADS
        ]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            for thread in threads:
                thread.join(60)

    def _work(self, name: str) -> None:
        try:
            with self._cluster.connect() as connection:
                for n in itertools.count(10):
                    if self._stop.is_set():
                        return
                    script = WORKLOADS[name].format(n=n, older=n - 2)
                    for statement in filter(str.strip, script.split(";")):
                        connection.execute(statement.encode())
                    self.rounds[name] += 1
                    self._stop.wait(REST)
        except Exception as error:
            self.failures.append(f"{name}: {error}")


def _slowly() -> Progress:
    return Listener(on_advance=lambda _: time.sleep(PAUSE))


def _check_integrity(cluster: Cluster) -> None:
    """Look at every page and index; the server is stopped afterwards."""
    if cluster.binaries.major == CONTRIB:
        cluster.run_tool(
            "pg_amcheck",
            f"--host={cluster.directory}",
            "--username=postgres",
            "--all",
            "--install-missing",
            "--heapallindexed",
        )
    cluster.stop()
    cluster.run_tool("pg_checksums", "--check", "-D", cluster.data_directory)


def _survives(version: int, source: str, scene: Scene) -> None:
    protected = _protect(scene, version)
    with Workload(protected.cluster).running() as workload:
        site(protected, source, jobs=2).take(_slowly())
        rounds = dict(workload.rounds)
    assert workload.failures == []
    assert min(rounds.values()) >= 1, rounds
    protected.archive_now()
    assert_tidy(site(protected))
    with restored(scene, protected) as found:
        assert content(found) == content(protected.cluster)
        _check_integrity(found)


@pytest.mark.parametrize(("version", "source"), [(15, "local"), (18, "stream")])
def test_heavy_changes(version: int, source: str, scene: Scene) -> None:
    _survives(version, source, scene)


@pytest.mark.long
@pytest.mark.parametrize("repeat", range(2))
@pytest.mark.parametrize(
    ("version", "source"),
    [(15, "stream"), (16, "local"), (16, "stream"), (18, "local"), (15, "local")],
)
def test_heavy_changes_again_and_again(
    version: int, source: str, repeat: int, scene: Scene
) -> None:
    _survives(version, source, scene)


CHANGES_BETWEEN_LISTING_AND_READING = """
    DROP TABLE vanishing;
    DROP DATABASE vanishing;
    TRUNCATE changing;
    DELETE FROM shrinking WHERE n > 100;
    VACUUM (TRUNCATE) shrinking;
    INSERT INTO steady SELECT n, 'new' FROM generate_series(5001, 20000) AS n;
    CREATE TABLE appearing AS SELECT n FROM generate_series(1, 1000) AS n;
    CREATE DATABASE copied STRATEGY file_copy;
    CREATE DATABASE logged STRATEGY wal_log;
    VACUUM FULL steady;
    CHECKPOINT;
    INSERT INTO changing SELECT n, 'again' FROM generate_series(1, 3000) AS n;
    CHECKPOINT;
"""


@pytest.mark.parametrize(
    "version", [*(pytest.param(v, marks=pytest.mark.long) for v in (15, 16)), 18]
)
def test_changes_between_listing_and_reading(version: int, scene: Scene) -> None:
    """Every file that was listed is another one, or gone, when it is read."""
    protected = _protect(scene, version)
    cluster = protected.cluster
    cluster.psql("""
        CREATE DATABASE vanishing;
        CREATE TABLE vanishing AS SELECT n FROM generate_series(1, 10000) AS n;
        INSERT INTO shrinking SELECT n FROM generate_series(1, 50000) AS n;
        INSERT INTO changing SELECT n, md5(n::text) FROM generate_series(1, 20000) n;
    """)
    change = {"copy": lambda: cluster.psql(CHANGES_BETWEEN_LISTING_AND_READING)}
    site(protected, jobs=2).take(Listener(change))
    protected.archive_now()
    with restored(scene, protected) as found:
        assert content(found) == content(cluster)
        _check_integrity(found)


HELD = """
    CREATE UNLOGGED TABLE passing AS SELECT n FROM generate_series(1, 1000) AS n;
    CREATE FUNCTION held(n int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$
        BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN n; END $$;
"""
BUILDING = """
    SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
"""


@contextmanager
def _index_in_the_making(cluster: Cluster) -> Iterator[Callable[[], None]]:
    """Hold up the making of an index; yield what lets it end, and waits for that."""
    with cluster.connect() as holder, ThreadPoolExecutor(1) as pool:
        holder.execute("SELECT pg_advisory_lock(1)")
        building = pool.submit(cluster.psql, "CREATE INDEX ON passing (held(n))")
        deadline = time.monotonic() + 60
        while cluster.sql(BUILDING) == 0:
            assert time.monotonic() < deadline
            time.sleep(0.02)

        def go_on() -> None:
            holder.execute("SELECT pg_advisory_unlock(1)")
            building.result(60)

        yield go_on
        building.result(0)


@pytest.mark.parametrize("kind", [BackupKind.FULL, BackupKind.INCREMENTAL])
@pytest.mark.parametrize("version", [15, 18])
def test_an_unlogged_index_that_is_being_built(
    version: int, kind: BackupKind, scene: Scene
) -> None:
    """Its init fork comes when its main fork has been listed as any other."""
    protected = _protect(scene, version)
    cluster = protected.cluster
    cluster.psql(HELD)
    if kind is BackupKind.INCREMENTAL:
        protected.backup()
    with _index_in_the_making(cluster) as go_on:
        taken = site(protected, jobs=2).take(Listener({"copy": go_on}), kind)
    assert taken.kind is kind
    protected.archive_now()
    with restored(scene, protected) as found:
        assert content(found) == content(cluster)
        found.psql("INSERT INTO passing VALUES (1); DROP TABLE passing")


def test_an_unlogged_index_that_takes_longer_than_the_backup(scene: Scene) -> None:
    """Nothing tells it; recovery stops in the end, and comes through when repeated."""
    protected = _protect(scene, 18)
    cluster = protected.cluster
    cluster.psql(HELD)
    with _index_in_the_making(cluster) as go_on:
        site(protected, jobs=2).take()
        go_on()
    protected.archive_now()
    target = scene.target()
    restore(protected, target)
    with pytest.raises(PostgresRefused, match=r"could not create file .*File exists"):
        scene.start(target, 18)
    found = scene.start(target, 18)
    assert content(found) == content(cluster)
    found.psql("INSERT INTO passing VALUES (1); DROP TABLE passing")
    found.stop("immediate")
