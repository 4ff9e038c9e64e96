"""Recovery targets that can't be reached: refused, with what can be."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest

from drkit.errors import Corrupt, NotFound, TargetUnreachable
from drkit.model.lsn import Lsn
from drkit.model.reach import reach
from drkit.model.timeline import TimelineHistory
from drkit.operations.choice import ArchivedWal
from tests.operations.scene import SMALL_SEGMENTS, Scene, backup, drkit, refused
from tests.pg import versions_under_test
from tests.protect import NAME

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from drkit.model.backup import BackupSummary
    from tests.protect import Protected

UNREACHABLE = TargetUnreachable.exit_code
PAGE, PAGE_HEADER = 8192, 24
MICROSECOND = timedelta(microseconds=1)


@dataclass
class Archive:
    """A cluster with two backups and WAL behind them, and what its last commit was."""

    scene: Scene
    protected: Protected
    early: BackupSummary
    late: BackupSummary
    last: datetime

    def refused(self, *options: str) -> dict[str, Any]:
        """Return the error of a restore that leaves no trace at its target."""
        target = self.scene.target()
        error = refused(self.protected, target, *options)
        assert not target.exists()
        return error

    def plan(self, *options: str) -> str:
        """Return the plan of a restore that is accepted."""
        target = self.scene.target()
        said = drkit(
            self.protected, "restore", NAME, *options, "--to", target, "--plan"
        )
        assert said.code == 0, said.err
        return said.out

    def wal(self) -> list[Path]:
        root = self.protected.repository_root / NAME / "wal"
        return sorted(path for path in root.rglob("00000001*") if len(path.name) == 24)


@pytest.fixture(scope="module")
def archive(scene: Scene) -> Archive:
    protected = scene.protect(
        max(versions_under_test()), {"track_commit_timestamp": "on"}
    )
    cluster = protected.cluster
    backup(protected)
    cluster.rows("CREATE TABLE t (n int)")
    for _ in range(3):
        cluster.rows("INSERT INTO t VALUES (1)")
        protected.archive_now()
    backup(protected, "stream")
    for _ in range(2):
        cluster.rows("INSERT INTO t VALUES (2)")
        protected.archive_now()
    cluster.rows("INSERT INTO t VALUES (3)")
    last = cluster.sql("SELECT timestamp FROM pg_last_committed_xact()")
    protected.archive_now()
    cluster.kill()
    early, late = (one.backup for one in protected.repository().backups())
    return Archive(scene, protected, early, late, last)


def test_a_time_before_the_oldest_backup_names_the_first_moment(
    archive: Archive,
) -> None:
    time = (archive.early.stop_time - MICROSECOND).isoformat()
    error = archive.refused("--target-time", time)
    assert error["exit_code"] == UNREACHABLE
    assert archive.early.label in error["message"]
    assert str(archive.early.stop_lsn) in error["hint"]
    assert archive.early.stop_time.isoformat(sep=" ") in error["hint"]


def test_an_lsn_before_the_oldest_backup_names_the_first_one(archive: Archive) -> None:
    lsn = str(Lsn(archive.early.stop_lsn - 1))
    error = archive.refused("--target-lsn", lsn)
    assert error["exit_code"] == UNREACHABLE
    assert archive.early.label in error["message"]
    assert str(archive.early.stop_lsn) in error["hint"]


def test_the_last_commit_bounds_the_time_to_the_microsecond(archive: Archive) -> None:
    before = archive.last - MICROSECOND
    assert archive.late.label in archive.plan("--target-time", before.isoformat())
    exactly = archive.last.isoformat()
    assert archive.late.label in archive.plan("--target-time", exactly, "--exclusive")
    for options in (
        ("--target-time", exactly),
        ("--target-time", (archive.last + MICROSECOND).isoformat(), "--exclusive"),
        ("--target-time", "2100-01-01 00:00:00Z"),
    ):
        error = archive.refused(*options)
        assert error["exit_code"] == UNREACHABLE
        assert archive.last.astimezone(UTC).isoformat(sep=" ") in error["hint"]


def test_an_lsn_that_no_record_reaches_is_refused(archive: Archive) -> None:
    """Behind the record that switched segments, a segment holds nothing."""
    last = int(archive.wal()[-1].name[-8:], 16) * SMALL_SEGMENTS
    for lsn in ("FFFFFFFF/0", str(Lsn(last + SMALL_SEGMENTS - 8))):
        error = archive.refused("--target-lsn", lsn)
        assert error["exit_code"] == UNREACHABLE
        reachable = re.search(r"to ([0-9A-F]+/[0-9A-F]+)", error["hint"])
        assert reachable is not None
    assert archive.late.label in archive.plan("--target-lsn", reachable[1])
    behind = str(Lsn(Lsn.parse(reachable[1]) + 1))
    assert archive.refused("--target-lsn", behind)["exit_code"] == UNREACHABLE


@pytest.mark.parametrize("label", [(), ("latest",)], ids=["any", "latest"])
@pytest.mark.parametrize(
    "target", [("--target-name", "nowhere"), ("--target-xid", "999999")]
)
def test_a_target_that_is_in_no_wal_is_refused(
    archive: Archive, target: tuple[str, str], label: tuple[str, ...]
) -> None:
    error = archive.refused(*label, *target)
    assert error["exit_code"] == UNREACHABLE
    assert target[1] in error["message"]
    assert "can be reached" in error["hint"]


def test_an_unknown_name_is_refused_with_the_names_there_are(scene: Scene) -> None:
    """Also those to which only an older backup leads; of many the newest."""
    protected = scene.protect(max(versions_under_test()))
    point = "SELECT pg_create_restore_point('{}')"
    cluster = protected.cluster
    first = backup(protected)
    for number in range(4):
        cluster.sql(point.format(f"early {number}"))
    backup(protected)
    for number in range(8):
        cluster.sql(point.format(f"late {number}"))
    protected.archive_now()
    cluster.stop()
    target = scene.target()
    hint = refused(protected, target, "--target-name", "latest 7")["hint"]
    told = [f"late {number}" for number in range(7, -1, -1)]
    told += ["early 3"]  # between them is the second backup's fingerprint
    assert re.findall(r"'((?:early|late) \d)' of 2", hint) == told
    assert re.search(r"'late 0' of [^,]*, 'drkit \S+-full' of [^,]*, 'early 3'", hint)
    assert ", and 4 older; from 2" in hint
    hint = refused(protected, target, "latest", "--target-name", "early 1")["hint"]
    assert re.findall(r"'((?:early|late) \d)' of 2", hint) == told[:8]
    ambiguous = refused(protected, target, "20", "--target-immediate")
    several = f"'20' could be any of 2 backups of {NAME}: "
    assert ambiguous["message"].startswith(several)
    assert first in ambiguous["message"]


def test_times_are_told_in_local_time_too(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (archive.early.stop_time - MICROSECOND).isoformat()
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Asia/Kolkata")
        time.tzset()
        hint = archive.refused("--target-time", before)["hint"]
    time.tzset()
    for moment in (archive.early.stop_time, archive.last):
        there = moment.astimezone(ZoneInfo("Asia/Kolkata")).isoformat(sep=" ")
        utc = moment.astimezone(UTC).isoformat(sep=" ")
        assert f"{utc}, here {there}" in hint


def test_a_timeline_that_does_not_descend_is_refused(archive: Archive) -> None:
    error = archive.refused("--target-timeline", "7")
    assert error["exit_code"] == UNREACHABLE
    assert "timeline 7" in error["message"]
    assert "can be reached: 1" in error["hint"]


@pytest.fixture
def without(archive: Archive) -> Iterator[Callable[[int], str]]:
    """Take a segment out of the archive for a test; return its name."""
    taken: list[tuple[Path, bytes]] = []

    def take(index: int) -> str:
        path = archive.wal()[index]
        taken.append((path, path.read_bytes()))
        path.unlink()
        return path.name

    yield take
    for path, content in taken:
        path.write_bytes(content)


def test_a_gap_bounds_what_can_be_reached(
    archive: Archive, without: Callable[[int], str]
) -> None:
    missing = without(-2)
    start = Lsn(int(missing[-8:], 16) * SMALL_SEGMENTS)
    behind = str(Lsn(start + SMALL_SEGMENTS + 100))
    for options in (
        ("--target-time", (archive.last - MICROSECOND).isoformat()),
        ("--target-lsn", behind),
        ("--target-lsn", str(start)),
    ):
        error = archive.refused(*options)
        assert error["exit_code"] == UNREACHABLE
        assert missing in error["hint"]
        assert str(start) in error["hint"]
    assert f"{missing} is missing" in archive.plan()
    said = drkit(archive.protected, "wal", "status", NAME)
    assert said.code == 3
    assert f"GAP: {missing} missing" in said.out


def test_a_gap_before_the_newest_backup_bounds_the_older_one(
    archive: Archive, without: Callable[[int], str]
) -> None:
    """The moment lies between the gap and the newest backup: neither leads there."""
    size = SMALL_SEGMENTS
    first = int(archive.wal()[0].name[-8:], 16)
    early_end = (archive.early.stop_lsn - 1) // size
    missing = without(early_end - first + 1)
    just_before = archive.late.stop_time - MICROSECOND
    error = archive.refused("--target-time", just_before.isoformat())
    assert error["exit_code"] == UNREACHABLE
    assert f"from {archive.early.label}" in error["hint"]
    assert missing in error["hint"]
    assert archive.late.label in archive.plan()


def test_a_backup_whose_own_wal_is_missing_is_refused(
    archive: Archive, without: Callable[[int], str]
) -> None:
    first = int(archive.wal()[0].name[-8:], 16)
    missing = without(archive.late.start_lsn // SMALL_SEGMENTS - first)
    error = archive.refused("latest", "--target-immediate")
    assert error["exit_code"] == UNREACHABLE
    assert missing in error["message"]
    immediate = archive.plan(archive.early.label, "--target-immediate")
    assert archive.early.label in immediate


def test_a_damaged_last_segment_does_not_block_what_lies_before(
    archive: Archive, without: Callable[[int], str]
) -> None:
    path = archive.wal()[-1]
    content = bytearray(path.read_bytes())
    name = without(-1)
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert archive.late.label in archive.plan("--target-immediate")
    error = archive.refused()
    assert error["exit_code"] == Corrupt.exit_code
    assert name in error["message"]
    reachable = re.search(r"to ([0-9A-F]+/[0-9A-F]+)", error["hint"])
    assert reachable is not None
    accepted = archive.plan("--target-lsn", reachable[1])
    assert f"{name} is damaged" in accepted


def test_a_last_commit_across_two_segments_is_found(scene: Scene) -> None:
    protected = scene.protect(
        max(versions_under_test()),
        {"track_commit_timestamp": "on", "autovacuum": "off"},
    )
    cluster = protected.cluster
    tables = [f"t{number}" for number in range(100)]
    cluster.rows("; ".join(f"CREATE TABLE {name} ()" for name in tables))
    backup(protected)
    with cluster.connect() as connection:
        connection.autocommit = False
        connection.execute(f"DROP TABLE {', '.join(tables)}")  # a large commit record
        where = "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint"
        row = connection.execute(where).fetchone()
        assert row is not None
        left = SMALL_SEGMENTS - int(row[0]) % SMALL_SEGMENTS
        headers = left // PAGE * PAGE_HEADER
        filler = (left - headers - 1500) % SMALL_SEGMENTS
        emit = "SELECT pg_logical_emit_message(false, '', repeat('x', %s))"
        connection.execute(emit, [filler])
        connection.commit()
    last = cluster.sql("SELECT timestamp FROM pg_last_committed_xact()")
    first = protected.archive_now()
    archive = ArchivedWal(protected.repository())
    segments = sorted(archive.segments(SMALL_SEGMENTS))
    events = list(archive.events(tuple(segments), SMALL_SEGMENTS))
    commit = max(events, key=lambda event: event.time)
    assert (commit.lsn // SMALL_SEGMENTS) < segments[-1].number, first
    history = TimelineHistory(1)
    start = segments[0].start(SMALL_SEGMENTS)
    reached = reach(start, history, segments, SMALL_SEGMENTS)
    assert archive.last_commit(reached, SMALL_SEGMENTS) == last
    cluster.stop()


def test_an_unknown_backup_is_refused_with_those_there_are(archive: Archive) -> None:
    error = archive.refused("19990101")
    assert error["exit_code"] == NotFound.exit_code
    assert archive.early.label in error["hint"]
    assert archive.late.label in error["hint"]
