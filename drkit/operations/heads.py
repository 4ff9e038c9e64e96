"""Is the log's head the last one there was? Asked before anything builds on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from drkit.errors import Corrupt, RolledBack
from drkit.model.log import AttemptState
from drkit.model.log_head import KnownHead
from drkit.operations.alarms import log_alarms
from drkit.operations.whole import is_whole
from drkit.repository.heads import head_of
from drkit.repository.lease import Holder, leases_of
from drkit.repository.unlisted import Listed, Unlisted, find_unlisted, list_stored

if TYPE_CHECKING:
    from collections.abc import Iterator

    from drkit.model.log_head import LogHead
    from drkit.repository.log import Log
    from drkit.repository.repository import Repository

_SHOWN = 3


@dataclass(frozen=True, slots=True)
class LogStanding:
    """A log's head, and what speaks against its being the last one.

    Attributes:
        head: the newest entry that was read; None if there is none.
        alarms: each says what is gone, and what to do; empty if all is well.
        uncommitted: labels of backups that are whole, and that the log has no commit
            of: left by a process that died just before it, or their commit is gone.
        notes: what a person should know besides.
    """

    head: LogHead | None
    alarms: tuple[Corrupt, ...]
    uncommitted: tuple[str, ...]
    notes: tuple[str, ...]


def log_standing(
    repository: Repository, expected: LogHead | None = None
) -> LogStanding:
    """Read the log, and hold it against what is known of it and what is stored.

    If nothing speaks against it, this host remembers its head.

    Args:
        repository: of the cluster.
        expected: a head that a person has on paper, or in a report.

    Raises:
        RepositoryMissing: this cluster was never set up here.
    """
    log = repository.log
    known, listed = log.guard.memory.recall(), list_stored(repository)
    log.read_proven()
    repository.backups()
    unlisted = find_unlisted(repository, listed)
    alarms = (*_broken(log), *_alarms(repository, known, expected, unlisted))
    if not alarms:
        log.guard.remember(log)
    return LogStanding(
        head_of(log.entries),
        alarms,
        tuple(_uncommitted(repository, listed)),
        tuple(_notes(repository, unlisted)),
    )


def confirm_head(repository: Repository, expected: LogHead | None = None) -> None:
    """Refuse to write, or to delete, by a log whose newest entries may be gone.

    Args:
        repository: of the cluster.
        expected: a head that the log must have had.

    Raises:
        RepositoryMissing: this cluster was never set up here.
        RolledBack: they are.
    """
    log = repository.log
    known, listed = log.guard.memory.recall(), list_stored(repository)
    repository.backups()
    alarms = _alarms(repository, known, expected, find_unlisted(repository, listed))
    for alarm in alarms:
        raise alarm


def accept_head(repository: Repository, accepted: LogHead) -> KnownHead | None:
    """Take the log's head for right, whatever this host remembers; return that.

    Args:
        repository: of the cluster.
        accepted: the head that the log must have.

    Raises:
        RolledBack: it has another one, or what root remembers is not this user's to
            change.
    """
    guard = repository.log.guard
    known = guard.memory.recall()
    repository.log.read()
    head = head_of(repository.log.entries)
    if (
        head is None
        or head.sequence != accepted.sequence
        or not head.digest.startswith(accepted.digest)
    ):
        raise RolledBack(
            f"the head of the log of {repository.layout.cluster} is {head}, not "
            f"{accepted}: nothing was accepted",
            hint="`drkit info` shows the head as it is now",
        )
    guard.accept(repository.log)
    left = guard.memory.recall()
    if left is not None and left.head != head:
        raise RolledBack(
            f"{head} is accepted, but root remembers {left.head} for all users",
            hint="run the same command as root",
        )
    return known


def _broken(log: Log) -> Iterator[Corrupt]:
    """Yield why no entry behind the head is believed, where one is not."""
    if log.broken is not None:
        yield Corrupt(
            f"the log is believed up to entry {log.head} only: {log.broken.message}",
            hint=log.broken.hint,
        )


def _alarms(
    repository: Repository,
    known: KnownHead | None,
    expected: LogHead | None,
    unlisted: Unlisted,
) -> Iterator[RolledBack]:
    log = repository.log
    if expected is not None:
        named = KnownHead(expected)
        found = log.guard.departure(named, log, "--expect-head names")
        if found is not None:
            yield found
    found = log.guard.departure(known, log)
    if found is not None:
        yield found
    found = log.guard.hidden(log)
    if found is not None:
        yield found
    yield from _cut_off(repository, unlisted)


def _cut_off(repository: Repository, unlisted: Unlisted) -> Iterator[RolledBack]:
    cluster = repository.layout.cluster
    ends = f"the log of {cluster} ends at entry {repository.log.head}"
    hint = (
        "the log's newest entries were deleted: bring them back from a copy of the "
        "repository, or from versions that the store keeps"
    )
    for label, attempt in unlisted.attempts:
        yield RolledBack(
            f"{ends} and does not know the backup {label}, of which objects are "
            f"stored in {repository.layout.backup(label, attempt)}",
            hint=f"{hint}. If they are lost, and those objects may be deleted: drkit "
            f"discard {cluster} {label}",
        )
    if unlisted.objects:
        more = len(unlisted.objects) - _SHOWN
        told = ", ".join(unlisted.objects[:_SHOWN])
        told += f" and {more} more" if more > 0 else ""
        yield RolledBack(f"{ends}, and later ones have led to {told}", hint=hint)


def _uncommitted(repository: Repository, listed: Listed) -> Iterator[str]:
    """Yield whole backups without a commit, but those that are just being taken."""
    attempts = repository.log.state.attempts
    leases = leases_of(repository)
    held = leases.held(Holder.this(repository.log.identity.host))
    for one in listed.attempts:
        attempt = attempts.get(one.attempt)
        if (
            one.manifest
            and one.attempt not in held
            and attempt is not None
            and attempt.state is not AttemptState.COMMITTED
            and is_whole(repository, one.label, one.attempt)
        ):
            yield one.label


def _notes(repository: Repository, unlisted: Unlisted) -> Iterator[str]:
    yield from log_alarms(repository)
    behind = repository.layout.log_entry(repository.log.head + 1)
    if repository.storage.hidden(behind) is None:
        yield (
            "the store does not let this user list versions of objects, so log entries "
            "that a delete marker hides are not seen; s3:ListBucketVersions allows it"
        )
    count = len(unlisted.strangers)
    if count:
        yield (
            f"what the log does not know, and no key at hand opens, is ignored: "
            f"{unlisted.strangers[0]}{' and more' if count > 1 else ''}"
        )
