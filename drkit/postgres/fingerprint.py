"""What a fingerprint asks a server for: tables' rows, sequences, and its moment.

Rows are compared as text, since not every type can be hashed; so all that shapes the
text is set first. The text of a row tells an empty value from NULL, and holds what
TOAST keeps apart. The hash is by bytes, whatever the collation.
"""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

from drkit.model.fingerprint import Content
from drkit.model.fingerprint_stable import Block, digest
from drkit.postgres.connection import translated
from drkit.postgres.fingerprint_guard import (
    BUSY,
    CODE,
    CODED,
    UNHELD,
    trusted,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

    from drkit.postgres.connection import Connection
    from drkit.postgres.fingerprint_guard import Guard

FORBIDDEN = "the role may not read it: grant it pg_read_all_data"
"""Why a table is not read, where more rights would help."""

# Beside what every session has: a backup must not wait for somebody's ALTER TABLE, and
# compiling takes longer than a sample.
_LOCK_TIMEOUT = "2s"
_PREPARE = f"""
    SET lock_timeout = '{_LOCK_TIMEOUT}'; SET jit = off;
    SET default_transaction_read_only = on
"""

_DATABASES = """
    SELECT datname::text, datallowconn FROM pg_database ORDER BY datname
"""
# With the two catalogs that hold large objects. A table being dropped has no size, and
# one being altered would be waited for.
_TABLES = f"""
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
        c.relkind <> 'f' AND has_table_privilege(c.oid, 'SELECT'), busy,
        NOT ({trusted("c.relowner")} AND {trusted("n.nspowner")}),
        c.oid IN ({CODED}), pg_is_in_recovery(), current_setting('is_superuser') = 'on'
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace,
        LATERAL (SELECT c.oid IN (SELECT relation FROM changing) AS busy) AS b
    WHERE c.relkind IN ('r', 'm', 'f') AND n.nspname !~ '^pg_(toast|temp)'
        AND (c.oid >= 16384 OR c.oid IN ('pg_catalog.pg_largeobject'::regclass,
            'pg_catalog.pg_largeobject_metadata'::regclass))
    ORDER BY 1
"""  # noqa: S608  made of constants
# As text by record_out, which is what a cast does; but a type's owner can make casts,
# and those would be taken. An alias with an asterisk is the whole row, even if a column
# has the alias's name. A sample can be taken of tables only: whatever else has come to
# bear the name is refused. Without OFFSET the row would be made into text twice.
_ROWS = """
    DECLARE drkit_rows NO SCROLL CURSOR FOR SELECT {columns} FROM (
        SELECT seen.ctid AS place,
            pg_catalog.textin(pg_catalog.record_out(seen.*)) COLLATE "C" AS content
        FROM ONLY {table} AS seen
            TABLESAMPLE pg_catalog.system ({percent!r}) REPEATABLE ({seed})
        OFFSET 0) AS r {group}
"""
_SUMS = (
    "count(*), coalesce(sum(hashtextextended(content, 0)), 0), "
    "coalesce(sum(hashtextextended(content, 6148914691236517205)), 0)"
)
_BLOCK = "(place::text::point)[0]::bigint"

_SETTLED = """
    SELECT pg_current_wal_flush_lsn() >= %s::pg_lsn AND NOT EXISTS
        (SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep')
"""


class Table(NamedTuple):
    """A table whose rows can be read.

    Attributes:
        name: qualified and quoted.
        blocks: its length, in blocks.
        lockable: whether LOCK TABLE takes it, which refuses materialized views.
        guarded: whether it takes a guard to read it: it is somebody else's.
    """

    name: str
    blocks: int
    lockable: bool
    guarded: bool


class Moment(NamedTuple):
    """A moment that recovery can reach again; a standby can't name it."""

    lsn: str
    restore_point: str | None


def prepare(connection: Connection) -> None:
    """Keep a session from writing and from waiting long."""
    connection.query(_PREPARE)


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
    connection: Connection, *, alone: bool = False
) -> tuple[list[Table], dict[str, str]]:
    """Return the tables with rows to compare, and those without, and why.

    Args:
        alone: nobody else is there, as in a restored copy: also those that are locked,
            which who reads them waits for, and those that hold somebody's code.
    """
    found: list[Table] = []
    unread: dict[str, str] = {}
    for row in connection.query(_TABLES, (not alone,)):
        name, kind, persistence, populated, blocks, readable, busy, *risk = row
        lockable = kind == "r" and not name.startswith("pg_catalog.")
        reason = _reason(kind, persistence, populated, readable)
        if not reason and not alone:
            reason = BUSY if busy else _risk(lockable, *risk)
        if reason:
            unread[name] = reason
        else:
            found.append(Table(name, blocks, lockable, risk[0]))
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


def _risk(
    lockable: bool, guarded: bool, coded: bool, standby: bool, superuser: bool
) -> str:
    if coded:
        return CODE
    unheld = superuser and guarded and (standby or not lockable)
    return UNHELD if unheld else ""


def read_whole(connection: Connection, table: Table, guard: Guard) -> Content:
    """Return the content of a whole table.

    Raises:
        PostgresRefused: it could not be read.
    """
    statement = _ROWS.format(
        columns=_SUMS, table=table.name, percent=100.0, seed=0, group=""
    )
    row = _rows(connection, table, statement, guard)[0]
    return Content(row[0], digest(Block(*map(int, row))))


def read_blocks(
    connection: Connection,
    table: Table,
    guard: Guard,
    percent: float,
    seed: int,
    seconds: float = 0,
) -> dict[int, Block]:
    """Return rows and hashes of chosen blocks; the choice hangs on no block's content.

    Args:
        percent: of the table's blocks.
        seed: the same one chooses the same blocks.
        seconds: that it may take; 0 is as long as it needs.

    Raises:
        PostgresRefused: the table could not be read.
    """
    statement = _ROWS.format(
        columns=f"{_BLOCK}, {_SUMS}",
        table=table.name,
        percent=percent,
        seed=seed,
        group="GROUP BY 1",
    )
    return {
        row[0]: Block(*map(int, row[1:]))
        for row in _rows(connection, table, statement, guard, seconds)
    }


def _rows(
    connection: Connection,
    table: Table,
    declaration: str,
    guard: Guard,
    seconds: float = 0,
) -> list[tuple[Any, ...]]:
    """Run a statement that may fail without harm to the transaction's snapshot.

    It is planned when its cursor is declared, and that alone is guarded.
    """
    with translated(connection), connection.transaction():
        if seconds:
            connection.query(f"SET LOCAL statement_timeout = {_milliseconds(seconds)}")
        with _guarding(guard, connection, table):
            connection.execute(declaration.encode())
        found = connection.execute("FETCH ALL FROM drkit_rows").fetchall()
        connection.execute("CLOSE drkit_rows")
        return found


def _guarding(
    guard: Guard, connection: Connection, table: Table
) -> AbstractContextManager[None]:
    if not table.guarded:
        return nullcontext()
    return guard.over_table(connection, table.name, lockable=table.lockable)


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
    connection.query(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'")
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
