"""What a repository holds of a cluster, and to which moments it can bring it back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from drkit.errors import Corrupt, KeyUnavailable
from drkit.model.fate import fates
from drkit.model.log import Begin
from drkit.operations.forecasting import outlook_of_newest
from drkit.operations.heads import log_standing
from drkit.operations.known import known_losses
from drkit.operations.retaining import catalog_of, read_histories
from drkit.operations.wal_status import wal_status
from drkit.operations.windows import Restorable, restorable
from drkit.repository.lease import Holder, leases_of

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from drkit.errors import DrkitError
    from drkit.model.backup import BackupSummary
    from drkit.model.fate import Fate
    from drkit.model.log_head import LogHead
    from drkit.model.objectives import Objectives
    from drkit.model.retention import Retention
    from drkit.operations.forecasting import Outlook
    from drkit.operations.heads import LogStanding
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
        log: its head, and what speaks against its being the last one.
        restorable: empty if the archived WAL could not be looked into.
        blind: why it could not: without `keys.wal`, say, nothing can be restored.
        fates: what keeps each backup, or that it expires; empty without a retention.
        outlook: how long a restore to the newest moment will take; None if there is
            no such moment.
        rto: the policy's objective.
    """

    cluster: str
    repository: str
    lineage: str
    log: LogStanding
    system_identifier: str
    time: datetime
    backups: tuple[BackupSummary, ...]
    running: tuple[RunningAttempt, ...]
    wal: WalStatus
    restorable: Restorable
    blind: DrkitError | None
    fates: tuple[Fate, ...]
    rpo: RpoCheck | None
    outlook: Outlook | None
    rto: timedelta | None

    @property
    def newest_backup_age(self) -> timedelta | None:
        """How long ago the newest backup ended."""
        return self.time - self.backups[-1].stop_time if self.backups else None


def cluster_info(
    repository: Repository,
    objectives: Objectives,
    host: str,
    retention: Retention | None = None,
    expected: LogHead | None = None,
) -> ClusterInfo:
    """Describe a cluster's part of the repository; needs no database.

    Args:
        host: this host's name, to tell which leases' processes can be looked for.
        retention: by which to say what keeps each backup.
        expected: a head that the log must have had.

    Raises:
        RepositoryMissing: this cluster was never set up here.
        Corrupt: not even the log's first entry can be believed.
    """
    standing = log_standing(repository, expected)
    backups = tuple(commit.backup for commit in repository.backups())
    opened = repository.log.state.opened
    if opened is None:
        raise ValueError("a log that was read has an owner")
    now = repository.clock.now()
    found, blind = _restorable(repository, backups)
    newest = found.newest_moment
    rpo = None
    if objectives.rpo is not None:
        rpo = RpoCheck(objectives.rpo, None if newest is None else now - newest)
    return ClusterInfo(
        cluster=repository.layout.cluster,
        repository=repository.storage.url,
        lineage=repository.lineage.hex(),
        log=standing,
        system_identifier=opened.system_identifier,
        time=now,
        backups=backups,
        running=_running(repository, host),
        wal=wal_status(repository),
        restorable=found,
        blind=blind,
        fates=_fates(repository, retention, now),
        rpo=rpo,
        outlook=outlook_of_newest(repository, backups, found),
        rto=objectives.rto,
    )


def _restorable(
    repository: Repository, backups: tuple[BackupSummary, ...]
) -> tuple[Restorable, DrkitError | None]:
    """Return what can be restored, or nothing and why that can't be said."""
    try:
        return restorable(repository, backups, known_losses(repository)), None
    except (KeyUnavailable, Corrupt) as error:
        return Restorable((), (), (), None), error


def _fates(
    repository: Repository, retention: Retention | None, now: datetime
) -> tuple[Fate, ...]:
    if retention is None:
        return ()
    histories, _ = read_histories(repository)
    return fates(catalog_of(repository.log.state, histories), retention, now)


def _running(repository: Repository, host: str) -> tuple[RunningAttempt, ...]:
    leases = leases_of(repository)
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
