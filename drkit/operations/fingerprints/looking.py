"""Looking at a whole cluster: a session in each database, and what one look shows."""

from __future__ import annotations

import zlib
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from drkit.errors import PostgresRefused
from drkit.postgres import fingerprint as server
from drkit.postgres.fingerprint_catalogs import (
    DATABASE_SECTIONS,
    cluster_sections,
    read_sections,
)
from drkit.postgres.fingerprint_guard import Alone, SecondSession
from drkit.postgres.fingerprint_sequences import sequences

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from drkit.model.fingerprint import Facts, SequenceState
    from drkit.model.fingerprint_stable import Blocks
    from drkit.postgres.connection import Connection
    from drkit.postgres.fingerprint import Table
    from drkit.postgres.fingerprint_guard import Guard
    from drkit.protocols import Clock

    Connect = Callable[[str | None], Connection]
    """Opens a session in a database; None is the one that the policy's URL names."""

    Marked = Callable[[], None] | None

CLOSED = "it allows no connections"
"""Why a database is not read, where that is as its owner wants it."""

_SETTLE = 2.0  # seconds that commits before the restore point may take to be visible
_PAUSE = 0.02


@dataclass(frozen=True, slots=True)
class Limits:
    """What taking a fingerprint may cost.

    Attributes:
        blocks: of each table that a sample holds, about; shorter tables are read whole.
        seconds: for each of a sample's two readings of rows.
        lock_seconds: to wait for the locks of an exact one; writers may wait as long.
            It is less where writers would look for deadlocks earlier.
        lock_attempts: how often that is tried, with pauses between.
        fall_back: take a sample where the locks could not be had.
    """

    blocks: int = 64
    seconds: float = 30.0
    lock_seconds: float = 2.0
    lock_attempts: int = 5
    fall_back: bool = True


@dataclass(frozen=True, slots=True)
class Sessions:
    """The sessions of one fingerprint.

    Attributes:
        main: to ask what belongs to no database.
        databases: one session in each database that allows it.
        guards: what keeps code of the database's users out of it.
        unread: the other databases, and why.
    """

    main: Connection
    databases: dict[str, Connection] = field(default_factory=dict)
    guards: dict[str, Guard] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)


class Seen(NamedTuple):
    """What one look has shown of a database, or of what belongs to none."""

    facts: Facts
    unread: Mapping[str, str] = {}
    sequences: Mapping[str, SequenceState] = {}


class Choice(NamedTuple):
    """The tables of a database to take blocks of, and those that can't be read.

    Attributes:
        percent: of each table's blocks, in the order to read them.
    """

    percent: Mapping[Table, float]
    unread: Mapping[str, str]


@contextmanager
def sessions(connect: Connect, *, alone: bool = False) -> Iterator[Sessions]:
    """Open a session in every database.

    Args:
        alone: nobody else is there, as in a restored copy.

    Raises:
        PostgresUnreachable: a connection was lost.
        PostgresRefused: the first login was refused.
    """
    with ExitStack() as stack:
        opened = Sessions(_open(stack, connect, None))
        names, closed = server.databases(opened.main)
        opened.unread.update(dict.fromkeys(closed, CLOSED))
        for name in names:
            try:
                opened.databases[name] = _open(stack, connect, name)
            except PostgresRefused as error:
                opened.unread[name] = error.message
            else:
                opened.guards[name] = _guard(stack, connect, name, alone=alone)
        yield opened


def _open(stack: ExitStack, connect: Connect, name: str | None) -> Connection:
    connection = connect(name)
    stack.callback(connection.close)
    server.prepare(connection)
    return connection


def _guard(stack: ExitStack, connect: Connect, name: str, *, alone: bool) -> Guard:
    if alone:
        return Alone()
    guard = SecondSession(lambda: connect(name))
    stack.callback(guard.close)
    return guard


def look_at_cluster(main: Connection) -> Seen:
    """Look at what belongs to no database, in the transaction's snapshot."""
    return Seen(*read_sections(main, cluster_sections(main)))


def look_at_catalogs(session: Connection) -> Seen:
    """Look at a database's catalogs, in the transaction's snapshot if there is one."""
    return Seen(*read_sections(session, DATABASE_SECTIONS))


def look_at_database(session: Connection, guard: Guard) -> Seen:
    """Look at catalogs and sequences; these stay locked while the transaction lasts."""
    seen = look_at_catalogs(session)
    states, hidden = sequences(session, guard)
    return Seen(seen.facts, {**seen.unread, **hidden}, states)


def choose(session: Connection, blocks: int, seed: int) -> Choice:
    """Choose tables in an order of their own for each seed: time may not do for all."""
    found, unread = server.tables(session)
    found.sort(key=lambda table: zlib.crc32(f"{seed} {table.name}".encode()))
    return Choice({one: _percent(one.blocks, blocks) for one in found}, unread)


def _percent(length: int, blocks: int) -> float:
    return 100.0 if length <= blocks else float(f"{100 * blocks / length:.6g}")


def read_chosen(
    session: Connection,
    guard: Guard,
    choice: Choice,
    seed: int,
    clock: Clock,
    seconds: float,
) -> tuple[dict[str, Blocks], dict[str, str]]:
    """Read the chosen blocks of tables until time is over; return also what was not."""
    found: dict[str, Blocks] = {}
    unread: dict[str, str] = {}
    until = clock.monotonic() + seconds
    for table, percent in choice.percent.items():
        left = until - clock.monotonic()
        if left <= 0:
            unread[table.name] = "the time for a sample was over"
            continue
        try:
            blocks = server.read_blocks(session, table, guard, percent, seed, left)
            found[table.name] = blocks
        except PostgresRefused as error:
            unread[table.name] = error.message
    return found, unread


def settle(main: Connection, lsn: str, clock: Clock) -> bool:
    """Wait until commits before `lsn` can be seen; say whether they can."""
    server.flush(main)
    until = clock.monotonic() + _SETTLE
    while not server.settled(main, lsn):
        if clock.monotonic() > until:
            return False
        clock.sleep(_PAUSE)
    clock.sleep(_PAUSE)  # between being on disk and being seen
    return True
