"""Asking a server one thing, without letting the question change anything."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from psycopg import errors, pq

from drkit.errors import PostgresRefused
from drkit.model.verification import Comparison
from drkit.postgres.connection import translated

if TYPE_CHECKING:
    from collections.abc import Iterator

    from drkit.postgres.connection import Connection

_NUMBERS = frozenset({20, 21, 23, 26, 700, 701, 1700})
"""Types of numbers: int8, int2, int4, oid, float4, float8, numeric."""

_OPERATORS = {
    Comparison.EQUALS: "=",
    Comparison.AT_LEAST: ">=",
    Comparison.AT_MOST: "<=",
}
# Names are found as in a session of anybody's, and views are read; that comes last. How
# values are written is the same in every session.
_PREPARE = """
    SELECT set_config(name, '', true) FROM pg_settings
        WHERE name = 'restrict_nonsystem_relation_kind';
    SET LOCAL constraint_exclusion TO DEFAULT; SET LOCAL search_path TO DEFAULT
"""


class Answer(NamedTuple):
    """One value, as the server writes it, and its type's OID."""

    text: str
    type: int

    @property
    def number(self) -> bool:
        """Whether the type is one of numbers."""
        return self.type in _NUMBERS


def ask(connection: Connection, statement: str, seconds: float) -> Answer:
    """Run one statement that can't write, and return its only value.

    Args:
        seconds: that it may take.

    Raises:
        PostgresRefused: it failed, is more than one, took too long, or does not return
            one value.
        PostgresUnreachable: the connection was lost.
    """
    with (
        _reading(connection, seconds),
        translated(connection),
        connection.cursor() as cursor,
    ):
        # in a pipeline the protocol itself takes no more than one statement
        try:
            with connection.pipeline():
                cursor.execute(statement.encode())
        except errors.InsufficientPrivilege as error:
            raise PostgresRefused(
                f"PostgreSQL answered: {error.diag.message_primary}",
                hint="it is asked as a role that may read everything, and do no more",
            ) from None
        return _only(cursor.pgresult)


def holds(
    connection: Connection, answer: Answer, comparison: Comparison, expected: str
) -> bool:
    """Compare an answer with a value in text form, by the rules of its type.

    Raises:
        PostgresRefused: the text is no such value, or the type knows no such order.
    """
    name = connection.query("SELECT format_type(%s, NULL)", (answer.type,))[0][0]
    type_ = str(name).replace("%", "%%")
    operator = _OPERATORS[comparison]
    statement = f"SELECT %s::{type_} {operator} %s::{type_}"
    with _reading(connection, 60):
        return bool(connection.query(statement, (answer.text, expected))[0][0])


@contextmanager
def _reading(connection: Connection, seconds: float) -> Iterator[None]:
    connection.query("BEGIN READ ONLY")
    try:
        milliseconds = max(int(seconds * 1000), 1)
        connection.query(f"SET LOCAL statement_timeout = {milliseconds}")
        connection.query(_PREPARE)
        yield
    finally:
        if not connection.closed:
            connection.query("ROLLBACK")


def _only(result: pq.abc.PGresult | None) -> Answer:
    if result is None or result.status != pq.ExecStatus.TUPLES_OK:
        raise PostgresRefused("the statement returns no rows")
    if (result.ntuples, result.nfields) != (1, 1):
        raise PostgresRefused(
            f"the statement returns {result.ntuples} rows of {result.nfields} columns",
            hint="let it return one value: one row with one column",
        )
    value = result.get_value(0, 0)
    if value is None:
        raise PostgresRefused("the statement returns NULL")
    return Answer(value.decode("utf-8", "replace"), result.ftype(0))
