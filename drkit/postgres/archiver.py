"""What the server's archiver last did, told to whoever waits for its WAL."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from drkit.errors import DrkitError

if TYPE_CHECKING:
    from collections.abc import Callable

    from drkit.postgres.connection import Connection

# The reset value is the command also where it is shown as "(disabled)".
_STATE = """
    SELECT pg_is_in_recovery(),
        a.last_archived_wal, a.last_failed_wal, a.last_failed_time::text,
        a.last_failed_time > coalesce(a.last_archived_time, '-infinity'),
        (SELECT reset_val FROM pg_settings WHERE name = 'archive_command'),
        coalesce(current_setting('archive_library', true), '')
    FROM pg_stat_archiver AS a
"""


def archiver_asker(connect: Callable[[], Connection]) -> Callable[[], str]:
    """Return what tells, in a clause of a sentence, how archiving goes.

    Args:
        connect: opens a session for nothing but this question.
    """

    def ask() -> str:
        try:
            connection = connect()
        except DrkitError as error:
            return _unasked(error)
        with closing(connection):
            return archiver_state(connection)

    return ask


def archiver_state(connection: Connection) -> str:
    """Tell, in a clause of a sentence, how archiving goes."""
    try:
        rows = connection.query(_STATE)
    except DrkitError as error:
        return _unasked(error)
    standby, archived, failed, when, failing, command, library = rows[0]
    if standby:
        return "the server is a standby: look at the archiving of its primary"
    by = f"archive_library is {library}" if library else f"archive_command is {command}"
    if not (command or library):
        return "archive_command is empty, so the server archives nothing"
    if failing:
        return f"archiving {failed} failed last at {when}; {by}"
    last = f"the last one archived was {archived}" if archived else "none was ever"
    return f"the server reports no failure, {last}; {by}"


def _unasked(error: DrkitError) -> str:
    return f"the server could not be asked why ({error.message})"
