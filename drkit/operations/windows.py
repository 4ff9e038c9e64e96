"""To which moments a repository can bring a cluster back, and to which it can't."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from drkit.model.reach import reach
from drkit.model.recovery import RecoveryTarget
from drkit.model.wal import Segment, WalFileName
from drkit.operations.archived import archived_histories
from drkit.operations.choice import ArchivedWal

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from datetime import datetime

    from drkit.model.backup import BackupSummary
    from drkit.model.lsn import Lsn
    from drkit.model.reach import Reach
    from drkit.model.timeline import TimelineHistory
    from drkit.repository.repository import Repository


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of time and WAL to each moment of which recovery can go.

    Attributes:
        labels: the backups that lead into it, oldest first.
        end_time: of the last commit in it; None if its newest segments hold none.
        missing: the first segment that is missing behind it, if more follow.
        damaged: whether that segment is there, but can't be read.
        expired: whether it was to go, so that nothing is wrong.
    """

    labels: tuple[str, ...]
    timeline: int
    start_lsn: Lsn
    start_time: datetime
    end_lsn: Lsn
    end_time: datetime | None
    missing: str | None
    damaged: bool
    expired: bool
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Hole:
    """Moments between two windows of a timeline that can't be restored.

    Attributes:
        after_time: the last moment before it, `after_lsn` where that WAL ends.
        until_time: the end of the backup with which the next window begins.
        missing, damaged, expired: the first segment that is missing, as in `Window`.
    """

    timeline: int
    after_lsn: Lsn
    after_time: datetime
    until_lsn: Lsn
    until_time: datetime
    missing: str
    damaged: bool
    expired: bool


@dataclass(frozen=True, slots=True)
class Unrestorable:
    """A backup that can't be restored.

    Attributes:
        missing: the segment of its own WAL that is not there; None for other reasons.
    """

    label: str
    missing: str | None
    reason: str

    @property
    def damaged(self) -> bool:
        """Whether it is for what is there, but can't be relied on."""
        return self.missing is None


@dataclass(frozen=True, slots=True)
class Restorable:
    """What can be restored of a cluster, windows in the order of their backups.

    Attributes:
        newest_moment: the latest moment that is known to be restorable.
    """

    windows: tuple[Window, ...]
    holes: tuple[Hole, ...]
    unrestorable: tuple[Unrestorable, ...]
    newest_moment: datetime | None


class Lost(NamedTuple):
    """What is there but can't be relied on.

    Attributes:
        segments: that are damaged.
        backups: why each of these can't be restored, by label.
    """

    segments: Collection[Segment] = frozenset()
    backups: Mapping[str, str] = {}


NOTHING_LOST = Lost()


def restorable(
    repository: Repository, backups: Sequence[BackupSummary], lost: Lost = NOTHING_LOST
) -> Restorable:
    """Say what can be restored, given what is lost.

    A segment that the listing lacks is asked for by its name before it counts as
    missing.

    Raises:
        Corrupt: the history of a timeline is damaged.
    """
    wal = _Wal(repository, lost.segments)
    groups, unrestorable = _grouped(wal, backups, lost.backups)
    windows = tuple(wal.window(*group) for group in groups)
    newest = _newest_moment(windows, backups)
    holes = tuple(_holes(windows, backups))
    return Restorable(windows, holes, tuple(unrestorable), newest)


def needed_wal(
    repository: Repository, backups: Sequence[BackupSummary]
) -> Iterator[WalFileName]:
    """Yield the WAL files that lead on from backups, with the timelines' histories.

    Raises:
        Corrupt: the history of a timeline is damaged.
    """
    wal = _Wal(repository, frozenset())
    files = {stored.file for stored in archived_histories(repository).files}
    for backup in backups:
        history, _ = wal.archive.branch(backup, RecoveryTarget())
        size = backup.wal_segment_size
        segments = wal.reach(backup, history).segments
        files |= {WalFileName.parse(one.name(size)) for one in segments}
    yield from sorted(files)


_Group = tuple["TimelineHistory", list["BackupSummary"], "Reach", list[str]]


