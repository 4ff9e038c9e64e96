"""What changed, by the WAL summaries of real servers, held against their files."""

from __future__ import annotations

import os
import re
import signal
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from drkit.model.changes import ChangedBlocks
from drkit.model.lsn import Lsn
from drkit.model.page import PAGE
from drkit.model.timeline import TimelineHistory
from drkit.postgres.connection import connect
from drkit.postgres.exclusions import Fork, relation_file
from drkit.postgres.session import BackupSession
from drkit.postgres.summaries import changed_blocks
from drkit.postgres.summaryfile import SUMMARIES
from drkit.postgres.timelines import read_history
from drkit.wiring import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import MakeCluster
    from tests.pg import Cluster

SEGMENT = 131072  # blocks
SETTINGS = {"summarize_wal": "on", "wal_level": "replica", "autovacuum": "off"}
PATIENCE = timedelta(seconds=30)
FIRST = TimelineHistory(1)


@pytest.fixture
def cluster(newest_version: int, make_cluster: MakeCluster) -> Cluster:
    return make_cluster(newest_version, SETTINGS)


def begin(cluster: Cluster) -> Lsn:
    """Start and stop a backup; return where it started."""
    with connect(cluster.url, None, "backup") as connection:
        session = BackupSession(connection)
        session.begin("test")
        start = session.start()
        session.stop()
    return start


def ask(
    cluster: Cluster,
    since: Lsn,
    until: Lsn,
    history: TimelineHistory = FIRST,
    patience: timedelta = PATIENCE,
) -> ChangedBlocks | str:
    with connect(cluster.url, None, "backup") as connection:
        return changed_blocks(
            connection,
            cluster.data_directory,
            history,
            since,
            until,
            SEGMENT,
            patience,
            SystemClock(),
        )


def changed(
    cluster: Cluster, since: Lsn, until: Lsn, history: TimelineHistory = FIRST
) -> ChangedBlocks:
    found = ask(cluster, since, until, history)
    assert isinstance(found, ChangedBlocks), found
    return found


def path_of(cluster: Cluster, table: str) -> bytes:
    return os.fsencode(cluster.sql(f"SELECT pg_relation_filepath('{table}')"))


def main_forks(cluster: Cluster) -> dict[bytes, bytes]:
    """Read the files of all main forks, by their paths."""
    found = {}
    for place, _, names in os.walk(cluster.data_directory, followlinks=True):
        for name in names:
            file = Path(place, name)
            path = os.fsencode(file.relative_to(cluster.data_directory))
            relation = relation_file(path)
            if relation is not None and relation.fork is Fork.MAIN:
                found[path] = file.read_bytes()
    return found


def told(cluster: Cluster, since: Lsn, until: Lsn) -> set[tuple[int, int, int, int]]:
    """Ask the server's own reader of summaries for the changed blocks."""
    rows = cluster.rows(f"""
        SELECT DISTINCT reltablespace::bigint, reldatabase::bigint, relfilenode::bigint,
            relblocknumber
        FROM pg_available_wal_summaries() AS s,
            pg_wal_summary_contents(s.tli, s.start_lsn, s.end_lsn)
        WHERE s.end_lsn > '{since}' AND s.start_lsn < '{until}'
            AND relforknumber = 0 AND NOT is_limit_block
    """)
    return {tuple(row) for row in rows}


WORK = """
    UPDATE partly SET b = 'changed' WHERE a % 97 = 0;
    DELETE FROM shrinks WHERE a > 500;
    VACUUM shrinks;
    INSERT INTO shrinks SELECT g, repeat('again', 100) FROM generate_series(1, 3000) g;
    TRUNCATE emptied;
    DROP TABLE dropped;
    CREATE TABLE made AS SELECT * FROM partly;
    UPDATE wide SET a = a + 1;
    UPDATE elsewhere SET a = a + 1 WHERE a = 7;
    CREATE DATABASE copied STRATEGY file_copy;
    CREATE ROLE newcomer;
"""
TABLES = ("quiet", "partly", "shrinks", "emptied", "dropped")


