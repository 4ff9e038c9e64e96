"""Backups that expire while somebody reads them: not damaged, but gone.

What reads a backup writes nothing to the repository, so nothing holds an expiry up.
Where an object is missing, the log is read on before anything is said of it.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from drkit.errors import (
    BackupExpired,
    Corrupt,
    DrkitError,
    KeyUnavailable,
    NotFound,
    ObjectNotFound,
    TargetUnreachable,
)
from drkit.model.label import BASE_BACKUPS
from drkit.model.log import ExpireIntent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from drkit.protocols import Progress
    from drkit.repository.log_entries import LoggedEntry
    from drkit.repository.repository import Repository

_LACKING = (Corrupt, KeyUnavailable, NotFound, ObjectNotFound, TargetUnreachable)


@contextmanager
def telling_expiry(
    repository: Repository, label: str, doing: str, left: str = ""
) -> Iterator[None]:
    """Tell that a backup has expired, if that is why the block lacks something.

    Args:
        repository: of the cluster.
        label: the backup that the block reads.
        doing: what the block does to it, such as `restored`.
        left: what is left behind where the block ends early; a clause.

    Raises:
        BackupExpired: in place of an error about what is missing or damaged.
    """
    try:
        yield
    except _LACKING as error:
        try:
            expired = expiry_of(repository, label)
        except DrkitError:
            raise error from None  # nobody knows; what is lacking is known
        if expired is None:
            raise
        raise backup_expired(repository, label, expired, doing, left) from error


def expiry_of(repository: Repository, label: str) -> LoggedEntry | None:
    """Read the log on; return what has expired a backup, None while it is live.

    A backup expires with, or before, those that it builds on.
    """
    if label in repository.log.read().backups:
        return None
    for logged in reversed(repository.log.entries):
        if isinstance(logged.entry, ExpireIntent) and label in logged.entry.labels:
            return logged
    return None


def backup_expired(
    repository: Repository,
    label: str,
    expired: LoggedEntry,
    doing: str,
    left: str = "",
) -> BackupExpired:
    """Return the error that says so, and which backup to take instead."""
    end = f"; {left}" if left else ""
    return BackupExpired(
        f"backup {label} was expired {_by(expired)}, while it was being {doing}{end}",
        hint=f"{_instead(repository, label)}; `drkit info` lists all, and `drkit pin` "
        "keeps one while it is needed",
    )


def warn_of_expiry(repository: Repository, label: str, progress: Progress) -> None:
    """Warn that a backup which was read to its end has expired by now."""
    try:
        expired = expiry_of(repository, label)
    except DrkitError:
        return  # all of it is here, and that is what was asked for
    if expired is not None:
        progress.warning(
            f"backup {label} was expired {_by(expired)}, while it was being restored: "
            "all its files are here, but the WAL that it needs may be gone; "
            f"{_instead(repository, label)}",
            label=label,
        )


def _by(expired: LoggedEntry) -> str:
    when = expired.time.isoformat(sep=" ", timespec="seconds")
    return f"by {expired.host} at {when}"


def _instead(repository: Repository, label: str) -> str:
    """Say which backup comes nearest: what expires is mostly the oldest."""
    live = [
        one.backup.label
        for one in repository.log.state.backups.values()
        if one.backup.kind in BASE_BACKUPS
    ]
    if not live:
        return "no other backup is left"
    nearest = min((one for one in live if one > label), default=max(live))
    return f"take {nearest} instead, which is the nearest that is left"
