"""What a fingerprint asks about locks before it takes some, or when it could not."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from drkit.postgres.connection import Connection

_LOCK_ROOM = """
    SELECT current_setting('max_locks_per_transaction')::bigint
        * (current_setting('max_connections')::bigint
            + current_setting('max_prepared_transactions')::bigint)
"""
# Prepared transactions hold locks without a process.
_HOLDERS = """
    SELECT CASE WHEN a.pid IS NULL THEN 'a prepared transaction' ELSE 'process '
            || a.pid || ' (' || coalesce(nullif(a.application_name, ''),
            a.backend_type) || ')' END, l.relation::regclass::text
    FROM pg_locks l LEFT JOIN pg_stat_activity a USING (pid)
    WHERE l.locktype = 'relation' AND l.granted AND l.relation >= 16384
        AND l.pid IS DISTINCT FROM pg_backend_pid()
        AND l.mode IN ('RowExclusiveLock', 'ShareUpdateExclusiveLock',
            'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
        AND l.database = (SELECT oid FROM pg_database WHERE datname =
            current_database())
    ORDER BY a.xact_start NULLS FIRST LIMIT 1
"""


def lock_room(connection: Connection) -> int:
    """Return how many locks the server has room for, everybody's together."""
    found: int = connection.query(_LOCK_ROOM)[0][0]
    return found


def deadlock_timeout(connection: Connection) -> float:
    """Return the seconds after which who waits for a lock looks for a deadlock."""
    statement = """
        SELECT setting::float8 / 1000 FROM pg_settings WHERE name = 'deadlock_timeout'
    """
    found: float = connection.query(statement)[0][0]
    return found


def holders(connection: Connection) -> str:
    """Say who has been writing for long, as a clause; the likely cause of a wait."""
    rows = connection.query(_HOLDERS)
    return f"; {rows[0][0]} has a lock on {rows[0][1]}" if rows else ""
