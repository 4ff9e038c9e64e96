"""What a backup is asked for, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime, timedelta

    from drkit.errors import DrkitError
    from drkit.model.backup import BackupSummary
    from drkit.model.log_head import LogHead
    from drkit.operations.fingerprints.of_backup import (
        FingerprintTaken,
        FingerprintWanted,
    )
    from drkit.operations.framers.process import ProcessFramer


@dataclass(frozen=True, slots=True)
class BackupOptions:
    """How a backup is taken.

    Attributes:
        source: `local` or `stream`, as recorded in the manifest.
        jobs: threads that read, compress and store.
        level: of zstd.
        wal_timeout: how long each WAL segment that the backup needs may take to arrive.
        archiver: asks the server why archiving may be stuck, for the message.
        fingerprint: what to take along for later comparisons; None: nothing.
        heartbeat: begins to write one, if the cluster has a table for it; returns what
            waits for that, and returns why there is none.
        framers: processes that help reading changed pages, one for a job.
        pg_wal: where the server has its WAL, to compare what is archived with it; None
            where that can't be read.
    """

    host: str
    source: str
    jobs: int
    level: int
    wal_timeout: timedelta
    archiver: Callable[[], str]
    fingerprint: FingerprintWanted | None = None
    heartbeat: Callable[[], Callable[[], DrkitError | None]] | None = None
    framers: Sequence[ProcessFramer] = ()
    pg_wal: str | None = None


class Begun(NamedTuple):
    """A backup that was begun on the server.

    Attributes:
        attempt: its id.
        at: when, by this host's clock.
    """

    attempt: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Taken:
    """A backup that was taken.

    Attributes:
        parent: the label that it builds on; None for a full.
        reason: why it is of its kind.
        fingerprint: what became of it; None if none was wanted.
        head: of the log, behind its commit.
    """

    summary: BackupSummary
    parent: str | None
    reason: str
    fingerprint: FingerprintTaken | None
    head: LogHead | None
