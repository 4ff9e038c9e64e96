"""Attempts: taking the lease, and clearing away what dead ones left."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from drkit.errors import DrkitError, Locked
from drkit.model.log import Abandon, AttemptState
from drkit.operations.whole import deleted_parts, is_whole
from drkit.repository.lease import LEASE_FOR, RENEW_EVERY, Holder, leases_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from drkit.model.log import Begin, Entry, LogState
    from drkit.protocols import Progress
    from drkit.repository.lease import Leases
    from drkit.repository.repository import Repository

_FORGET = 3 * LEASE_FOR  # an attempt without any lease is dead after this long
_LOOKED_AT = 50  # abandoned attempts, the newest, that are looked at one by one


@contextmanager
def leased(
    repository: Repository, attempt: str, host: str, progress: Progress
) -> Iterator[None]:
    """Hold the lease of `attempt`, and renew it, while the block runs.

    Raises:
        Locked: another attempt holds one.
    """
    leases = leases_of(repository)
    here = Holder.this(host)
    for other in leases.held(here).values():
        raise Locked(
            f"a backup of {repository.layout.cluster} is running on "
            f"{other.holder.host}, process {other.holder.pid}",
            hint=f"wait for it; if it died, its lease ends at {other.until:%H:%M} UTC",
        )
    try:
        leases.renew(attempt, here, 0)
        with _renewed(leases, attempt, here, progress):
            yield
    finally:
        _release(leases, attempt, progress)


@contextmanager
def _renewed(
    leases: Leases, attempt: str, here: Holder, progress: Progress
) -> Iterator[None]:
    done = threading.Event()

    def renew() -> None:
        number = 1
        while not done.wait(RENEW_EVERY.total_seconds()):
            try:
                leases.renew(attempt, here, number)
            except DrkitError as error:
                progress.warning("could not renew the lease", error=str(error))
                continue
            number += 1

    thread = threading.Thread(target=renew, name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _release(leases: Leases, attempt: str, progress: Progress) -> None:
    """Release a lease; one that resists ends by itself and must not hide an error."""
    try:
        leases.release(attempt)
    except DrkitError as error:
        progress.warning("could not release the lease", error=str(error))


def abandon_dead(repository: Repository, host: str, progress: Progress) -> None:
    """Abandon attempts whose process is gone, and sweep what abandoned ones left.

    The caller has confirmed the log's head. What may be a backup stays, and is told.
    """
    state = repository.log.read()
    leases = leases_of(repository)
    held = leases.held(Holder.this(host))
    running = {begin.attempt for begin in state.running()}
    for idle in leases.attempts() - held.keys() - running:
        leases.release(idle)  # it died before it began, or after it had ended
    for begin in state.running():
        if begin.attempt not in held and _is_dead(repository, begin, host):
            if _told_to_stay(repository, begin, progress):
                continue
            abandon(repository, begin.attempt, "its process is gone")
            leases.release(begin.attempt)
            progress.event("attempt abandoned", label=begin.label)
    _sweep_abandoned(repository, progress)


def give_up(
    repository: Repository, attempt: str, reason: str, progress: Progress
) -> None:
    """Abandon and sweep an attempt that has failed, unless it may have committed."""
    known = repository.log.read().attempts.get(attempt)
    if known is not None and known.state is AttemptState.RUNNING:
        if _told_to_stay(repository, known.begin, progress):
            return
        abandon(repository, attempt, reason)
    sweep_attempt(repository, attempt, progress)


def abandon(repository: Repository, attempt: str, reason: str) -> None:
    """Write that an attempt can't commit any more, unless it has ended already.

    One that has not begun, as far as the log says, needs no such entry.
    """
    known = repository.log.read().attempts.get(attempt)
    if known is None or known.state is not AttemptState.RUNNING:
        return

    def decide(_: LogState) -> Entry:
        return Abandon(attempt, reason)

    repository.log.append(decide)


def sweep_attempt(repository: Repository, attempt: str, progress: Progress) -> None:
    """Delete what an abandoned attempt stored; anything else is left alone."""
    known = repository.log.read().attempts.get(attempt)
    if known is not None and known.state is AttemptState.ABANDONED:
        _sweep(repository, known.begin, progress)


def _sweep_abandoned(repository: Repository, progress: Progress) -> None:
    """Sweep the abandoned attempts that have left something.

    Keys are stored first and deleted last: who has none seldom left anything, and one
    listing of them spares one for every attempt that ever failed. But a listing may
    have lacked packs when the keys were deleted, and a writer that was swept while it
    slept may have stored some since; so the newest attempts are looked at themselves.
    """
    abandoned = [
        attempt.begin
        for attempt in repository.log.state.attempts.values()
        if attempt.state is AttemptState.ABANDONED
    ]
    purposes = {purpose for begin in abandoned for purpose, _ in begin.keys}
    stored = {
        (purpose, info.name.split("/")[-2])
        for purpose in purposes
        for info in repository.storage.list(repository.layout.keys(purpose))
    }
    newest = {begin.attempt for begin in abandoned[-_LOOKED_AT:]}
    for begin in abandoned:
        looked_at = begin.attempt in newest and _has_objects(repository, begin)
        if looked_at or not stored.isdisjoint(begin.keys):
            _sweep(repository, begin, progress)


def _has_objects(repository: Repository, begin: Begin) -> bool:
    """Say whether a manifest or a pack of the attempt is listed."""
    prefix = repository.layout.backup(begin.label, begin.attempt)
    return next(iter(repository.storage.list(prefix)), None) is not None


def _is_dead(repository: Repository, begin: Begin, host: str) -> bool:
    """Judge an attempt without a valid lease by its own and its entry's age."""
    leases = leases_of(repository)
    lapsed = leases.last(begin.attempt)
    if lapsed is not None and lapsed.gone(Holder.this(host)):
        return True
    began = next(
        logged.time for logged in repository.log.entries if logged.entry == begin
    )
    last_sign = lapsed.until if lapsed is not None else began
    return repository.clock.now() - last_sign > _FORGET


