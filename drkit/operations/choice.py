"""Choosing the backup and the timeline that a recovery target needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from drkit.errors import Corrupt, NotFound, TargetUnreachable
from drkit.model.lsn import Lsn
from drkit.model.reach import Reach, reach
from drkit.model.recovery import RecoveryTarget, TargetKind
from drkit.model.timeline import TimelineHistory
from drkit.model.wal import Segment, WalFileKind, WalFileName, parse_segment
from drkit.operations.archived import archived_histories, archived_wal
from drkit.operations.reachable import reachable, restore_points
from drkit.postgres.walrecords import EventKind, begins_inside_record, scan_segment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from drkit.model.backup import BackupSummary
    from drkit.model.log import Commit
    from drkit.postgres.walrecords import SegmentScan, WalEvent
    from drkit.repository.repository import Repository

_LOOK_BACK = 64  # segments that are searched for the last commit
_SEARCHED = (TargetKind.NAME, TargetKind.XID)


@dataclass(frozen=True, slots=True)
class Choice:
    """A backup, the branch to follow from it, and the WAL that leads to the target.

    Attributes:
        last_record: where the last record of that WAL begins: the last LSN at which a
            recovery can stop.
        last_commit: time of the last commit or abort that the WAL holds; None if the
            newest segments hold none.
        notes: what a person should know of the choice.
    """

    commit: Commit
    history: TimelineHistory
    reach: Reach
    last_record: Lsn
    last_commit: datetime | None
    notes: tuple[str, ...]


class Tail(NamedTuple):
    """What the end of a stretch of WAL holds.

    Attributes:
        reach: the stretch, up to its first damaged segment as far as it was read.
        last_record, last_commit: as in `Choice`.
        damaged: the error that names the damaged object.
    """

    reach: Reach
    last_record: Lsn
    last_commit: datetime | None
    damaged: Corrupt | None


def choose(repository: Repository, label: str | None, target: RecoveryTarget) -> Choice:
    """Choose what to restore, or say what can be reached.

    Raises:
        NotFound: there is no such backup.
        TargetUnreachable: no backup and WAL lead to the target.
    """
    archive = ArchivedWal(repository)
    commits = repository.backups()
    if not commits:
        raise NotFound(
            f"{repository.layout.cluster} has no backup",
            hint=f"take one: drkit backup {repository.layout.cluster}",
        )
    try:
        if label is not None:
            return archive.checked(repository.find(label), target)
        return archive.newest_before(commits, target)
    except TargetUnreachable as error:
        if archive.looked_for_a_name:
            error.hint = f"{archive.restore_points()}; {error.hint}"
        raise


class ArchivedWal:
    """The archived WAL of one cluster, read as far as a choice needs."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        archived, histories = archived_wal(repository), archived_histories(repository)
        self._names = [stored.file for stored in archived.files]
        self._void = [*archived.void, *histories.void]
        self._histories = dict(self._read_histories())
        self._searched: set[Segment] = set()
        self._points: dict[Lsn, WalEvent] = {}  # restore points that were met
        self.looked_for_a_name = False
        self._archived = {
            file.timeline for file in self._names if file.kind is WalFileKind.SEGMENT
        }

    def newest_before(self, commits: list[Commit], target: RecoveryTarget) -> Choice:
        """Return the newest backup from which the target can be reached."""
        early = [one for one in commits if not _ends_behind(one.backup, target)]
        refusal: TargetUnreachable | None = None
        for commit in reversed(early or commits[:1]):
            try:
                return self.checked(commit, target)
            except TargetUnreachable as error:
                refusal = refusal or error
        if refusal is None:
            raise ValueError("no backups to choose from")
        raise refusal

    def checked(self, commit: Commit, target: RecoveryTarget) -> Choice:
        """Return the choice of one backup, if the target can be reached from it.

        Raises:
            TargetUnreachable: it can't.
            Corrupt: damaged WAL is in the way.
        """
        backup = commit.backup
        history, notes = self.branch(backup, target)
        size = backup.wal_segment_size
        reached = reach(backup.start_lsn, history, self.segments(size), size)
        limit = None if target.kind is TargetKind.TIME else _LOOK_BACK
        reached, last_record, last_commit, damaged = self.tail(reached, size, limit)
        if reached.end < backup.stop_lsn:
            raise damaged or TargetUnreachable(
                f"backup {backup.label} needs WAL up to {backup.stop_lsn}, but "
                f"{reached.missing.name(size)} is missing",
                hint="choose another backup; `drkit info` lists them",
            )
        if reached.gap:
            expired = self._repository.log.state.wal_expired(reached.missing, size)
            why = "has expired" if expired else "is missing"
            notes.append(
                f"WAL segment {reached.missing.name(size)} "
                f"{'is damaged' if damaged else why}; recovery can't go past "
                f"{reached.end}"
            )
        choice = Choice(
            commit, history, reached, last_record, last_commit, tuple(notes)
        )
        _refuse_unreachable(choice, target)
        if damaged is not None and target.kind is TargetKind.LATEST:
            raise Corrupt(damaged.message, hint=_window(choice))
        if target.kind is TargetKind.LATEST:
            _refuse_running_past_switch(choice)
        self._must_hold(choice, target)
        return choice

    def branch(
        self, backup: BackupSummary, target: RecoveryTarget
    ) -> tuple[TimelineHistory, list[str]]:
        """Return the history to follow, a numbered one, and what to know about it."""
        own = self._histories.get(backup.timeline, TimelineHistory(backup.timeline))
        known = {own.timeline: own} | self._histories
        leading = {
            timeline: history
            for timeline, history in known.items()
            if history.contains(backup.timeline, backup.stop_lsn)
        }
        if target.timeline is not None:
            if target.timeline in leading:
                return leading[target.timeline], []
            raise TargetUnreachable(
                f"backup {backup.label} is not on timeline {target.timeline}",
                hint=f"from it these can be reached: {_listed(leading)}",
            )
        newest = max(set(leading) & (self._archived | {backup.timeline}))
        notes = [
            f"{name} was never archived, or its header is damaged: recovery ends in "
            "front of it"
            for name in self._void
        ]
        if len(leading) == 1:
            return leading[newest], notes
        note = (
            f"following timeline {newest}, the newest of {_listed(leading)} with WAL "
            "of its own; another one: --target-timeline"
        )
        return leading[newest], [*notes, note]

    def _must_hold(self, choice: Choice, target: RecoveryTarget) -> None:
        """A name or a transaction is searched for: its place decides the backup."""
        if target.kind not in _SEARCHED:
            return
        self.looked_for_a_name |= target.kind is TargetKind.NAME
        size = choice.commit.backup.wal_segment_size
        stop = choice.commit.backup.stop_lsn
        segments = self._not_searched(choice.reach.segments)
        for event in self.events(segments, size):
            inside = stop <= event.lsn < choice.reach.end
            if inside and _is_target(event, target):
                return
            if inside and event.kind is EventKind.RESTORE_POINT:
                self._points[event.lsn] = event
        # What lies in the segment of the backup's end may have come before that.
        behind = {one for one in choice.reach.segments if one.start(size) >= stop}
        self._searched |= behind
        raise TargetUnreachable(
            f"{target} was not found in the WAL behind backup "
            f"{choice.commit.backup.label}",
            hint=_window(choice),
        )

    def restore_points(self) -> str:
        """Say which restore points the search for one of another name has met."""
        return restore_points(self._points.values())

    def _not_searched(self, segments: tuple[Segment, ...]) -> tuple[Segment, ...]:
        """Leave out what a newer backup was refused for, but where records reach in."""
        before = (None, *segments)
        return tuple(
            segment
            for previous, segment in zip(before, segments, strict=False)
            if segment not in self._searched or previous not in self._searched
        )

    def last_commit(self, reached: Reach, size: int) -> datetime | None:
        """Return the time of the last commit or abort before the end of a reach.

        None if its newest segments hold none.
        """
        return self.tail(reached, size).last_commit

    def tail(
        self, reached: Reach, size: int, look_back: int | None = _LOOK_BACK
    ) -> Tail:
        """Read the end of WAL backwards, to its last record and its last commit.

        A damaged segment ends the reach, since PostgreSQL could not go past it.

        Args:
            look_back: in how many segments to look for a commit; None for all.
        """
        last_record, last_commit, damaged = Lsn(0), None, None
        index = left = len(reached.segments)
        if look_back is not None:
            left = min(left, look_back)
        while index and (last_record == 0 or (last_commit is None and left > 0)):
            index, left = index - 1, left - 1
            try:
                scan = self._scan_behind(reached.segments, index, size)
            except Corrupt as error:
                damaged, last_record, last_commit = error, Lsn(0), None
                reached = _cut(reached, index, size)
                continue
            last_record = last_record or Lsn(min(scan.last, reached.end - 1))
            last_commit = last_commit or _last_commit(scan.events, reached.end)
        return Tail(reached, last_record, last_commit, damaged)

    def events(self, segments: tuple[Segment, ...], size: int) -> Iterator[WalEvent]:
        """Yield the events of segments, oldest first.

        Raises:
            Corrupt: a segment is damaged.
        """
        carry, before = None, None
        for segment in segments:
            follows = before is not None and segment.number == before.number + 1
            data, start = self._read(segment, size), segment.start(size)
            scan = scan_segment(data, start, carry if follows else None)
            carry, before = scan.carry, segment
            yield from scan.events

    def _scan_behind(
        self, segments: tuple[Segment, ...], index: int, size: int
    ) -> SegmentScan:
        """Scan a segment; without a commit, with the record that reaches into it."""
        start = segments[index].start(size)
        data = self._read(segments[index], size)
        scan = scan_segment(data, start)
        commits = any(one.kind is not EventKind.RESTORE_POINT for one in scan.events)
        if commits or index == 0 or not begins_inside_record(data):
            return scan
        before = segments[index - 1]
        try:
            carry = scan_segment(self._read(before, size), before.start(size)).carry
        except Corrupt:
            return scan  # its own turn comes
        return scan_segment(data, start, carry)

    def _read(self, segment: Segment, size: int) -> bytes:
        return self._repository.wal.get(WalFileName.parse(segment.name(size)))

    def segments(self, size: int) -> set[Segment]:
        """Return the archived segments of all timelines."""
        return {
            parse_segment(file.name, size)
            for file in self._names
            if file.kind is WalFileKind.SEGMENT
        }

    def _read_histories(self) -> Iterator[tuple[int, TimelineHistory]]:
        for stored in archived_histories(self._repository).files:
            text = self._repository.wal.get(stored.file).decode(errors="replace")
            timeline = stored.file.timeline
            try:
                yield timeline, TimelineHistory.parse(timeline, text)
            except ValueError as error:
                raise Corrupt(f"history file {stored.file.name}: {error}") from None


