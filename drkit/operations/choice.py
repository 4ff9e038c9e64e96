"""Choosing the backup and the timeline that a recovery target needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from drkit.errors import Corrupt, NotFound, TargetUnreachable
from drkit.model.reach import Reach, reach
from drkit.model.recovery import RecoveryTarget, TargetKind
from drkit.model.timeline import TimelineHistory
from drkit.model.wal import Segment, WalFileKind, WalFileName, parse_segment
from drkit.postgres.walrecords import EventKind, WalEvent, scan_segment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from drkit.model.backup import BackupSummary
    from drkit.model.log import Commit
    from drkit.repository.repository import Repository

_LOOK_BACK = 64  # segments that are searched for the last commit


@dataclass(frozen=True, slots=True)
class Choice:
    """A backup, the branch to follow from it, and the WAL that leads to the target.

    Attributes:
        last_commit: time of the last commit or abort that the WAL holds; None if the
            newest segments hold none.
        notes: what a person should know of the choice.
    """

    commit: Commit
    history: TimelineHistory
    reach: Reach
    last_commit: datetime | None
    notes: tuple[str, ...]


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
    if label is not None:
        return archive.checked(repository.find(label), target)
    return archive.newest_before(commits, target)


class ArchivedWal:
    """The archived WAL of one cluster, read as far as a choice needs."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._names = [stored.file for stored in repository.wal.list()]
        self._histories = dict(self._read_histories())

    def newest_before(self, commits: list[Commit], target: RecoveryTarget) -> Choice:
        """Return the newest backup from which the target can be reached."""
        refusal: TargetUnreachable | None = None
        for commit in reversed(commits):
            try:
                choice = self.checked(commit, target)
                self._must_hold(choice, target)
            except TargetUnreachable as error:
                refusal = refusal or error
            else:
                return choice
        if refusal is None:
            raise ValueError("no backups to choose from")
        raise refusal

    def checked(self, commit: Commit, target: RecoveryTarget) -> Choice:
        """Return the choice of one backup, if the target can be reached from it."""
        backup = commit.backup
        history, notes = self.branch(backup, target)
        size = backup.wal_segment_size
        there = self.segments(size)
        reached = reach(backup.start_lsn, history, there, size)
        last = self.last_commit(reached, size)
        if reached.end < backup.stop_lsn:
            raise TargetUnreachable(
                f"backup {backup.label} needs WAL up to {backup.stop_lsn}, but "
                f"{reached.missing.name(size)} is missing",
                hint="choose another backup; `drkit info` lists them",
            )
        if reached.gap:
            notes.append(
                f"WAL segment {reached.missing.name(size)} is missing; recovery can't "
                f"go past {reached.end}"
            )
        choice = Choice(commit, history, reached, last, tuple(notes))
        _refuse_unreachable(choice, target)
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
        newest = max(leading)
        if len(leading) == 1:
            return leading[newest], []
        note = (
            f"following timeline {newest}, the newest of {_listed(leading)}; "
            "another one: --target-timeline"
        )
        return leading[newest], [note]

    def _must_hold(self, choice: Choice, target: RecoveryTarget) -> None:
        """A name or a transaction is searched for: its place decides the backup."""
        if target.kind not in (TargetKind.NAME, TargetKind.XID):
            return
        size = choice.commit.backup.wal_segment_size
        stop = choice.commit.backup.stop_lsn
        for event in self._events(choice.reach.segments, size):
            if event.lsn >= stop and _is_target(event, target):
                return
        raise TargetUnreachable(
            f"{target} was not found in the WAL behind backup "
            f"{choice.commit.backup.label} or an older one",
            hint=_window(choice),
        )

    def last_commit(self, reached: Reach, size: int) -> datetime | None:
        """Return the time of the last commit or abort before the end of a reach.

        None if its newest segments hold none.
        """
        for segment in reversed(reached.segments[-_LOOK_BACK:]):
            times = [
                event.time
                for event in self._events((segment,), size)
                if event.kind is not EventKind.RESTORE_POINT and event.lsn < reached.end
            ]
            if times:
                return max(times)
        return None

    def _events(self, segments: tuple[Segment, ...], size: int) -> Iterator[WalEvent]:
        carry = None
        for segment in segments:
            name = WalFileName.parse(segment.name(size))
            data = self._repository.wal.get(name)
            scan = scan_segment(data, segment.start(size), carry)
            carry = scan.carry
            yield from scan.events

    def segments(self, size: int) -> set[Segment]:
        """Return the archived segments of all timelines."""
        return {
            parse_segment(file.name, size)
            for file in self._names
            if file.kind is WalFileKind.SEGMENT
        }

    def _read_histories(self) -> Iterator[tuple[int, TimelineHistory]]:
        for stored in self._repository.wal.histories():
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


def _lsn_refusal(choice: Choice, lsn: int) -> str | None:
    if lsn < choice.commit.backup.stop_lsn:
        return f"lies before the end of backup {choice.commit.backup.label}"
    return "lies behind the last archived WAL" if lsn > choice.reach.end else None


def _time_refusal(choice: Choice, time: datetime, *, inclusive: bool) -> str | None:
    """PostgreSQL stops at a time only when it meets a commit that came after it."""
    if time < choice.commit.backup.stop_time:
        return f"lies before the end of backup {choice.commit.backup.label}"
    last = choice.last_commit
    if last is None or time < last or (time == last and not inclusive):
        return None
    return "is not before the last commit that is archived; recovery to it would fail"


def _window(choice: Choice) -> str:
    backup = choice.commit.backup
    last = choice.last_commit
    until = f" ({last.isoformat(sep=' ')})" if last is not None else ""
    return (
        f"from {backup.label} can be reached: {backup.stop_lsn} "
        f"({backup.stop_time.isoformat(sep=' ')}) to {choice.reach.end}{until}; without "
        "a target, recovery goes to the end"
    )


def _is_target(event: WalEvent, target: RecoveryTarget) -> bool:
    if target.kind is TargetKind.NAME:
        return event.kind is EventKind.RESTORE_POINT and event.name == target.name
    return event.kind is not EventKind.RESTORE_POINT and event.xid == target.xid


def _listed(histories: dict[int, TimelineHistory]) -> str:
    return ", ".join(str(timeline) for timeline in sorted(histories))
