"""The heartbeat: a table of one row that says when it was written last.

Recovered, the row tells how old the data is: whatever was committed before it is there
as well. It is updated in place, on a page with room for many versions, so that each
write is a heap-only update and nothing grows.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from datetime import UTC
from typing import TYPE_CHECKING, NamedTuple

from psycopg import errors

from drkit.errors import PostgresRefused
from drkit.model.lsn import Lsn
from drkit.postgres.connection import translated
from drkit.postgres.heartbeat_table import (
    CREATE_TABLE,
    TABLE,
    look,
    quoted_role,
    refuse_foreign,
    refuse_surplus,
    schema_is_there,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from drkit.postgres.connection import Connection
    from drkit.postgres.heartbeat_table import Found

# A timer and every backup wait for it, so it waits for nobody for long; not for a
# synchronous standby either, since it says what the primary has.
_SETTINGS = """
    SELECT set_config('statement_timeout', '10s', true),
        set_config('lock_timeout', '2s', true),
        set_config('synchronous_commit', 'local', true)
"""
_STATE = """
    SELECT pg_is_in_recovery(), current_setting('default_transaction_read_only') = 'on'
"""
_COMMENT = """
    COMMENT ON TABLE drkit.heartbeat IS
        'Written by drkit heartbeat; read back after a restore to tell its data age'
"""
# One at a time: IF NOT EXISTS does not keep two from creating the same at once.
_ONE_AT_A_TIME = "SELECT pg_advisory_xact_lock(hashtext('drkit.heartbeat'))"
_LOCK = f"LOCK TABLE ONLY {TABLE} IN {{mode}} MODE"
# Nobody may alter the table or put it elsewhere; see `fingerprint_guard`.
_HOLD = f"""
    LOCK TABLE pg_catalog.pg_namespace IN SHARE MODE;
    LOCK TABLE ONLY {TABLE} IN SHARE UPDATE EXCLUSIVE MODE
"""
_COULD_DO_ALL = "SELECT current_setting('is_superuser') = 'on', pg_is_in_recovery()"
# Event triggers are called by what replicates only if they ask for it; from version 17
# on no session of drkit's calls any.
_AS_A_REPLICA = """
    SELECT set_config('session_replication_role', 'replica', true)
    WHERE current_setting('is_superuser') = 'on'
"""
_WRITE = """
    INSERT INTO drkit.heartbeat AS h (id, written_at, lsn, host, nonce)
    VALUES (1, clock_timestamp(), pg_current_wal_insert_lsn(), %s, %s)
    ON CONFLICT (id) DO UPDATE SET written_at = excluded.written_at,
        lsn = excluded.lsn, host = excluded.host, nonce = excluded.nonce
    RETURNING h.written_at, h.lsn::text, h.host, h.nonce