def prepare(cluster: Cluster, tablespace: Path) -> None:
    for name in TABLES:
        cluster.rows(
            f"CREATE TABLE {name} AS SELECT g AS a, repeat('x', 500) AS b "
            "FROM generate_series(1, 5000) AS g;"
            f"CREATE INDEX ON {name} (a);"
        )
    cluster.rows(
        # a row on each page; so many pages are noted as bits
        "CREATE TABLE wide (a int, b text) WITH (fillfactor = 10);"
        "INSERT INTO wide SELECT g, repeat('y', 600) FROM generate_series(1, 6000) g;"
    )
    cluster.rows(f"CREATE TABLESPACE ts LOCATION '{tablespace}'")
    cluster.rows(
        "CREATE TABLE elsewhere TABLESPACE ts AS "
        "SELECT g AS a, repeat('z', 500) AS b FROM generate_series(1, 500) AS g"
    )
    cluster.rows("VACUUM (FREEZE, ANALYZE)")


def test_no_page_that_differs_is_left_out(
    cluster: Cluster, make_directory: Callable[[], Path]
) -> None:
    prepare(cluster, make_directory())
    since = begin(cluster)
    before = main_forks(cluster)
    for statement in WORK.split(";")[:-1]:
        cluster.rows(statement)
    until = begin(cluster)

    found = changed(cluster, since, until)

    after = main_forks(cluster)
    assert len(before.keys() & after.keys()) > 500
    for path in before.keys() & after.keys():
        assert_covered(found, path, before[path], after[path])
    quiet = found.of(path_of(cluster, "quiet"))
    assert (quiet.whole, quiet.limit, quiet.blocks.tolist()) == (False, None, [])
    partly = found.of(path_of(cluster, "partly"))
    assert not partly.whole
    assert 51 <= len(partly.blocks) < 120  # rows on 51 of 334 pages
    assert found.of(path_of(cluster, "made")).whole
    assert found.of(path_of(cluster, "emptied")).whole
    assert len(found.of(path_of(cluster, "wide")).blocks) >= 6000
    elsewhere = found.of(path_of(cluster, "elsewhere"))
    assert not elsewhere.whole
    assert 1 <= len(elsewhere.blocks) <= 2
    shrinks = found.of(path_of(cluster, "shrinks"))
    assert shrinks.limit == 34  # of 500 rows of 15 to a page
    oid = cluster.sql("SELECT oid FROM pg_database WHERE datname = 'copied'")
    assert found.of(f"base/{oid}/1259".encode()).whole


def assert_covered(
    found: ChangedBlocks, path: bytes, before: bytes, after: bytes
) -> None:
    """Fail unless all pages that differ are told, or lie past what was kept."""
    changes = found.of(path)
    pages = min(len(before), len(after)) // PAGE
    if changes.whole:
        return
    old, new = (
        np.frombuffer(one, np.uint8, pages * PAGE).reshape(-1, PAGE)
        for one in (before, after)
    )
    differ = set(np.flatnonzero((old != new).any(axis=1)).tolist())
    limit = pages if changes.limit is None else changes.limit
    missed = {block for block in differ if block < limit} - set(changes.blocks.tolist())
    assert missed == set(), path


def test_the_same_blocks_as_the_servers_own_reader(
    cluster: Cluster, make_directory: Callable[[], Path]
) -> None:
    prepare(cluster, make_directory())
    since = begin(cluster)
    for statement in WORK.split(";")[:-1]:
        cluster.rows(statement)
    until = begin(cluster)

    found = changed(cluster, since, until)

    names = {place: relation for relation, place in found.places.items()}
    ours = {
        (*names[block >> 32], block & 0xFFFFFFFF) for block in found.blocks.tolist()
    }
    assert len(ours) > 6000
    assert ours == told(cluster, since, until)


def test_all_that_overlaps_is_taken(cluster: Cluster) -> None:
    """Neither end of the range need be where a summary begins or ends."""
    cluster.rows("CREATE TABLE t AS SELECT g AS a FROM generate_series(1, 100) AS g")
    begin(cluster)
    cluster.rows("INSERT INTO t VALUES (1)")
    middle = Lsn.parse(cluster.sql("SELECT pg_current_wal_lsn()"))
    cluster.rows("CHECKPOINT")
    found = changed(cluster, Lsn(middle - 8), Lsn(middle - 4))
    assert found.of(path_of(cluster, "t")).blocks.tolist() == [0]