def _told_to_stay(repository: Repository, begin: Begin, progress: Progress) -> bool:
    """Say, and tell, that what an attempt has stored may be a backup after all.

    Its commit may be hidden, or parts of it. What is deleted, with all its versions,
    can't be brought back; what stays costs storage.
    """
    where = (begin.label, begin.attempt)
    deleted = deleted_parts(repository, *where)
    if deleted:
        why = f"{deleted[0]} was deleted or replaced, and the store still has it"
    elif is_whole(repository, *where):
        why = "it is whole, though the log has no commit of it"
    else:
        return False
    cluster = repository.layout.cluster
    progress.warning(
        f"{begin.label} is not cleared away: {why}. See whether the log's newest "
        f"entries are all there; if they are: drkit discard {cluster} {begin.label}",
        label=begin.label,
    )
    return True


def _sweep(repository: Repository, begin: Begin, progress: Progress) -> None:
    """Sweep an abandoned attempt, unless what is there may be a backup."""
    if not _told_to_stay(repository, begin, progress):
        delete_attempt(repository, begin, progress)


def delete_attempt(repository: Repository, begin: Begin, progress: Progress) -> int:
    """Delete all objects and leases, by names that only the attempt ever used.

    Returns:
        How many objects.
    """
    prefix = repository.layout.backup(begin.label, begin.attempt)
    names = [info.name for info in repository.storage.list(prefix)]
    for purpose, key_id in begin.keys:
        keys = repository.layout.dek(purpose, bytes.fromhex(key_id))
        names += [info.name for info in repository.storage.list(keys)]
    for name in names:  # packs come behind what names them, keys come last
        repository.storage.delete(name)
    leases_of(repository).release(begin.attempt)
    if names:
        progress.event("left-overs swept", label=begin.label, objects=len(names))
    return len(names)