def _grouped(
    wal: _Wal, backups: Sequence[BackupSummary], lost: Mapping[str, str]
) -> tuple[list[_Group], list[Unrestorable]]:
    """Put backups together whose WAL reaches to the same place."""
    groups: dict[tuple[int, int], _Group] = {}
    unrestorable: list[Unrestorable] = []
    for backup in backups:
        history, notes = wal.archive.branch(backup, RecoveryTarget())
        reached = wal.reach(backup, history)
        if reached.end < backup.stop_lsn:
            missing = reached.missing.name(backup.wal_segment_size)
            reason = f"it lacks its own WAL, segment {missing}"
            unrestorable.append(Unrestorable(backup.label, missing, reason))
        elif backup.label in lost:
            reason = lost[backup.label]
            unrestorable.append(Unrestorable(backup.label, None, reason))
        else:
            place = (history.timeline, reached.end)
            older = groups[place][1] if place in groups else []
            groups[place] = (history, [*older, backup], reached, notes)
    return list(groups.values()), unrestorable


class _Wal:
    """The archived WAL, without what is lost of it."""

    def __init__(self, repository: Repository, lost: Collection[Segment]) -> None:
        self.archive = ArchivedWal(repository)
        self._repository = repository
        self._lost = lost
        self._known: dict[int, set[Segment]] = {}
        self._absent: set[Segment] = set()

    def reach(self, backup: BackupSummary, history: TimelineHistory) -> Reach:
        """Follow a history from a backup's start as far as its WAL is there."""
        size = backup.wal_segment_size
        if size not in self._known:
            self._known[size] = self.archive.segments(size) - set(self._lost)
        known = self._known[size]
        while True:
            reached = reach(backup.start_lsn, history, known, size)
            unlisted = self._unlisted(reached, history, size)
            if not unlisted:
                return reached
            known |= unlisted

    def window(
        self,
        history: TimelineHistory,
        backups: list[BackupSummary],
        reached: Reach,
        notes: list[str],
    ) -> Window:
        """Describe a window; `reached` is that of its newest backup."""
        first = backups[0]
        size = first.wal_segment_size
        tail = self.archive.tail(reached, size)
        missing, state = tail.reach.missing, self._repository.log.state
        return Window(
            labels=tuple(backup.label for backup in backups),
            timeline=history.timeline,
            start_lsn=first.stop_lsn,
            start_time=first.stop_time,
            end_lsn=tail.reach.end,
            end_time=tail.last_commit,
            missing=missing.name(size) if tail.reach.gap else None,
            damaged=tail.damaged is not None or missing in self._lost,
            expired=tail.reach.gap and state.wal_expired(missing, size),
            notes=tuple(notes),
        )

    def _unlisted(
        self, reached: Reach, history: TimelineHistory, size: int
    ) -> set[Segment]:
        """Return what the listing lacks of the segments that would lead on."""
        found = set()
        for segment in _next(reached.missing, history, size):
            if segment in self._lost or segment in self._absent:
                continue
            file = WalFileName.parse(segment.name(size))
            if segment in self._known[size] or not self._repository.wal.has(file):
                self._absent.add(segment)
            else:
                found.add(segment)
        return found


def _next(missing: Segment, history: TimelineHistory, size: int) -> Iterator[Segment]:
    """Yield a segment, and those of older timelines that end inside of it."""
    yield missing
    for switch in history.switches:
        if missing.start(size) < switch.end < missing.next().start(size):
            yield Segment(switch.timeline, missing.number)


def _holes(
    windows: Sequence[Window], backups: Sequence[BackupSummary]
) -> Iterator[Hole]:
    """Yield what lies between the windows of each timeline."""
    ends = {backup.label: backup.stop_time for backup in backups}
    lines: dict[int, list[Window]] = defaultdict(list)
    for window in windows:
        lines[window.timeline].append(window)
    for line in lines.values():
        for before, after in pairwise(sorted(line, key=lambda one: one.start_lsn)):
            if before.missing is not None:
                yield Hole(
                    before.timeline,
                    before.end_lsn,
                    before.end_time or ends[before.labels[-1]],
                    after.start_lsn,
                    after.start_time,
                    before.missing,
                    before.damaged,
                    before.expired,
                )


def _newest_moment(
    windows: Sequence[Window], backups: Sequence[BackupSummary]
) -> datetime | None:
    """Return the latest of the last commits and of the backups' ends."""
    ends = {backup.label: backup.stop_time for backup in backups}
    moments = [ends[window.labels[-1]] for window in windows]
    moments += [window.end_time for window in windows if window.end_time is not None]
    return max(moments, default=None)
