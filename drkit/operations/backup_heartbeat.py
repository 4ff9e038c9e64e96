"""The heartbeat that each backup takes along.

Functions here may run in another process, so they import what speaks with the server
when they run.
"""

from __future__ import annotations

from contextlib import closing

from drkit.errors import DrkitError


def beat_for_backup(
    url: str, password: str | None, database: str | None, host: str
) -> DrkitError | None:
    """Write a heartbeat where there is a table for it, so that each backup holds one.

    No backup fails for it: what went wrong is returned. On a standby there is nothing
    to do: what its primary wrote came with the WAL.

    Args:
        url: as for `connect` of `drkit.postgres.connection`, as the password is.
        database: that has the table, if there is one; None: the URL's.
        host: where drkit runs.
    """
    from drkit.postgres import heartbeat  # noqa: PLC0415
    from drkit.postgres.connection import connector  # noqa: PLC0415

    try:
        with closing(connector(url, password, "heartbeat")(database)) as connection:
            standby = connection.query("SELECT pg_is_in_recovery()")[0][0]
            if not standby and heartbeat.has_table(connection):
                heartbeat.write(connection, host)
    except DrkitError as error:
        return error
    return None
