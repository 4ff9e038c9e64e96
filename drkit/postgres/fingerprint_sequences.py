"""How far sequences have come, asked for by identifier as far as a server lets us.

A name may stand for something else by the time that a statement uses it, such as a view
that calls a function. Functions take the identifier and refuse what is no sequence.
Before version 18 they keep to themselves how a sequence stands that has given out
nothing yet; that is read from it, under its name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from drkit.model.fingerprint import SequenceState
from drkit.postgres.connection import translated
from drkit.postgres.fingerprint_guard import UNHELD, trusted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from drkit.postgres.connection import Connection
    from drkit.postgres.fingerprint_guard import Guard

_BY_IDENTIFIER_SINCE = 180000
_AT_ONCE = 200  # sequences that are asked for in one statement

# pg_sequences hides the values of those that the role may not read
_SEQUENCES = f"""
    SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname), c.oid::bigint,
        s.seqincrement, s.seqcache, s.seqcycle,
        has_sequence_privilege(c.oid, 'SELECT'),
        NOT ({trusted("c.relowner")} AND {trusted("n.nspowner")}),
        pg_is_in_recovery() AND current_setting('is_superuser') = 'on'
    FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid
        JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relpersistence = 'p' ORDER BY 1
"""  # noqa: S608  made of constants
_DATA = """
    SELECT one.oid, d.last_value, d.is_called
    FROM unnest(%s::bigint[]) AS one (oid), pg_get_sequence_data(one.oid::oid) AS d
"""
_LAST_VALUES = """
    SELECT one.oid, pg_sequence_last_value(one.oid::oid)
    FROM unnest(%s::bigint[]) AS one (oid)
"""


class _Sequence(NamedTuple):
    """A sequence as the catalogs have it.

    Attributes:
        guarded: whether it takes a guard to use its name: it is somebody else's.
        unheld: whether nobody could be kept from changing that, and it matters.
    """

    name: str
    oid: int
    increment: int
    cache: int
    cycle: bool
    readable: bool
    guarded: bool
    unheld: bool

    def state(self, last: int, *, called: bool) -> SequenceState:
        """Return how far it has come."""
        reached = last if called else last - self.increment
        return SequenceState(reached, reached, self.increment, self.cache, self.cycle)


def sequences(
    connection: Connection, guard: Guard
) -> tuple[dict[str, SequenceState], dict[str, str]]:
    """Return how far each sequence has come, and those that can't be read, and why.

    They stay locked until the transaction ends, if there is one: nobody can alter them.

    Raises:
        PostgresRefused: one could not be read, as when it is dropped just then.
    """
    found = [_Sequence(*row) for row in connection.query(_SEQUENCES)]
    hidden = {
        one.name: "the role may not read the sequence"
        for one in found
        if not one.readable
    }
    readable = [one for one in found if one.readable]
    states: dict[str, SequenceState] = {}
    for begin in range(0, len(readable), _AT_ONCE):
        some = readable[begin : begin + _AT_ONCE]
        with translated(connection), connection.transaction():
            states |= _states(connection, some, guard)
    hidden |= {one.name: UNHELD for one in readable if one.name not in states}
    return states, hidden


def _states(
    connection: Connection, some: Sequence[_Sequence], guard: Guard
) -> dict[str, SequenceState]:
    by_oid = {one.oid: one for one in some}
    if connection.version() >= _BY_IDENTIFIER_SINCE:
        rows = connection.query(_DATA, (list(by_oid),))
        return {
            by_oid[oid].name: by_oid[oid].state(last, called=called)
            for oid, last, called in rows
        }
    rows = connection.query(_LAST_VALUES, (list(by_oid),))
    states = {
        by_oid[oid].name: by_oid[oid].state(last, called=True)
        for oid, last in rows
        if last is not None
    }
    unused = [by_oid[oid] for oid, last in rows if last is None]
    return states | dict(_unused(connection, unused, guard))


def _unused(
    connection: Connection, unused: Sequence[_Sequence], guard: Guard
) -> Iterator[tuple[str, SequenceState]]:
    """Read sequences that have given out nothing, as far as that is safe."""
    free = [one for one in unused if guard.alone or not one.guarded]
    yield from _by_name(connection, free)
    others = [one for one in unused if one not in free and not one.unheld]
    if others:
        names, oids = [one.name for one in others], [one.oid for one in others]
        with guard.over_sequences(names, oids):
            yield from _by_name(connection, others)


def _by_name(
    connection: Connection, some: Sequence[_Sequence]
) -> list[tuple[str, SequenceState]]:
    if not some:
        return []
    statement = " UNION ALL ".join(
        f"SELECT {number}, last_value, is_called FROM {one.name}"  # noqa: S608
        for number, one in enumerate(some)
    )
    return [
        (some[number].name, some[number].state(last, called=called))
        for number, last, called in connection.query(statement)
    ]