def _refuse_unreachable(choice: Choice, target: RecoveryTarget) -> None:
    """Refuse a target before the backup's end or behind the last WAL.

    PostgreSQL would find out only after hours of replay, and fail.
    """
    why = None
    if target.kind is TargetKind.LSN and target.lsn is not None:
        why = _lsn_refusal(choice, target.lsn)
    elif target.kind is TargetKind.TIME and target.time is not None:
        why = _time_refusal(choice, target.time, inclusive=target.inclusive)
    if why is not None:
        raise TargetUnreachable(f"{target} {why}", hint=_window(choice))


def _ends_behind(backup: BackupSummary, target: RecoveryTarget) -> bool:
    """Say whether a backup ended behind the target, and so can't lead to it."""
    if target.kind is TargetKind.LSN and target.lsn is not None:
        return target.lsn < backup.stop_lsn
    if target.kind is TargetKind.TIME and target.time is not None:
        return target.time < backup.stop_time
    return False


def _refuse_running_past_switch(choice: Choice) -> None:
    """Refuse to follow a branch to its end when it is known by its history alone.

    PostgreSQL takes a segment that is missing on one timeline from its parent
    (`XLogFileReadAnyTLI` in `xlogrecovery.c`) and would replay what the parent wrote
    behind the switch, which is what the branch was made to leave.
    """
    last, end = choice.reach.segments[-1], choice.reach.end
    if last.timeline == choice.history.timeline_at(end):
        return
    raise TargetUnreachable(
        f"the first WAL of timeline {choice.history.timeline_at(end)} is not archived, "
        f"and recovery would go on along timeline {last.timeline} instead",
        hint=f"to the point where they part: --target-timeline {last.timeline} "
        f"--target-lsn {end} --exclusive; to the end of timeline {last.timeline}: "
        f"--target-timeline {last.timeline}",
    )


