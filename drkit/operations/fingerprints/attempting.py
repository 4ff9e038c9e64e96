"""Taking a backup's fingerprint; what goes wrong with it becomes its warnings."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING

from drkit.errors import DrkitError, PostgresRefused
from drkit.model.lsn import Lsn
from drkit.operations.fingerprints.attempt import Attempted
from drkit.operations.fingerprints.looking import CLOSED
from drkit.operations.fingerprints.taking import Limits, take
from drkit.postgres.facts import read_facts
from drkit.postgres.fingerprint import FORBIDDEN
from drkit.postgres.fingerprint_guard import BUSY, CODE, UNHELD

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from drkit.model.fingerprint import Fingerprint, Mode
    from drkit.operations.fingerprints.attempt import Copy
    from drkit.postgres.connection import Connection
    from drkit.postgres.facts import ServerFacts
    from drkit.postgres.interruptible import Interruptible
    from drkit.protocols import Clock

_SHARE = 0.02  # of the time a backup took, for each of a sample's two readings
_LEAST = 0.3  # seconds that such a reading may take after the shortest backup
_CATCH_UP = 10.0  # seconds for a standby to replay what its backup's end needs
_PAUSE = 0.02


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
            self._connection.query("SELECT pg_switch_wal()")
            self.done = True
        except PostgresRefused as error:
            self.warnings = (
                f"the WAL of the fingerprint's moment comes late: {error.message}",
            )


def attempt(connect: Interruptible, mode: Mode, copy: Copy, clock: Clock) -> Attempted:
    """Take a fingerprint of what was copied; raises nothing."""
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
    for why in (FORBIDDEN, BUSY, CODE, UNHELD):
        if count := reasons[why]:
            tables = "1 table" if count == 1 else f"{count} tables"
            yield f"the fingerprint lacks {tables}: {why}"
