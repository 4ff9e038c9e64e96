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

from psycopg import errors, sql

from drkit.errors import PostgresRefused
from drkit.model.lsn import Lsn
from drkit.postgres.connection import translated

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from drkit.postgres.connection import Connection

TABLE = "drkit.heartbeat"

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
_CREATE_TABLE = """
    CREATE TABLE drkit.heartbeat (
        id smallint PRIMARY KEY CHECK (id = 1),
        written_at timestamptz NOT NULL,
        lsn pg_lsn NOT NULL,
        host text NOT NULL,
        nonce text NOT NULL
    ) WITH (fillfactor = 10)
"""
_COMMENT = """
    COMMENT ON TABLE drkit.heartbeat IS
        'Written by drkit heartbeat; read back after a restore to tell its data age'
"""
# One at a time: IF NOT EXISTS does not keep two from creating the same at once.
_ONE_AT_A_TIME = "SELECT pg_advisory_xact_lock(hashtext('drkit.heartbeat'))"
_HAS_SCHEMA = "SELECT count(*) > 0 FROM pg_namespace WHERE nspname = 'drkit'"
# Triggers, rules and policies run with the rights of whoever writes: only those of an
# owner who could do anything anyway, or of drkit's own role, may run with drkit's.
_TABLE = """
    SELECT c.relkind::text, c.relpersistence::text, o.rolname,
        o.rolsuper OR o.rolname = current_user,
        (SELECT count(*) FROM pg_attribute AS a JOIN
            (VALUES ('id', 'int2'), ('written_at', 'timestamptz'), ('lsn', 'pg_lsn'),
                ('host', 'text'), ('nonce', 'text')) AS wanted (name, type)
            ON a.attname = wanted.name AND a.atttypid = wanted.type::regtype
            WHERE a.attrelid = c.oid AND NOT a.attisdropped) = 5
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
        JOIN pg_roles AS o ON o.oid = c.relowner
    WHERE n.nspname = 'drkit' AND c.relname = 'heartbeat'
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


class _Table(NamedTuple):
    """What the catalog says of `drkit.heartbeat`."""

    kind: str
    persistence: str
    owner: str
    trusted: bool
    known_columns: bool


def has_table(connection: Connection) -> bool:
    """Say whether this database has a heartbeat.

    Raises:
        PostgresRefused: it has something else of that name.
        PostgresUnreachable: the connection was lost.
    """
    return _table(connection) is not None


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
    role, database = _role(connection), connection.info.dbname
    hint = (
        f"let a superuser run in database {database}: CREATE SCHEMA IF NOT EXISTS "
        f"drkit; ALTER SCHEMA drkit OWNER TO {role}; then run this again"
    )
    with _writing(connection, hint):
        connection.query(_ONE_AT_A_TIME)
        if has_table(connection):
            return False
        if not connection.query(_HAS_SCHEMA)[0][0]:
            connection.execute("CREATE SCHEMA drkit")
        connection.execute(_CREATE_TABLE)
        connection.execute(_COMMENT)
    return True


def write(connection: Connection, host: str) -> Beat:
    """Write a heartbeat and commit it.

    Raises:
        PostgresRefused: the server takes no writes, there is no such table, it is not
            safe to write to, the role may not, or somebody has locked it.
        PostgresUnreachable: the connection was lost.
    """
    refuse_unless_writable(connection)
    table = _table(connection)
    if table is None:
        raise PostgresRefused(
            f"database {connection.info.dbname} has no table {TABLE}",
            hint="make it with `drkit heartbeat POLICY --create`",
        )
    if not table.trusted:
        raise PostgresRefused(
            f"{TABLE} belongs to {table.owner}, whose triggers would run with the "
            f"rights of {connection.info.user}",
            hint=f"ALTER TABLE {TABLE} OWNER TO {_role(connection)};",
        )
    with _writing(connection, _grants(connection)):
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
    with translated(connection), _explained(_grants(connection)):
        rows = connection.execute(_READ).fetchall()
    return _beat(*rows[0]) if rows else None


def _beat(written_at: datetime, lsn: str, host: str, nonce: str) -> Beat:
    return Beat(written_at.astimezone(UTC), Lsn.parse(lsn), host, nonce)


def _table(connection: Connection) -> _Table | None:
    """Look at the table; a view of that name would run its owner's code as us.

    Raises:
        PostgresRefused: there is something else of that name.
    """
    rows = connection.query(_TABLE)
    if not rows:
        return None
    table = _Table(*rows[0])
    if (table.kind, table.known_columns) != ("r", True):
        raise PostgresRefused(
            f"{TABLE} in database {connection.info.dbname} is not drkit's table",
            hint="rename it, or set heartbeat.database in the policy to another one",
        )
    if table.persistence != "p":
        raise PostgresRefused(
            f"{TABLE} is unlogged, so that no restore brings it back",
            hint=f"ALTER TABLE {TABLE} SET LOGGED;",
        )
    return table


@contextmanager
def _writing(connection: Connection, rights: str) -> Iterator[None]:
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
            f"the heartbeat was not written: {error.diag.message_primary}",
            hint=f"look in pg_locks at who holds {TABLE}, such as a VACUUM FULL",
        ) from None


def _grants(connection: Connection) -> str:
    role = _role(connection)
    return (
        f"let a superuser run in database {connection.info.dbname}: GRANT USAGE ON "
        f"SCHEMA drkit TO {role}; GRANT SELECT, INSERT, UPDATE ON {TABLE} TO {role};"
    )


def _role(connection: Connection) -> str:
    return sql.Identifier(connection.info.user).as_string(connection)
