"""Discarding a backup that the log does not list, because a person says so.

drkit never clears away by itself what may be a backup whose log entries are hidden or
lost: see `drkit.operations.whole`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from drkit.errors import Locked, NotFound, UsageError
from drkit.model.log import AttemptState
from drkit.operations.attempts import abandon, delete_attempt
from drkit.repository.heads import head_of
from drkit.repository.lease import Holder, leases_of
from drkit.repository.unlisted import list_stored

if TYPE_CHECKING:
    from drkit.model.log import Begin
    from drkit.model.log_head import LogHead
    from drkit.protocols import Progress
    from drkit.repository.repository import Repository


@dataclass(frozen=True, slots=True)
class Discarded:
    """What was deleted.

    Attributes:
        attempts: whose objects they were.
        head: of the log that did not list them.
    """

    label: str
    attempts: tuple[str, ...]
    objects: int
    head: LogHead | None


def discard(repository: Repository, label: str, progress: Progress) -> Discarded:
    """Delete what is stored of a backup that the log has no commit of.

    Raises:
        NotFound: nothing is stored of it.
        UsageError: it is a backup, or was one; `drkit expire` deletes those.
        Locked: it is being taken.
        RolledBack: this host remembers newer entries, or the store hides some.
    """
    log = repository.log
    known = log.guard.memory.recall()
    repository.backups()
    log.guard.confirm(known, log)
    stored = [one for one in list_stored(repository).attempts if one.label == label]
    log.read()
    _refuse_listed(repository, label)
    if not stored:
        raise NotFound(
            f"nothing is stored of {label} that the log does not list",
            hint="give the whole label, as `drkit info` shows it",
        )
    objects = 0
    for one in stored:
        attempt = log.state.attempts.get(one.attempt)
        if attempt is None:
            objects += _delete_unknown(repository, label, one.attempt)
        else:
            _refuse_running(repository, attempt.begin)
            abandon(repository, one.attempt, "a person discarded it")
            objects += delete_attempt(repository, attempt.begin, progress)
    attempts = tuple(one.attempt for one in stored)
    return Discarded(label, attempts, objects, head_of(log.entries))


def _refuse_listed(repository: Repository, label: str) -> None:
    for attempt in repository.log.state.attempts.values():
        listed = attempt.state is AttemptState.COMMITTED
        if listed and attempt.begin.label == label:
            raise UsageError(
                f"the log has a commit of {label}",
                hint="`drkit expire` deletes backups that the policy keeps no longer",
            )


def _refuse_running(repository: Repository, begin: Begin) -> None:
    leases = leases_of(repository)
    held = leases.held(Holder.this(repository.log.identity.host))
    if begin.attempt in held:
        raise Locked(
            f"{begin.label} is just being taken, by {held[begin.attempt].holder.host}",
            hint="wait for it, or stop it first",
        )


def _delete_unknown(repository: Repository, label: str, attempt: str) -> int:
    """Delete objects of an attempt that the log has never heard of, the manifest first.

    Its keys stay, as does whatever nobody can tell the owner of.
    """
    storage = repository.storage
    prefix = repository.layout.backup(label, attempt)
    names = [info.name for info in storage.list(prefix)]
    names.sort(key=lambda name: name != repository.layout.manifest(label, attempt))
    for name in names:
        storage.delete(name)
    return len(names)