"""
_READ = "SELECT written_at, lsn::text, host, nonce FROM drkit.heartbeat WHERE id = 1"


class Beat(NamedTuple):
    """One heartbeat.

    Attributes:
        written_at: by the server's clock, just before it was committed.
        lsn: the server's insert position then.
        host: where drkit ran.
        nonce: 32 random hexadecimal digits, by which a beat is known again.
    """

    written_at: datetime
    lsn: Lsn
    host: str
    nonce: str


def has_table(connection: Connection) -> bool:
    """Say whether this database has a heartbeat.

    Raises:
        PostgresRefused: it has something else of that name.
        PostgresUnreachable: the connection was lost.
    """
    return look(connection) is not None


def refuse_unless_writable(connection: Connection) -> None:
    """Raise PostgresRefused for a server that takes no writes."""
    in_recovery, read_only = connection.query(_STATE)[0]
    if in_recovery:
        raise PostgresRefused(
            "the server is a standby and can't be written to",
            hint="write the heartbeat on the primary; it comes here with the WAL",
        )
    if read_only:
        raise PostgresRefused(
            "the server is read-only: default_transaction_read_only is on",
            hint="switch it off for drkit's role: ALTER ROLE … SET "
            "default_transaction_read_only = off; or go without a heartbeat",
        )


def create(connection: Connection) -> bool:
    """Create schema and table; return False if they were there.

    Raises:
        PostgresRefused: the role may not, the server takes no writes, or there is
            something else of that name.
        PostgresUnreachable: the connection was lost.
    """
    refuse_unless_writable(connection)
    role, database = quoted_role(connection), connection.info.dbname
    hint = (
        f"let a superuser run in database {database}: CREATE SCHEMA IF NOT EXISTS "
        f"drkit; ALTER SCHEMA drkit OWNER TO {role}; then run this again"
    )
    with _transaction(connection, hint):
        connection.query(_ONE_AT_A_TIME)
        connection.query(_AS_A_REPLICA)
        there = schema_is_there(connection)
        if there and has_table(connection):
            return False
        if not there:
            connection.execute("CREATE SCHEMA drkit")
        connection.execute(CREATE_TABLE)
        connection.execute(_COMMENT)
        _refuse_unsafe(connection, look(connection))
    return True


def write(connection: Connection, host: str) -> Beat:
    """Write a heartbeat and commit it.

    Raises:
        PostgresRefused: the server takes no writes, there is no such table, it is not
            safe to write to, the role may not, or somebody has locked it.
        PostgresUnreachable: the connection was lost.
    """
    refuse_unless_writable(connection)
    with _transaction(connection, _grants(connection)):
        _lock(connection, "ROW EXCLUSIVE")
        _refuse_unsafe(connection, look(connection))
        cursor = connection.execute(_WRITE, (host, os.urandom(16).hex()))
        return _beat(*cursor.fetchall()[0])


def read(connection: Connection) -> Beat | None:
    """Return the newest heartbeat; None if there is no such table or no row in it.

    Raises:
        PostgresRefused: there is something else of that name, or it can't be read.
        PostgresUnreachable: the connection was lost.
    """
    if not has_table(connection):
        return None
    with _transaction(connection, _grants(connection)):
        _lock(connection, "ACCESS SHARE")
        _hold_for_reading(connection)
        rows = connection.execute(_READ).fetchall()
    return _beat(*rows[0]) if rows else None


def _lock(connection: Connection, mode: str) -> None:
    """Keep everybody from altering the table while this transaction lasts."""
    try:
        connection.execute(_LOCK.format(mode=mode).encode())
    except (errors.UndefinedTable, errors.InvalidSchemaName):
        raise PostgresRefused(
            f"database {connection.info.dbname} has no table {TABLE}",
            hint="make it with `drkit heartbeat POLICY --create`",
        ) from None
    except errors.WrongObjectType:
        look(connection)
        raise


def _refuse_unsafe(connection: Connection, found: Found | None) -> None:
    """Refuse to write to a table that is not drkit's, and only that."""
    if found is None:
        raise PostgresRefused(f"{TABLE} was dropped just now", hint="try again")
    refuse_foreign(connection, found)
    refuse_surplus(connection, found)


def _hold_for_reading(connection: Connection) -> None:
    """Look that reading runs nobody's code, also where the table is somebody else's.

    So it is where a restored copy of another role's is looked at.
    """
    found = look(connection)
    superuser, standby = connection.query(_COULD_DO_ALL)[0]
    if superuser and found is not None and not found.trusted:
        if standby:
            refuse_foreign(connection, found)
        connection.execute(_HOLD.encode())
        found = look(connection)
    if found is None:
        raise PostgresRefused(f"{TABLE} was dropped just now", hint="try again")
    refuse_surplus(connection, found)


def _beat(written_at: datetime, lsn: str, host: str, nonce: str) -> Beat:
    return Beat(written_at.astimezone(UTC), Lsn.parse(lsn), host, nonce)


@contextmanager
def _transaction(connection: Connection, rights: str) -> Iterator[None]:
    """Run a transaction that is over soon, whatever is in its way."""
    with translated(connection), _explained(rights), connection.transaction():
        connection.query(_SETTINGS)
        yield


@contextmanager
def _explained(rights: str) -> Iterator[None]:
    """Say what to do about the errors that a heartbeat may meet.

    Args:
        rights: what to do where the role lacks them.
    """
    try:
        yield
    except errors.InsufficientPrivilege as error:
        message = f"PostgreSQL answered: {error.diag.message_primary}"
        raise PostgresRefused(message, hint=rights) from None
    except (errors.LockNotAvailable, errors.QueryCanceled) as error:
        raise PostgresRefused(
            f"the heartbeat was not come by: {error.diag.message_primary}",
            hint=f"look in pg_locks at who holds {TABLE}, such as a VACUUM FULL",
        ) from None


def _grants(connection: Connection) -> str:
    role = quoted_role(connection)
    return (
        f"let a superuser run in database {connection.info.dbname}: GRANT USAGE ON "
        f"SCHEMA drkit TO {role}; GRANT SELECT, INSERT, UPDATE ON {TABLE} TO {role};"
    )
