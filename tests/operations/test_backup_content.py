"""What clusters can hold, backed up and restored: nothing is lost or changed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from psycopg import sql

from tests.operations.backup_tools import (
    MOSTLY_LOCAL,
    SOURCES,
    assert_tidy,
    content,
    restored,
    site,
)
from tests.pg import give_to

if TYPE_CHECKING:
    from tests.operations.scene import Scene
    from tests.pg import Cluster
    from tests.protect import Protected

NAMES = [
    "with space",
    'quo"te',
    "apo'strophe",
    "new\nline",
    "tab\tand\\backslash",
    "žluťoučký kůň",
    "ß" * 31 + "x",
    "-rf",
    "%f %p $HOME `id`",
]
SETTINGS = {
    "max_prepared_transactions": "4",
    "wal_level": "logical",
    "allow_in_place_tablespaces": "on",
}


def _protect(scene: Scene, version: int, **options: Any) -> Protected:
    return scene.protect(version, SETTINGS, **options)


def _fill(cluster: Cluster, tablespaces: list[Path]) -> None:
    with cluster.connect() as connection:
        for number, name in enumerate(NAMES):
            identifier = sql.Identifier(name)
            connection.execute(sql.SQL("CREATE DATABASE {}").format(identifier))
            connection.execute(
                sql.SQL("CREATE TABLE {} AS SELECT {}::int AS n").format(
                    identifier, sql.Literal(number)
                )
            )
        for number, place in enumerate(["", *map(str, tablespaces)]):
            connection.execute(
                sql.SQL("CREATE TABLESPACE {} LOCATION {}").format(
                    sql.Identifier(f"space {number}"), sql.Literal(place)
                )
            )
            connection.execute(
                f'CREATE TABLE in_space_{number} TABLESPACE "space {number}"'
                " AS SELECT n FROM generate_series(1, 3000) AS n"
            )
    for name in NAMES[:3]:
        cluster.rows("CREATE TABLE t AS SELECT 1 AS n", name)
    cluster.psql("""
        CREATE TABLE empty_one ();
        CREATE TABLE emptied (n int); INSERT INTO emptied VALUES (1);
        CREATE TABLE torn AS SELECT n FROM generate_series(1, 1000) AS n;
        CREATE UNLOGGED TABLE unlogged AS SELECT n FROM generate_series(1, 1000) AS n;
        CREATE INDEX ON unlogged (n);
        CREATE MATERIALIZED VIEW seen AS SELECT count(*) FROM pg_class;
        CREATE SEQUENCE counter; SELECT setval('counter', 41);
        SELECT lo_from_bytea(4242, decode(repeat('c0ffee', 30000), 'hex'));
        CREATE ROLE "Ünnamed"; COMMENT ON ROLE "Ünnamed" IS 'x';
        SELECT pg_create_physical_replication_slot('physical', true);
        SELECT pg_create_logical_replication_slot('logical', 'pgoutput');
        CREATE TABLE prepared (n int);
        BEGIN; INSERT INTO prepared VALUES (42); PREPARE TRANSACTION 'it''s';
        TRUNCATE emptied;
        CHECKPOINT;
    """)
    torn = cluster.sql("SELECT pg_relation_filepath('torn')")
    with Path(cluster.data_directory, torn).open("ab") as file:
        file.write(bytes(100))


def _link_wal(cluster: Cluster, place: Path) -> None:
    wal = Path(cluster.data_directory, "pg_wal")
    shutil.move(wal, place)
    wal.symlink_to(place)
    os.chown(wal, *cluster.account[1:], follow_symlinks=False)


def _check_everything(scene: Scene, version: int, source: str) -> None:
    protected = _protect(scene, version)
    cluster = protected.cluster
    outside = scene.directory()
    cluster.stop()
    _link_wal(cluster, outside / "wal elsewhere")
    cluster.start()
    spaces = [outside / "ts one", outside / "ts\\two\nžlutý"]
    for space in spaces:
        space.mkdir()
        give_to(cluster.account, space)
    _fill(cluster, spaces)
    with cluster.connect() as connection:
        connection.execute("CREATE TEMPORARY TABLE passing AS SELECT 1 AS n")
        site(protected, source, jobs=2).take()
    protected.archive_now()
    assert_tidy(site(protected))
    options = [f"--tablespace-map={space}={space}-restored" for space in spaces]
    expected = content(cluster)
    cluster.stop()
    with restored(scene, protected, *options) as found:
        assert content(found) == expected
        _check_the_rest(found, spaces)


def _check_the_rest(found: Cluster, spaces: list[Path]) -> None:
    assert found.rows("SELECT slot_name FROM pg_replication_slots") == []
    assert found.rows("SELECT n FROM unlogged") == []
    found.rows("INSERT INTO unlogged VALUES (1)")
    assert found.sql("SELECT nextval('counter')") >= 42
    assert found.sql("SELECT length(lo_get(4242))") == 90000
    found.rows("COMMIT PREPARED 'it''s'")
    assert found.sql("SELECT n FROM prepared") == 42
    found.rows("INSERT INTO torn SELECT n FROM generate_series(1, 10000) AS n")
    places = found.rows(
        "SELECT pg_tablespace_location(oid) FROM pg_tablespace"
        " WHERE spcname LIKE 'space%' ORDER BY spcname"
    )
    assert [place for (place,) in places[1:]] == [f"{one}-restored" for one in spaces]
    wal = Path(found.data_directory, "pg_wal")
    assert wal.is_dir()
    assert not wal.is_symlink()


@pytest.mark.parametrize(
    ("version", "source"),
    [(15, "stream"), (16, "local"), (18, "stream")],
)
def test_everything_that_a_cluster_can_hold(
    version: int, source: str, scene: Scene
) -> None:
    _check_everything(scene, version, source)


@pytest.mark.long
@pytest.mark.parametrize(
    ("version", "source"), [(15, "local"), (16, "stream"), (18, "local")]
)
def test_everything_that_a_cluster_can_hold_elsewhere(
    version: int, source: str, scene: Scene
) -> None:
    _check_everything(scene, version, source)


def _check_many_tables(scene: Scene, version: int, source: str, count: int) -> None:
    settings = {"max_locks_per_transaction": "1000", "shared_buffers": "64MB"}
    protected = scene.protect(version, settings)
    protected.cluster.rows(f"""
        DO $$ BEGIN
            FOR n IN 1..{count} LOOP
                EXECUTE format('CREATE TABLE t_%s AS SELECT %s AS n', n, n);
                IF n % 1000 = 0 THEN COMMIT; END IF;
            END LOOP;
        END $$
    """)
    summary = site(protected, source, jobs=2).take()
    assert summary.files > count
    with restored(scene, protected) as found:
        assert content(found) == content(protected.cluster)


@pytest.mark.parametrize("source", MOSTLY_LOCAL)
def test_many_tables(source: str, newest_version: int, scene: Scene) -> None:
    _check_many_tables(scene, newest_version, source, 2000)


@pytest.mark.long
@pytest.mark.parametrize("source", SOURCES)
def test_a_hundred_thousand_tables(
    source: str, newest_version: int, scene: Scene
) -> None:
    _check_many_tables(scene, newest_version, source, 100_000)


@pytest.mark.parametrize(("megabytes", "source"), [(64, "local"), (16, "stream")])
def test_sizes_of_wal_segments(
    megabytes: int, source: str, newest_version: int, scene: Scene
) -> None:
    """All other tests have segments of 1 MB."""
    protected = scene.protect(newest_version, wal_segment_size=megabytes << 20)
    cluster = protected.cluster
    cluster.rows("CREATE TABLE t AS SELECT generate_series(1, 1000) AS n")
    summary = site(protected, source).take()
    assert summary.wal_segment_size == megabytes << 20
    cluster.rows("INSERT INTO t SELECT generate_series(1001, 2000)")
    protected.archive_now()
    with restored(scene, protected) as found:
        assert content(found) == content(cluster)


@pytest.mark.long
@pytest.mark.parametrize("source", SOURCES)
def test_a_relation_of_more_than_a_gigabyte(
    source: str, newest_version: int, scene: Scene
) -> None:
    protected = scene.protect(
        newest_version, {"max_wal_size": "1GB"}, wal_segment_size=64 << 20
    )
    cluster = protected.cluster
    cluster.psql("""
        CREATE TABLE t (n int, filler text);
        ALTER TABLE t ALTER filler SET STORAGE PLAIN;
        INSERT INTO t SELECT n, repeat(md5(n::text), 120)
            FROM generate_series(1, 280000) AS n;
        CHECKPOINT;
    """)
    second = Path(
        cluster.data_directory, cluster.sql("SELECT pg_relation_filepath('t')") + ".1"
    )
    assert second.stat().st_size > 64 << 20
    expected = content(cluster)
    summary = site(protected, source, jobs=2).take()
    assert summary.damaged_pages == 0
    cluster.stop()
    with restored(scene, protected) as found:
        assert content(found) == expected
        found.stop()
        found.run_tool("pg_checksums", "--check", "-D", found.data_directory)
