"""The fingerprint that a backup takes along: what a restored copy is compared with.

It is taken once the copy has ended, while packs and WAL are brought to the repository.
Whatever goes wrong with it, the backup is as good as without: it goes on, and says so.
What takes one is imported when one is wanted.
"""

from __future__ import annotations

from contextlib import closing, contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

from drkit import workers
from drkit.errors import DrkitError
from drkit.model.wal import segments_between
from drkit.operations.waiting import came

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from drkit.crypto.keys import Dek
    from drkit.model.fingerprint import FingerprintRef, Mode
    from drkit.operations.fingerprints.attempt import Attempted, Copy
    from drkit.operations.fingerprints.looking import Connect
    from drkit.protocols import Clock, Progress
    from drkit.repository.repository import Repository

_WAL_WITHIN = timedelta(minutes=1)


class FingerprintWanted(NamedTuple):
    """Which fingerprint a backup takes along.

    Attributes:
        connect: opens a session in a database; None is the policy's own.
    """

    mode: Mode
    connect: Connect


class FingerprintTaken(NamedTuple):
    """What became of the fingerprint that was wanted.

    Attributes:
        reference: None if none could be stored.
        seconds: from its first session to its last.
        held_seconds: how long writers were held up at most.
        warnings: why there is none, or not the one that was wanted; none of them makes
            the backup worse.
    """

    reference: FingerprintRef | None
    seconds: float
    held_seconds: float
    warnings: tuple[str, ...]


@contextmanager
def fingerprinting(
    wanted: FingerprintWanted | None, copy: Copy, clock: Clock
) -> Iterator[Callable[[], Attempted] | None]:
    """Take a fingerprint while the block runs; yields what waits for it.

    Nothing is raised for it. If the block fails, it is cut short. Without one that is
    wanted, None is yielded.
    """
    if wanted is None:
        yield None
        return
    from drkit.operations.fingerprints.attempting import attempt
    from drkit.postgres.interruptible import Interruptible

    connect, mode = Interruptible(wanted.connect), wanted.mode
    with (
        closing(connect),
        workers.beside(
            lambda: attempt(connect, mode, copy, clock), connect.interrupt
        ) as attempted,
    ):
        yield attempted


def keep_fingerprint(
    repository: Repository,
    name: str,
    attempted: Attempted,
    copy: Copy,
    dek: Dek,
    archiver: Callable[[], str],
    progress: Progress,
) -> FingerprintTaken:
    """Store a fingerprint, if there is one, and wait until its WAL is archived.

    Args:
        dek: the one of the backup's manifest.
        archiver: asks the server why archiving may be stuck, for the message.
        progress: is told of it, and warned of what is wrong.
    """
    kept = _stored(repository, name, attempted, dek)
    if attempted.ended:
        kept = _with_wal(repository, kept, copy, archiver, progress)
    if kept.reference is not None:
        progress.event(
            "fingerprint taken",
            mode=str(kept.reference.mode),
            lsn=str(kept.reference.lsn),
            seconds=round(kept.seconds, 3),
            held_seconds=round(kept.held_seconds, 3),
        )
    for warning in kept.warnings:
        progress.warning(warning)
    return kept


def _stored(
    repository: Repository, name: str, attempted: Attempted, dek: Dek
) -> FingerprintTaken:
    from drkit.repository.fingerprint import write_fingerprint

    fingerprint, seconds, warnings, _ = attempted
    if fingerprint is None:
        return FingerprintTaken(None, seconds, 0.0, warnings)
    held = fingerprint.held_seconds
    try:
        reference = write_fingerprint(repository, name, fingerprint, dek)
    except DrkitError as error:
        said = f"the fingerprint could not be stored: {error.message}"
        return FingerprintTaken(None, seconds, held, (*warnings, said))
    return FingerprintTaken(reference, seconds, held, warnings)


def _with_wal(
    repository: Repository,
    kept: FingerprintTaken,
    copy: Copy,
    archiver: Callable[[], str],
    progress: Progress,
) -> FingerprintTaken:
    """Wait for the WAL up to the fingerprint's moment.

    A standby can't end the segment that this lies in; so nobody waits for it there.
    """
    reference, stop = kept.reference, copy.end.position
    if reference is None:
        return kept
    size = copy.server.wal_segment_size
    segments = segments_between(stop.lsn, reference.lsn, stop.timeline, size)
    if came(repository, segments, size, _WAL_WITHIN, archiver, progress):
        return kept
    said = (
        f"the WAL up to the fingerprint's moment, {reference.lsn}, was not archived "
        f"within {_WAL_WITHIN}: until it is, no restored copy can be compared with it"
    )
    return kept._replace(warnings=(*kept.warnings, said))