def _lsn_refusal(choice: Choice, lsn: int) -> str | None:
    """PostgreSQL stops at an LSN only when it meets a record that begins there."""
    if lsn < choice.commit.backup.stop_lsn:
        return f"lies before the end of backup {choice.commit.backup.label}"
    if lsn > choice.last_record:
        return "lies behind the last record that is archived"
    return None


def _time_refusal(choice: Choice, time: datetime, *, inclusive: bool) -> str | None:
    """PostgreSQL stops at a time only when it meets a commit that came after it."""
    if time < choice.commit.backup.stop_time:
        return f"lies before the end of backup {choice.commit.backup.label}"
    last = choice.last_commit
    if last is not None and (time < last or (time == last and not inclusive)):
        return None
    return "is not before the last commit that is archived; recovery to it would fail"


def _cut(reached: Reach, index: int, size: int) -> Reach:
    """Return a reach that ends where its segment `index` begins."""
    missing = reached.segments[index]
    return Reach(reached.segments[:index], missing.start(size), missing, gap=True)


def _last_commit(events: list[WalEvent], end: Lsn) -> datetime | None:
    times = [
        event.time
        for event in events
        if event.kind is not EventKind.RESTORE_POINT and event.lsn < end
    ]
    return max(times, default=None)


def _window(choice: Choice) -> str:
    backup = choice.commit.backup
    return reachable(backup, choice.last_record, choice.last_commit, choice.notes)


def _is_target(event: WalEvent, target: RecoveryTarget) -> bool:
    if target.kind is TargetKind.NAME:
        return event.kind is EventKind.RESTORE_POINT and event.name == target.name
    return event.kind is not EventKind.RESTORE_POINT and event.xid == target.xid


def _listed(histories: dict[int, TimelineHistory]) -> str:
    return ", ".join(str(timeline) for timeline in sorted(histories))
