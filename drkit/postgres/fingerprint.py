"""What a fingerprint asks a server for: tables' rows, sequences, and its moment.

Rows are compared as text, since not every type can be hashed; so all that shapes the
text is set first. The text of a row tells an empty value from NULL, and holds what
TOAST keeps apart. The hash is by bytes, whatever the collation.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from drkit.model.fingerprint import Content, SequenceState
from drkit.model.fingerprint_stable import Block, digest
from drkit.postgres.connection import translated

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from drkit.postgres.connection import Connection

FORBIDDEN = "the role may not read it: grant it pg_read_all_data"
"""Why a table is not read, where more rights would help."""

BUSY = "somebody was changing it, and kept everybody else out"
"""Why a table is not read that could be at another moment."""

_SESSION = {
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "lc_monetary": "C",
    "lc_numeric": "C",
    "jit": "off",  # compiling takes longer than a sample
    "row_security": "off",  # an error instead of missing rows
    "lock_timeout": "2s",  # a backup must not wait for somebody's ALTER TABLE
    "quote_all_identifiers": "off",
    "xmlbinary": "base64",
    "search_path": "pg_catalog",  # names of objects are written out in full
}

_DATABASES = """
    SELECT datname::text, datallowconn FROM pg_database ORDER BY datname
"""
# With the two catalogs that hold large objects. A table being dropped has no size, and
# one being altered would be waited for.
_TABLES = """
    WITH changing AS MATERIALIZED (
        SELECT relation FROM pg_locks
        WHERE %s AND locktype = 'relation' AND mode = 'AccessExclusiveLock'
            AND pid IS DISTINCT FROM pg_backend_pid() AND database =
                (SELECT oid FROM pg_database WHERE datname = current_database()))
    SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname), c.relkind::text,
        c.relpersistence::text, c.relispopulated,
        CASE WHEN c.relkind = 'f' OR busy THEN 0
            ELSE coalesce(pg_relation_size(c.oid), 0)
            / current_setting('block_size')::int END,
        c.relkind <> 'f' AND has_table_privilege(c.oid, 'SELECT'), busy
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace,
        LATERAL (SELECT c.oid IN (SELECT relation FROM changing) AS busy) AS b
    WHERE c.relkind IN ('r', 'm', 'f') AND n.nspname !~ '^pg_(toast|temp)'
        AND (c.oid >= 16384 OR c.oid IN ('pg_catalog.pg_largeobject'::regclass,
            'pg_catalog.pg_largeobject_metadata'::regclass))
    ORDER BY 1
"""
# Without OFFSET the row would be made into text twice.
_ROWS = """
    SELECT {columns} FROM (
        SELECT "drkit row".ctid AS place, "drkit row"::text COLLATE "C" AS content
        FROM ONLY {table} AS "drkit row" {sample} OFFSET 0) AS r {group}
"""
_SUMS = (
    "count(*), coalesce(sum(hashtextextended(content, 0)), 0), "
    "coalesce(sum(hashtextextended(content, 6148914691236517205)), 0)"
)
_BLOCK = "(place::text::point)[0]::bigint"

# pg_sequences hides the values of those that the role may not read
_SEQUENCES = """
    SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname), s.seqincrement,
        s.seqcache, s.seqcycle, s.seqstart, has_sequence_privilege(c.oid, 'SELECT')
    FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid
        JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relpersistence = 'p' ORDER BY 1
