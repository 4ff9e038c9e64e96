"""The heartbeat: written in production, read back after a restore.

What it says there of the recovered data's age is in `drkit.operations.rpo`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from drkit.postgres import heartbeat

if TYPE_CHECKING:
    from drkit.postgres.connection import Connection
    from drkit.postgres.heartbeat import Beat


def create_heartbeat(connection: Connection, host: str) -> tuple[bool, Beat]:
    """Make the table if need be, and write the first heartbeat.

    Returns:
        Whether the table is new, and the heartbeat.

    Raises:
        PostgresRefused: the role may not, or the server takes no writes.
        PostgresUnreachable: the connection was lost.
    """
    created = heartbeat.create(connection)
    return created, heartbeat.write(connection, host)


def beat(connection: Connection, host: str) -> Beat:
    """Write a heartbeat.

    Args:
        connection: to the database that has the table.
        host: where drkit runs.

    Raises:
        PostgresRefused: the server takes no writes, there is no table, or the role
            may not write to it.
        PostgresUnreachable: the connection was lost.
    """
    return heartbeat.write(connection, host)


def read_beat(connection: Connection) -> Beat | None:
    """Return the newest heartbeat of a server; None if it has none.

    Raises:
        PostgresRefused: the table is not drkit's, or can't be read.
        PostgresUnreachable: the connection was lost.
    """
    return heartbeat.read(connection)
