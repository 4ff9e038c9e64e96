"""The fingerprint that a backup takes along: what a restored copy is compared with.

It is taken once the copy has ended, while packs and WAL are brought to the repository.
Whatever goes wrong with it, the backup is as good as without: it goes on, and says so.
"""

from __future__ import annotations

from collections import Counter
from contextlib import closing, contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

from drkit import workers
from drkit.errors import DrkitError, PostgresRefused
from drkit.model.lsn import Lsn
from drkit.model.wal import segments_between
from drkit.operations.fingerprints.looking import CLOSED
from drkit.operations.fingerprints.taking import Limits, take
from drkit.operations.waiting import came
from drkit.postgres.connection import query
from drkit.postgres.facts import read_facts
from drkit.postgres.fingerprint import BUSY, FORBIDDEN
from drkit.postgres.interruptible import Interruptible
from drkit.repository.fingerprint import write_fingerprint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from drkit.crypto.keys import Dek
    from drkit.model.copied import BackupEnd
    from drkit.model.fingerprint import Fingerprint, FingerprintRef, Mode
    from drkit.model.manifest import ServerDescription
    from drkit.operations.fingerprints.looking import Connect
    from drkit.postgres.connection import Connection
    from drkit.postgres.facts import ServerFacts
    from drkit.protocols import Clock, Progress
    from drkit.repository.repository import Repository

_SHARE = 0.02  # of the time a backup took, for each of a sample's two readings
_LEAST = 0.3  # seconds that such a reading may take after the shortest backup
_CATCH_UP = 10.0  # seconds for a standby to replay what its backup's end needs
_PAUSE = 0.02
_WAL_WITHIN = timedelta(minutes=1)


class FingerprintWanted(NamedTuple):
    """Which fingerprint a backup takes along.

    Attributes:
        connect: opens a session in a database; None is the policy's own.
    """

    mode: Mode
    connect: Connect


class Copy(NamedTuple):
    """The copy that a fingerprint is to prove.

    Attributes:
        seconds: that the backup took so far.
    """

    label: str
    server: ServerDescription
    end: BackupEnd
    seconds: float


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


class Attempted(NamedTuple):
    """A fingerprint before it is stored, or why there is none.

    Attributes:
        ended: whether the WAL segment that holds its moment was ended.
    """

    fingerprint: Fingerprint | None
    seconds: float
    warnings: tuple[str, ...] = ()
    ended: bool = False


class _Ending:
    """Ends the WAL segment that holds the moment, so that it is archived at once.

    Attributes:
        done: whether it was done; a standby can't.
        warnings: why the role may not.
    """

    def __init__(self, connection: Connection) -> None:
        self.done = False
        self.warnings: tuple[str, ...] = ()
        self._connection = connection

    def __call__(self) -> None:
        try:
            query(self._connection, "SELECT pg_switch_wal()")
            self.done = True
        except PostgresRefused as error:
            self.warnings = (
                f"the WAL of the fingerprint's moment comes late: {error.message}",
            )


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
    connect, mode = Interruptible(wanted.connect), wanted.mode
    with (
        closing(connect),
        workers.beside(
            lambda: _attempt(connect, mode, copy, clock), connect.interrupt
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


def _attempt(connect: Interruptible, mode: Mode, copy: Copy, clock: Clock) -> Attempted:
    begun = clock.monotonic()
    try:
        with closing(connect(None)) as connection:
            ending = _Ending(connection)
            fingerprint = _take(connection, connect, mode, copy, clock, ending)
    except DrkitError as error:
        return _none(error.message, clock.monotonic() - begun)
    except Exception as error:  # noqa: BLE001  whatever it is, the backup is good
        what = f"{type(error).__name__}: {error}"
        return _none(what, clock.monotonic() - begun)
    warnings = (*_shortcomings(fingerprint, mode), *ending.warnings)
    return Attempted(fingerprint, clock.monotonic() - begun, warnings, ending.done)


def _none(why: str, seconds: float) -> Attempted:
    return Attempted(None, seconds, (f"no fingerprint was taken: {why}",))


def _take(
    connection: Connection,
    connect: Interruptible,
    mode: Mode,
    copy: Copy,
    clock: Clock,
    marked: Callable[[], None],
) -> Fingerprint:
    _refuse_another_place(_facts_behind_the_end(connection, copy, clock), copy)
    limits = Limits(seconds=max(_LEAST, _SHARE * copy.seconds))
    name = f"drkit {copy.label}"
    fingerprint = take(connect, mode, name, clock, limits, marked)
    if Lsn.parse(fingerprint.lsn) < copy.end.position.lsn:
        raise PostgresRefused(
            f"its moment, {fingerprint.lsn}, lies before the backup's end, "
            f"{copy.end.position.lsn}: the URL leads to several servers"
        )
    return fingerprint


def _facts_behind_the_end(
    connection: Connection, copy: Copy, clock: Clock
) -> ServerFacts:
    """Ask the server what it is, once it has come to where the backup ended."""
    until = clock.monotonic() + _CATCH_UP
    while True:
        facts = read_facts(connection)
        if facts.insert_lsn >= copy.end.position.lsn or clock.monotonic() > until:
            return facts
        clock.sleep(_PAUSE)


def _refuse_another_place(facts: ServerFacts, copy: Copy) -> None:
    """Refuse a server that the backup is not of: a URL may lead to several."""
    stop = copy.end.position
    if str(facts.system_identifier) != copy.server.system_identifier:
        raise PostgresRefused("the URL leads to another cluster now")
    if facts.timeline != stop.timeline:
        raise PostgresRefused(
            f"the server is on timeline {facts.timeline}, the backup ended on "
            f"{stop.timeline}"
        )
    if facts.insert_lsn < stop.lsn:
        raise PostgresRefused(
            f"the server is at {facts.insert_lsn} and has not come to the backup's "
            f"end, {stop.lsn}"
        )


def _shortcomings(fingerprint: Fingerprint, mode: Mode) -> Iterator[str]:
    """Yield what a person should know of a fingerprint that was taken."""
    if fingerprint.mode is not mode:
        why = fingerprint.limits[0] if fingerprint.limits else ""
        yield f"the fingerprint is {fingerprint.mode}, not {mode}. {why}".rstrip()
    for name, why in fingerprint.unread.items():
        if why != CLOSED:
            yield f"the fingerprint lacks {name}: {why}"
    reasons = Counter(
        why for one in fingerprint.databases for why in one.unread.values()
    )
    for why in (FORBIDDEN, BUSY):
        if count := reasons[why]:
            tables = "1 table" if count == 1 else f"{count} tables"
            yield f"the fingerprint lacks {tables}: {why}"