"""
_SETTLED = """
    SELECT pg_current_wal_flush_lsn() >= %s::pg_lsn AND NOT EXISTS
        (SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep')
"""
_AT_ONCE = 200  # sequences that are asked for in one statement


class Table(NamedTuple):
    """A table whose rows can be read.

    Attributes:
        name: qualified and quoted.
        blocks: its length, in blocks.
        lockable: whether LOCK TABLE takes it, which refuses materialized views.
    """

    name: str
    blocks: int
    lockable: bool


class Moment(NamedTuple):
    """A moment that recovery can reach again; a standby can't name it."""

    lsn: str
    restore_point: str | None


def prepare(connection: Connection) -> None:
    """Set whatever has a say in how values are written as text."""
    statement = """
        SELECT count(set_config(wanted.name, wanted.value, false))
        FROM unnest(%s::text[], %s::text[]) AS wanted (name, value)
    """
    connection.query(statement, (list(_SESSION), list(_SESSION.values())))


@contextmanager
def snapshot(connection: Connection) -> Iterator[None]:
    """Let all statements see the same moment: that of the first one."""
    connection.query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    try:
        yield
    finally:
        end(connection)


def databases(connection: Connection) -> tuple[list[str], list[str]]:
    """Return the databases that allow connections, and those that don't."""
    rows = connection.query(_DATABASES)
    return [name for name, on in rows if on], [name for name, on in rows if not on]


def tables(
    connection: Connection, *, patient: bool = False
) -> tuple[list[Table], dict[str, str]]:
    """Return the tables with rows to compare, and those without, and why.

    Args:
        patient: also those that somebody keeps locked; who reads them waits.
    """
    found: list[Table] = []
    unread: dict[str, str] = {}
    for name, kind, persistence, populated, blocks, readable, busy in connection.query(
        _TABLES, (not patient,)
    ):
        reason = _reason(kind, persistence, populated, readable)
        if busy and not reason:
            reason = BUSY
        if reason:
            unread[name] = reason
        else:
            own = not name.startswith("pg_catalog.")
            found.append(Table(name, blocks, kind == "r" and own))
    return found, unread


def _reason(kind: str, persistence: str, populated: bool, readable: bool) -> str:
    if kind == "f":
        return "it is a foreign table: its rows are on another server"
    if persistence != "p":
        return "it is unlogged: recovery empties it"
    if not populated:
        return "it is not populated"
    if not readable:
        return FORBIDDEN
    return ""


def read_whole(connection: Connection, table: str) -> Content:
    """Return the content of a whole table.

    Raises:
        PostgresRefused: it could not be read.
    """
    statement = _ROWS.format(columns=_SUMS, table=table, sample="", group="")
    row = _rows(connection, statement)[0]
    return Content(row[0], digest(Block(*map(int, row))))


def read_blocks(
    connection: Connection, table: str, percent: float, seed: int, seconds: float = 0
) -> dict[int, Block]:
    """Return rows and hashes of chosen blocks; the choice hangs on no block's content.

    Args:
        percent: of the table's blocks.
        seed: the same one chooses the same blocks.
        seconds: that it may take; 0 is as long as it needs.

    Raises:
        PostgresRefused: the table could not be read.
    """
    sample = f"TABLESAMPLE SYSTEM ({percent!r}) REPEATABLE ({seed})"
    statement = _ROWS.format(
        columns=f"{_BLOCK}, {_SUMS}", table=table, sample=sample, group="GROUP BY 1"
    )
    return {
        row[0]: Block(*map(int, row[1:]))
        for row in _rows(connection, statement, seconds)
    }


def _rows(
    connection: Connection, statement: str, seconds: float = 0
) -> list[tuple[Any, ...]]:
    """Run a statement that may fail without harm to the transaction's snapshot."""
    with translated(connection), connection.transaction():
        if seconds:
            connection.query(f"SET LOCAL statement_timeout = {_milliseconds(seconds)}")
        return connection.execute(statement.encode()).fetchall()


def sequences(
    connection: Connection,
) -> tuple[dict[str, SequenceState], dict[str, str]]:
    """Return how far each sequence has come, and those that can't be read, and why."""
    rows = connection.query(_SEQUENCES)
    readable = [row for row in rows if row[5]]
    hidden = {
        row[0]: "the role may not read the sequence" for row in rows if not row[5]
    }
    states: dict[str, SequenceState] = {}
    for begin in range(0, len(readable), _AT_ONCE):
        states |= _states(connection, readable[begin : begin + _AT_ONCE])
    return states, hidden


def _states(
    connection: Connection, rows: Sequence[tuple[Any, ...]]
) -> dict[str, SequenceState]:
    statement = " UNION ALL ".join(
        f"SELECT {number}, last_value, is_called FROM {row[0]}"  # noqa: S608
        for number, row in enumerate(rows)
    )
    states = {}
    for number, last, called in _rows(connection, statement):
        name, increment, cache, cycle = rows[number][:4]
        reached = last if called else last - increment
        states[name] = SequenceState(reached, reached, increment, cache, cycle)
    return states


def begin(connection: Connection, names: Sequence[str], seconds: float) -> None:
    """Begin a transaction in which `hold` can follow; nothing is seen of it yet.

    Tables can't be dropped, emptied or rewritten until its end, as with `pg_dump`: old
    snapshots would not see the rows any more.

    Args:
        seconds: to wait for each table at most.

    Raises:
        PostgresRefused: a table was busy for longer, or is gone.
    """
    connection.query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    connection.query(f"SET LOCAL lock_timeout = {_milliseconds(seconds)}")
    _lock(connection, names, "ACCESS SHARE")
    connection.query(f"SET LOCAL lock_timeout = '{_SESSION['lock_timeout']}'")
    connection.query("SAVEPOINT held")


def hold(connection: Connection, names: Sequence[str], seconds: float) -> None:
    """Hold up all who write to tables, until `release`.

    Writers that have begun are waited for. They let go of a table only when their
    commit can be seen.

    Args:
        seconds: to wait at most.

    Raises:
        PostgresRefused: a table was busy for longer.
    """
    for setting in ("lock_timeout", "statement_timeout"):
        connection.query(f"SET LOCAL {setting} = {_milliseconds(seconds)}")
    _lock(connection, names, "SHARE")


def fix_snapshot(connection: Connection) -> None:
    """Let the transaction see the cluster as it is now, from here on."""
    connection.query("SELECT 1")


def release(connection: Connection) -> None:
    """Let writers go on; the snapshot that was taken meanwhile stays."""
    connection.query("ROLLBACK TO SAVEPOINT held")


def end(connection: Connection) -> None:
    """End the transaction, if the connection is still there to have one."""
    if not connection.closed and not connection.broken:
        connection.query("ROLLBACK")


def in_recovery(connection: Connection) -> bool:
    """Say whether the server is a standby, or recovers."""
    found: bool = connection.query("SELECT pg_is_in_recovery()")[0][0]
    return found


def place(connection: Connection) -> str:
    """Return the LSN that the server has come to in writing, or in replaying."""
    standby = in_recovery(connection)
    function = "pg_last_wal_replay_lsn" if standby else "pg_current_wal_insert_lsn"
    return str(connection.query(f"SELECT {function}()::text")[0][0])


def mark(connection: Connection, name: str) -> Moment:
    """Make a restore point, or on a standby take the place that replay has come to.

    Raises:
        PostgresRefused: the role may not call `pg_create_restore_point`.
    """
    if in_recovery(connection):
        return Moment(place(connection), None)
    row = connection.query("SELECT pg_create_restore_point(%s)::text", (name,))[0]
    return Moment(row[0], name)


def flush(connection: Connection) -> None:
    """Bring WAL to disk up to here, which an idle server takes its time for.

    A commit is seen only once it is on disk, so commits before come to be seen soon.
    """
    if not in_recovery(connection):
        with translated(connection), connection.transaction():
            connection.query("SET LOCAL synchronous_commit = local")
            connection.query("SELECT pg_logical_emit_message(true, 'drkit', '')")


def settled(connection: Connection, lsn: str) -> bool:
    """Say whether all that was committed before `lsn` is on its way to be seen.

    What waits for a standby's answer is not. On a standby itself there is nothing to
    wait for: it makes commits visible in the order of WAL.
    """
    if in_recovery(connection):
        return True
    found: bool = connection.query(_SETTLED, (lsn,))[0][0]
    return found


def _lock(connection: Connection, names: Sequence[str], mode: str) -> None:
    if names:
        listed = ", ".join(f"ONLY {name}" for name in names)
        connection.query(f"LOCK TABLE {listed} IN {mode} MODE")


def _milliseconds(seconds: float) -> int:
    return max(1, int(seconds * 1000))  # 0 would mean no limit
