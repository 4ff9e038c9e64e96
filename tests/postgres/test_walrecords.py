"""The WAL reader, record for record against pg_waldump."""

from __future__ import annotations

import re
import struct
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from drkit.errors import Corrupt
from drkit.model.lsn import Lsn
from drkit.model.wal import parse_segment
from drkit.postgres.walrecords import Carry, EventKind, WalEvent, scan_segment

if TYPE_CHECKING:
    from tests.conftest import MakeCluster
    from tests.pg import Cluster

SIZE = 1 << 20
# two and a half segments: a record that fills a segment and goes on
LONG_MESSAGE = "SELECT pg_logical_emit_message(false, 'm', repeat('z', 2621440))"
_LINE = re.compile(
    r"rmgr: (?P<manager>\S+) .*?tx: +(?P<xid>\d+), lsn: (?P<lsn>\S+), .*?"
    r"desc: (?P<what>\S+) ?(?P<rest>.*)"
)
_TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}")
_KINDS = {
    "COMMIT": EventKind.COMMIT,
    "COMMIT_PREPARED": EventKind.COMMIT,
    "ABORT": EventKind.ABORT,
    "ABORT_PREPARED": EventKind.ABORT,
}

Comparable = tuple[EventKind, Lsn, int, str]


def pg_waldump(cluster: Cluster, first: str, last: str) -> list[Comparable]:
    """Commits, aborts and restore points as pg_waldump prints them."""
    output = cluster.run_tool(
        "pg_waldump", f"-p{cluster.data_directory}/pg_wal", first, last
    ).stdout.decode()
    found: list[Comparable] = []
    for line in output.splitlines():
        match = _LINE.match(line)
        assert match is not None, line
        lsn = Lsn.parse(match["lsn"])
        if match["what"] == "RESTORE_POINT":
            found.append((EventKind.RESTORE_POINT, lsn, 0, match["rest"]))
        elif match["manager"] == "Transaction" and match["what"] in _KINDS:
            # a prepared transaction's own id stands before the time
            prepared = re.match(r"(\d+): ", match["rest"])
            xid = int(prepared[1]) if prepared else int(match["xid"])
            stamp = _TIME.search(match["rest"])
            assert stamp is not None
            found.append((_KINDS[match["what"]], lsn, xid, stamp[0]))
    return found


def comparable(event: WalEvent) -> Comparable:
    if event.kind is EventKind.RESTORE_POINT:
        return event.kind, event.lsn, event.xid, event.name
    # pg_waldump prints local time
    stamp = event.time.astimezone().strftime("%Y-%m-%d %H:%M:%S.%f")
    return event.kind, event.lsn, event.xid, stamp


def scan(cluster: Cluster, first: str, last: str, size: int) -> list[WalEvent]:
    """Scan whole segments, each of which must be complete."""
    events: list[WalEvent] = []
    carry: Carry | None = None
    segment, stop = parse_segment(first, size), parse_segment(last, size).next()
    while segment != stop:
        data = cluster.wal_path(segment.name(size)).read_bytes()
        result = scan_segment(data, segment.start(size), carry, verify=True)
        assert result.complete, segment
        segment = segment.next()
        carry = result.carry
        events += result.events
    return events


def current_segment(cluster: Cluster) -> str:
    return str(cluster.sql("SELECT pg_walfile_name(pg_current_wal_insert_lsn())"))


def everything_that_ends_transactions(cluster: Cluster) -> None:
    """Plain and prepared commits and aborts, with all that their records can list."""
    cluster.sql("CREATE TABLE t (x int, y text)")
    with cluster.connect() as session:
        session.execute("SELECT pg_create_restore_point('first é point')")
        for i in range(300):
            session.execute("INSERT INTO t VALUES (%s, repeat('y', %s))", (i, i * 7))
        session.execute(
            "DO $$ BEGIN FOR i IN 1..100 LOOP BEGIN INSERT INTO t VALUES (i); "
            "EXCEPTION WHEN others THEN NULL; END; END LOOP; END $$"
        )
        for i in range(4):
            session.execute(
                f"BEGIN; CREATE TABLE p{i} (x int PRIMARY KEY); INSERT INTO p{i} "
                f"VALUES (1); SAVEPOINT a; INSERT INTO p{i} VALUES (2); "
                f"PREPARE TRANSACTION 'tx{i}'"
            )
        session.execute("COMMIT PREPARED 'tx0'")
        session.execute("ROLLBACK PREPARED 'tx1'")
        session.execute("BEGIN; DROP TABLE p0; PREPARE TRANSACTION 'drop'")
        session.execute("COMMIT PREPARED 'drop'")
        session.execute("BEGIN; INSERT INTO t VALUES (1); ROLLBACK")
        session.execute("COMMIT PREPARED 'tx2'")
        session.execute("SELECT pg_create_restore_point(repeat('n', 63))")
        session.execute("BEGIN; CREATE TABLE gone (x int); ROLLBACK")
        session.execute(LONG_MESSAGE)
        session.execute("SELECT pg_create_restore_point('after the long one')")
        session.execute("COMMIT PREPARED 'tx3'")