def test_a_missing_summary_is_a_reason_for_a_full(cluster: Cluster) -> None:
    since = begin(cluster)
    for _ in range(3):
        cluster.rows("SELECT pg_logical_emit_message(false, '', 'x'); CHECKPOINT")
    until = begin(cluster)
    changed(cluster, since, until)
    files = sorted(Path(cluster.data_directory, SUMMARIES).iterdir())
    ends = {one.name[24:40]: one for one in files}
    victim = next(one for one in files if one.name[8:24] == f"{since:016X}")
    victim = ends[next(one.name[8:24] for one in files if one.name > victim.name)]
    start = Lsn(int(victim.name[8:24], 16))
    victim.unlink()

    reason = ask(cluster, since, until)

    assert isinstance(reason, str)
    assert f"{since} to {until} on timeline 1" in reason
    assert f"what changed at {start}" in reason


def test_summaries_older_than_the_servers_memory(cluster: Cluster) -> None:
    since = begin(cluster)
    until = begin(cluster)
    changed(cluster, since, until)
    for one in Path(cluster.data_directory, SUMMARIES).iterdir():
        one.unlink()
    reason = ask(cluster, since, until)
    assert isinstance(reason, str)
    assert f"nothing tells what changed at {since}" in reason


@pytest.mark.parametrize("damage", ["byte", "cut", "unreadable"])
def test_a_damaged_summary_is_a_reason_for_a_full(
    cluster: Cluster, damage: str
) -> None:
    since = begin(cluster)
    cluster.rows("CREATE TABLE t AS SELECT g AS a FROM generate_series(1, 9999) AS g")
    until = begin(cluster)
    changed(cluster, since, until)
    name = next(
        one
        for one in Path(cluster.data_directory, SUMMARIES).iterdir()
        if one.name[8:24] == f"{since:016X}"
    )
    content = bytearray(name.read_bytes())
    if damage == "byte":
        content[len(content) // 2] ^= 1
        name.write_bytes(content)
    elif damage == "cut":
        name.write_bytes(content[:-5])
    else:
        name.unlink()
        name.mkdir()

    reason = ask(cluster, since, until)

    assert isinstance(reason, str)
    assert re.search(f"WAL summary .*{name.name} (is damaged|can't be read)", reason)


def test_without_summaries_the_reason_says_so(
    newest_version: int, make_cluster: MakeCluster
) -> None:
    cluster = make_cluster(newest_version, SETTINGS | {"summarize_wal": "off"})
    reason = ask(cluster, begin(cluster), begin(cluster))
    assert isinstance(reason, str)
    assert "summarize_wal is off" in reason


def test_a_server_that_knows_no_summaries(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(16)
    reason = ask(cluster, begin(cluster), begin(cluster))
    assert isinstance(reason, str)
    assert "PostgreSQL 16 makes no WAL summaries" in reason


@contextmanager
def stopped_summarizer(cluster: Cluster) -> Iterator[None]:
    pid = cluster.sql(
        "SELECT pid FROM pg_stat_activity WHERE backend_type = 'walsummarizer'"
    )
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_summarizer_that_stands_still_is_not_waited_for_for_ever(
    cluster: Cluster,
) -> None:
    since = begin(cluster)
    changed(cluster, since, since)
    with stopped_summarizer(cluster):
        cluster.rows("CREATE TABLE t AS SELECT generate_series(1, 100)")
        until = begin(cluster)
        reason = ask(cluster, since, until, patience=timedelta(seconds=0.3))
    assert isinstance(reason, str)
    assert f"not to {until}" in reason
    assert "no headway for 0:00:00.3" in reason
    assert path_of(cluster, "t")
    assert changed(cluster, since, until).of(path_of(cluster, "t")).whole


def test_a_range_over_a_promotion(cluster: Cluster) -> None:
    cluster.rows("CREATE TABLE t AS SELECT g AS a FROM generate_series(1, 5000) AS g")
    since = begin(cluster)
    cluster.rows("UPDATE t SET a = a WHERE a = 1")
    first = cluster.sql("SELECT max((ctid::text::point)[0]::int) FROM t WHERE a = 1")
    cluster.stop()
    Path(cluster.data_directory, "standby.signal").touch()
    cluster.start()
    cluster.promote()
    cluster.rows("CREATE TABLE later AS SELECT * FROM t")
    until = begin(cluster)
    history = read_history(cluster.data_directory, 2)

    found = changed(cluster, since, until, history)

    assert first in found.of(path_of(cluster, "t")).blocks.tolist()
    assert found.of(path_of(cluster, "later")).whole
    for one in Path(cluster.data_directory, SUMMARIES).glob("00000002*"):
        one.unlink()
    reason = ask(cluster, since, until, history)
    assert isinstance(reason, str)
    assert "on timeline 2" in reason
