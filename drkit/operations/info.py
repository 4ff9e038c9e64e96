"""What a repository holds of a cluster, and to which moments it can bring it back."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from drkit.model.log import Begin
from drkit.model.reach import reach
from drkit.model.recovery import RecoveryTarget
from drkit.operations.choice import ArchivedWal
from drkit.operations.wal_status import wal_status
from drkit.repository.lease import Holder, Leases

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from drkit.model.backup import BackupSummary
    from drkit.model.lsn import Lsn
    from drkit.model.objectives import Objectives
    from drkit.model.reach import Reach
    from drkit.operations.wal_status import WalStatus
    from drkit.repository.lease import Lease
    from drkit.repository.repository import Repository


@dataclass(frozen=True, slots=True)
class RunningAttempt:
    """A backup that has begun and neither ended nor been given up.

    Attributes:
        lease: `held`; `lapsed` if the last renewal is long ago or the process is gone;
            `none` if there is none any more.
        until: when the newest lease ends.
    """

    label: str
    attempt: str
    host: str
    since: datetime
    lease: str
    holder: str
    until: datetime | None


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of time and WAL to each moment of which recovery can go.

    Attributes:
        labels: the backups that lead into it, oldest first.
        end_time: of the last commit in it; None if its newest segments hold none.
        missing: the first segment that is missing behind it, if more follow.
    """

    labels: tuple[str, ...]
    timeline: int
    start_lsn: Lsn
    start_time: datetime
    end_lsn: Lsn
    end_time: datetime | None
    missing: str | None
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Unrestorable:
    """A backup whose own WAL is not all there."""

    label: str
    missing: str


@dataclass(frozen=True, slots=True)
class RpoCheck:
    """The recovery point objective against what the archive holds.

    Attributes:
        measured: how long ago the newest moment is that the repository can bring back:
            what would be lost if the database were lost now. An idle database writes
            nothing that could be lost, and nothing that would make this smaller. None
            if nothing can be brought back.
    """

    target: timedelta
    measured: timedelta | None

    @property
    def met(self) -> bool:
        """Whether the objective is kept."""
        return self.measured is not None and self.measured <= self.target


@dataclass(frozen=True, slots=True)
class ClusterInfo:
    """Everything there is of a cluster.

    Attributes:
        newest_moment: the latest moment that is known to be restorable.
    """

    cluster: str
    repository: str
    lineage: str
    system_identifier: str
    time: datetime
    backups: tuple[BackupSummary, ...]
    running: tuple[RunningAttempt, ...]
    wal: WalStatus
    windows: tuple[Window, ...]
    unrestorable: tuple[Unrestorable, ...]
    newest_moment: datetime | None
    rpo: RpoCheck | None

    @property
    def newest_backup_age(self) -> timedelta | None:
        """How long ago the newest backup ended."""
        return self.time - self.backups[-1].stop_time if self.backups else None


def cluster_info(
    repository: Repository, objectives: Objectives, host: str
) -> ClusterInfo:
    """Describe a cluster's part of the repository; needs no database.

    Args:
        host: this host's name, to tell which leases' processes can be looked for.

    Raises:
        RepositoryMissing: this cluster was never set up here.
    """
    backups = tuple(commit.backup for commit in repository.backups())
    opened = repository.log.state.opened
    if opened is None:
        raise ValueError("a log that was read has an owner")
    now = repository.clock.now()
    windows, unrestorable = _windows(repository, backups)
    newest = _newest_moment(windows, backups)
    rpo = None
    if objectives.rpo is not None:
        rpo = RpoCheck(objectives.rpo, None if newest is None else now - newest)
    return ClusterInfo(
        cluster=repository.layout.cluster,
        repository=repository.storage.url,
        lineage=repository.lineage.hex(),
        system_identifier=opened.system_identifier,
        time=now,
        backups=backups,
        running=_running(repository, host),
        wal=wal_status(repository),
        windows=windows,
        unrestorable=unrestorable,
        newest_moment=newest,
        rpo=rpo,
    )


def _windows(
    repository: Repository, backups: tuple[BackupSummary, ...]
) -> tuple[tuple[Window, ...], tuple[Unrestorable, ...]]:
    """Put backups together whose WAL reaches to the same place."""
    archive = ArchivedWal(repository)
    grouped: dict[tuple[int, int], list[BackupSummary]] = defaultdict(list)
    reaches: dict[tuple[int, int], tuple[Reach, list[str]]] = {}
    unrestorable: list[Unrestorable] = []
    for backup in backups:
        size = backup.wal_segment_size
        history, notes = archive.branch(backup, RecoveryTarget())
        reached = reach(backup.start_lsn, history, archive.segments(size), size)
        if reached.end < backup.stop_lsn:
            missing = reached.missing.name(size)
            unrestorable.append(Unrestorable(backup.label, missing))
            continue
        place = (history.timeline, reached.end)
        grouped[place].append(backup)
        reaches[place] = (reached, notes)
    windows = [
        _window(archive, timeline, group, *reaches[timeline, end])
        for (timeline, end), group in grouped.items()
    ]
    return tuple(windows), tuple(unrestorable)


def _window(
    archive: ArchivedWal,
    timeline: int,
    backups: list[BackupSummary],
    reached: Reach,
    notes: list[str],
) -> Window:
    """Describe a window; `reached` is that of its newest backup."""
    first = backups[0]
    size = first.wal_segment_size
    return Window(
        labels=tuple(backup.label for backup in backups),
        timeline=timeline,
        start_lsn=first.stop_lsn,
        start_time=first.stop_time,
        end_lsn=reached.end,
        end_time=archive.last_commit(reached, size),
        missing=reached.missing.name(size) if reached.gap else None,
        notes=tuple(notes),
    )


def _newest_moment(
    windows: tuple[Window, ...], backups: tuple[BackupSummary, ...]
) -> datetime | None:
    """Return the latest of the last commits and of the backups' ends."""
    ends = {backup.label: backup.stop_time for backup in backups}
    moments = [ends[window.labels[-1]] for window in windows]
    moments += [window.end_time for window in windows if window.end_time is not None]
    return max(moments, default=None)


def _running(repository: Repository, host: str) -> tuple[RunningAttempt, ...]:
    leases = Leases(repository.storage, repository.layout, repository.clock)
    begun = {
        entry.entry: entry
        for entry in repository.log.entries
        if isinstance(entry.entry, Begin)
    }
    held = leases.held(Holder.this(host))
    found = []
    for begin in repository.log.state.running():
        entry = begun[begin]
        lease = held.get(begin.attempt) or leases.last(begin.attempt)
        found.append(
            _attempt(begin, entry.host, entry.time, lease, held=begin.attempt in held)
        )
    return tuple(found)


def _attempt(
    begin: Begin, host: str, since: datetime, lease: Lease | None, *, held: bool
) -> RunningAttempt:
    if lease is None:
        state, holder, until = "none", "", None
    else:
        state = "held" if held else "lapsed"
        holder, until = f"{lease.holder.host}, process {lease.holder.pid}", lease.until
    return RunningAttempt(begin.label, begin.attempt, host, since, state, holder, until)