def test_events_are_those_of_pg_waldump(
    pg_version: int, make_cluster: MakeCluster
) -> None:
    cluster = make_cluster(
        pg_version,
        {"max_prepared_transactions": "10", "wal_keep_size": "1GB"},
        wal_segment_size=SIZE,
    )
    cluster.switch_wal()
    first = current_segment(cluster)
    for _ in range(3):
        everything_that_ends_transactions(cluster)
        cluster.sql("DROP TABLE t, p2, p3")
    cluster.sql(
        "CREATE TABLE big AS SELECT g, repeat('x', 500) FROM generate_series(1, 5000) g"
    )
    last = cluster.switch_wal()

    expected = pg_waldump(cluster, first, last)
    found = scan(cluster, first, last, SIZE)

    assert [comparable(event) for event in found] == expected
    assert len(expected) > 900
    points = [event.name for event in found if event.kind is EventKind.RESTORE_POINT]
    assert points == ["first é point", "n" * 63, "after the long one"] * 3


def test_commit_records_across_segments(
    newest_version: int, make_cluster: MakeCluster
) -> None:
    """Commits that list thousands of subtransactions straddle pages and segments."""
    cluster = make_cluster(
        newest_version, {"wal_keep_size": "1GB"}, wal_segment_size=SIZE
    )
    first = current_segment(cluster)
    cluster.sql("CREATE TABLE t (x int)")
    for _ in range(4):
        cluster.sql(
            "DO $$ BEGIN FOR i IN 1..20000 LOOP BEGIN INSERT INTO t VALUES (i); "
            "EXCEPTION WHEN others THEN NULL; END; END LOOP; END $$"
        )
    with cluster.connect() as session:
        for number in range(9000):
            session.execute("SELECT pg_create_restore_point(%s)", (f"p{number}",))
    last = cluster.switch_wal()

    found = scan(cluster, first, last, SIZE)

    assert [comparable(event) for event in found] == pg_waldump(cluster, first, last)


def test_scan_from_the_middle_of_a_record(
    newest_version: int, make_cluster: MakeCluster
) -> None:
    cluster = make_cluster(
        newest_version, {"wal_keep_size": "1GB"}, wal_segment_size=SIZE
    )
    cluster.switch_wal()
    first = parse_segment(current_segment(cluster), SIZE)
    cluster.sql(LONG_MESSAGE)
    cluster.sql("SELECT pg_create_restore_point('behind')")
    cluster.switch_wal()

    carry = None
    for segment in (first.next(), first.next().next()):
        data = cluster.wal_path(segment.name(SIZE)).read_bytes()
        result = scan_segment(data, segment.start(SIZE), carry)
        carry = result.carry
    assert [event.name for event in result.events] == ["behind"]


def test_growing_segment_is_read_as_far_as_it_goes(
    pg_version: int, make_cluster: MakeCluster
) -> None:
    cluster = make_cluster(pg_version, wal_segment_size=SIZE)
    for number in range(20):  # recycled files hold old WAL behind the new
        cluster.sql("CREATE TABLE x AS SELECT generate_series(1, 2000); DROP TABLE x")
        cluster.switch_wal()
        if number % 4 == 0:
            cluster.sql("CHECKPOINT")
    cluster.sql("SELECT pg_create_restore_point('last')")
    cluster.sql("CREATE TABLE flushed ()")
    end = Lsn.parse(cluster.sql("SELECT pg_current_wal_flush_lsn()::text"))
    name = current_segment(cluster)
    segment = parse_segment(name, SIZE)
    data = cluster.wal_path(name).read_bytes()

    result = scan_segment(data, segment.start(SIZE))

    assert [event.name for event in result.events] == ["last", ""]
    assert not result.complete
    assert result.carry is None
    assert result.end + 7 & ~7 >= end


