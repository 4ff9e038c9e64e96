"""An exact fingerprint: every row, of a moment that recovery can reach again.

The order in which commits become visible is not the order in WAL. So writers are held
up for a moment: once all tables are locked, nobody's commit is on its way; snapshots
and restore point then mean the same state. The rows are read when writers go on again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from drkit.errors import NotHeld, PostgresRefused
from drkit.model.fingerprint import DatabaseFingerprint, Fingerprint, Mode
from drkit.model.fingerprint_stable import stable_facts, stable_sequences
from drkit.operations.fingerprints.looking import (
    look_at_catalogs,
    look_at_cluster,
    look_at_database,
)
from drkit.postgres import fingerprint as server
from drkit.postgres.fingerprint_locks import deadlock_timeout, holders, lock_room
from drkit.postgres.fingerprint_rights import missing_grants, unholdable
from drkit.postgres.fingerprint_sequences import sequences

if TYPE_CHECKING:
    from datetime import datetime

    from drkit.model.fingerprint import Content, SequenceState
    from drkit.operations.fingerprints.looking import Limits, Marked, Sessions
    from drkit.postgres.connection import Connection
    from drkit.postgres.fingerprint import Moment, Table
    from drkit.postgres.fingerprint_guard import Guard
    from drkit.protocols import Clock


_SHARE = 0.8  # of a writer's patience that taking the locks may use up


class _Held(NamedTuple):
    """A moment in which nobody wrote, and that all transactions now see.

    Attributes:
        seconds: how long writers may have waited.
        tables: those that were locked, by database.
        early: sequences as they were before.
    """

    moment: Moment
    taken_at: datetime
    seconds: float
    tables: dict[str, list[Table]]
    early: dict[str, dict[str, SequenceState]]


def exact(
    sessions: Sessions,
    restore_point: str,
    clock: Clock,
    limits: Limits,
    marked: Marked = None,
) -> Fingerprint:
    """Take an exact fingerprint.

    Args:
        marked: called as soon as the restore point is made and writers go on.

    Raises:
        NotHeld: writers could not be held up within the limits.
    """
    held = _hold(sessions, restore_point, clock, limits)
    try:
        if marked is not None:
            marked()
        globally = look_at_cluster(sessions.main)
        databases = tuple(
            _database(name, session, sessions.guards[name], held)
            for name, session in sessions.databases.items()
        )
    finally:
        _end(sessions)
    globally_after = look_at_cluster(sessions.main)
    facts, unstable = stable_facts(globally.facts, globally_after.facts)
    return Fingerprint(
        mode=Mode.EXACT,
        taken_at=held.taken_at,
        lsn=held.moment.lsn,
        restore_point=held.moment.restore_point,
        seed=0,
        facts=facts,
        databases=databases,
        unread={**sessions.unread, **globally.unread},
        unstable=unstable,
        held_seconds=held.seconds,
        limits=tuple(_limits(databases)),
    )


def _hold(
    sessions: Sessions, restore_point: str, clock: Clock, limits: Limits
) -> _Held:
    _refuse_without_rights(sessions)
    reason = ""
    # A writer that waits for longer looks for a deadlock, finds one, and is ended.
    patience = _SHARE * deadlock_timeout(sessions.main)
    seconds = min(limits.lock_seconds, patience)
    for attempt in range(limits.lock_attempts):
        if attempt:
            clock.sleep(seconds)
        try:
            return _try_to_hold(sessions, restore_point, clock, seconds)
        except NotHeld:
            _end(sessions)
            raise
        except PostgresRefused as error:
            _end(sessions)
            reason = error.message + _holders(sessions)
        except BaseException:
            _end(sessions)
            raise
    raise NotHeld(
        f"writers could not be held up in {limits.lock_attempts} attempts: {reason}",
        hint="look for long transactions, or let fingerprints be sampled",
    )


def _try_to_hold(
    sessions: Sessions, restore_point: str, clock: Clock, seconds: float
) -> _Held:
    early = {
        name: sequences(one, sessions.guards[name])[0]
        for name, one in sessions.databases.items()
    }
    tables = {name: server.tables(one)[0] for name, one in sessions.databases.items()}
    _refuse_too_many(sessions, sum(map(len, tables.values())))
    server.begin(sessions.main, (), seconds)
    for name, session in sessions.databases.items():
        server.begin(session, _lockable(tables[name]), seconds)
    begun = clock.monotonic()
    for name, session in sessions.databases.items():
        left = begun + seconds - clock.monotonic()
        server.hold(session, _lockable(tables[name]), left)
    for session in (*sessions.databases.values(), sessions.main):
        server.fix_snapshot(session)
    moment = server.mark(sessions.main, restore_point)
    for session in sessions.databases.values():
        server.release(session)
    return _Held(moment, clock.now(), clock.monotonic() - begun, tables, early)


def _refuse_without_rights(sessions: Sessions) -> None:
    for name, session in sessions.databases.items():
        table = unholdable(session)
        if table:
            grants = missing_grants(session, Mode.EXACT)
            raise NotHeld(
                f"the role may not lock {table} in database {name}",
                hint=f"let a superuser run: {' '.join(grants)}",
            )


def _refuse_too_many(sessions: Sessions, count: int) -> None:
    room = lock_room(sessions.main)
    if count > room // 2:
        raise NotHeld(
            f"locking {count} tables would take more than half of the server's room "
            f"for {room} locks",
            hint="raise max_locks_per_transaction, or let fingerprints be sampled",
        )


def _lockable(tables: list[Table]) -> list[str]:
    return [table.name for table in tables if table.lockable]


def _holders(sessions: Sessions) -> str:
    found = map(holders, sessions.databases.values())
    return next(filter(None, found), "")


def _end(sessions: Sessions) -> None:
    for session in (*sessions.databases.values(), sessions.main):
        server.end(session)


def _database(
    name: str, session: Connection, guard: Guard, held: _Held
) -> DatabaseFingerprint:
    """Read a database as it was at the moment, and compare with how it is after."""
    seen = look_at_catalogs(session)
    listed, unread = server.tables(session)
    locked = {table.name for table in held.tables[name]}
    unread |= {
        table.name: "it was made or changed at just that moment"
        for table in listed
        if table.name not in locked
    }
    wanted = [one for one in listed if one.name in locked]
    tables, failed = _read(session, guard, wanted)
    server.end(session)
    after = look_at_database(session, guard)
    facts, unstable = stable_facts(seen.facts, after.facts)
    return DatabaseFingerprint(
        name=name,
        facts=facts,
        tables=tables,
        sequences=stable_sequences(held.early[name], after.sequences),
        unread={**unread, **seen.unread, **after.unread, **failed},
        unstable=unstable,
    )


def _read(
    session: Connection, guard: Guard, tables: list[Table]
) -> tuple[dict[str, Content], dict[str, str]]:
    """Read tables whole; first those that could not be locked."""
    found: dict[str, Content] = {}
    failed: dict[str, str] = {}
    for table in sorted(tables, key=lambda one: (one.lockable, one.name)):
        try:
            found[table.name] = server.read_whole(session, table, guard)
        except PostgresRefused as error:
            failed[table.name] = error.message
    return found, failed


def _limits(databases: tuple[DatabaseFingerprint, ...]) -> list[str]:
    unread = sum(len(database.unread) for database in databases)
    if not unread:
        return []
    return [f"{unread} tables or sequences are not compared: see `unread`."]