def test_crash_in_the_midst_of_a_record(
    pg_version: int, make_cluster: MakeCluster
) -> None:
    """The server writes on behind a record whose end was lost; so does the reader."""
    cluster = make_cluster(pg_version, {"wal_keep_size": "1GB"}, wal_segment_size=SIZE)
    cluster.switch_wal()
    first = parse_segment(current_segment(cluster), SIZE)
    with cluster.connect() as session:
        # all but one page of a segment, then a record over the rest and the next one
        session.execute(
            "SELECT pg_logical_emit_message(false, 'm', repeat('z', 1000000))"
        )
        session.execute("SELECT pg_create_restore_point('before')")
        session.execute(
            "SELECT pg_logical_emit_message(true, 'm', repeat('z', 1000000))"
        )
    cluster.kill()
    cut = cluster.wal_path(first.next().name(SIZE))
    cut.write_bytes(bytes(SIZE))
    cluster.start()
    cluster.sql("SELECT pg_create_restore_point('after')")
    last = cluster.switch_wal()

    one = scan_segment(
        cluster.wal_path(first.name(SIZE)).read_bytes(), first.start(SIZE)
    )
    assert [event.name for event in one.events][-1] == "before"
    assert one.carry is not None
    two = scan_segment(cut.read_bytes(), first.next().start(SIZE), one.carry)
    assert "after" in [event.name for event in two.events]
    assert last == first.next().name(SIZE)


@pytest.fixture
def finished(newest_version: int, make_cluster: MakeCluster) -> tuple[bytes, Lsn]:
    cluster = make_cluster(newest_version, wal_segment_size=SIZE)
    cluster.sql("SELECT pg_create_restore_point('point')")
    name = cluster.switch_wal()
    start = parse_segment(name, SIZE).start(SIZE)
    return cluster.wal_path(name).read_bytes(), start


def test_other_bytes_are_no_wal(finished: tuple[bytes, Lsn]) -> None:
    data, start = finished
    for wrong, place in (
        (b"", start),
        (bytes(SIZE), start),
        (data, start + SIZE),
        (data[:100], start),
    ):
        with pytest.raises(Corrupt):
            scan_segment(wrong, place)


def test_carry_of_another_segment_is_refused(finished: tuple[bytes, Lsn]) -> None:
    data, start = finished
    flags = struct.unpack_from("<H", data, 2)[0]
    assert not flags & 1 or struct.unpack_from("<I", data, 16)[0] != 12345
    with pytest.raises(Corrupt, match="lacks its end"):
        scan_segment(data, start, Carry(Lsn(start - 100), b"", 12345))


def test_damaged_record_is_found_when_asked(finished: tuple[bytes, Lsn]) -> None:
    data, start = finished
    place = data.rindex(b"point\0")
    damaged = data[:place] + b"j" + data[place + 1 :]
    names = [event.name for event in scan_segment(damaged, start).events]
    assert "joint" in names
    with pytest.raises(Corrupt, match="wrong checksum"):
        scan_segment(damaged, start, verify=True)


def test_times_are_utc(finished: tuple[bytes, Lsn]) -> None:
    data, start = finished
    event = scan_segment(data, start).events[-1]
    assert abs((datetime.now(UTC) - event.time).total_seconds()) < 120


def test_busy_segment_is_scanned_within_a_second(
    newest_version: int, make_cluster: MakeCluster
) -> None:
    cluster = make_cluster(
        newest_version, {"wal_keep_size": "1GB", "synchronous_commit": "off"}
    )
    first = current_segment(cluster)
    cluster.sql("CREATE TABLE t (x int)")
    cluster.sql(
        "CREATE PROCEDURE fill() LANGUAGE plpgsql AS $$ BEGIN FOR i IN 1..120000 LOOP "
        "INSERT INTO t VALUES (i); COMMIT; END LOOP; END $$"
    )
    cluster.sql("CALL fill()")
    data = cluster.wal_path(first).read_bytes()

    began = time.process_time()
    result = scan_segment(data, parse_segment(first, len(data)).start(len(data)))
    took = time.process_time() - began

    assert len(result.events) > 50_000
    assert result.complete
    assert took < 1
