"""What a server answers on a replication connection.

Waiting for it holds up neither the other threads nor, for long, a signal.
"""

from __future__ import annotations

import select
from typing import TYPE_CHECKING

import psycopg
from psycopg import pq

from drkit.errors import PostgresRefused, PostgresUnreachable, SourceUnreadable
from drkit.postgres.connection import ready

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from psycopg.pq.abc import PGconn, PGresult

    from drkit.errors import DrkitError

_IO_ERROR = b"58030"
_RIGHTS = "drkit's role needs REPLICATION, and pg_hba.conf a line for `replication`"
_GOING_DOWN = (b"57P", b"08")  # shutdown, crash, terminated; connection exceptions


class Replies:
    """The results of the commands that were sent on one connection, in order.

    Every method raises PostgresUnreachable where the connection is lost, and what
    `refused` returns where the server answers with an error.

    Attributes:
        notices: what the server has warned of.
    """

    def __init__(self, connection: PGconn) -> None:
        self.notices: list[str] = []
        self._connection = connection
        self._ahead: PGresult | None = None
        connection.notice_handler = self._notice

    def messages(self, given_up: Callable[[], bool]) -> Iterator[memoryview]:
        """Yield what a COPY sends, until it ends or the caller has given up."""
        while not given_up():
            try:
                count, data = self._connection.get_copy_data(1)
            except psycopg.Error as error:
                raise self.lost() from error
            if count > 0:
                yield memoryview(data)
            elif count == 0:
                self._wait()
            else:
                self._look_ahead()
                return

    def result(self) -> PGresult | None:
        """Return the next result; None if a command has no more."""
        if self._ahead is not None:
            ahead, self._ahead = self._ahead, None
            return ahead
        connection = self._connection
        while connection.is_busy():
            self._wait()
        return connection.get_result()

    def rows(self) -> list[list[str]]:
        """Return the next result, which must be of rows."""
        result = self.result()
        if result is None:
            raise self.lost()
        if result.status != pq.ExecStatus.TUPLES_OK:
            raise self.refused(result)
        return [
            [
                (result.get_value(row, column) or b"").decode(errors="surrogateescape")
                for column in range(result.nfields)
            ]
            for row in range(result.ntuples)
        ]

    def expect(self, status: pq.ExecStatus) -> None:
        """Take the next result, which must be of this status."""
        result = self.result()
        if result is None:
            raise self.lost()
        if result.status != status:
            raise self.refused(result)

    def refused(self, result: PGresult) -> DrkitError:
        """Return the error that a result stands for."""
        state = result.error_field(pq.DiagnosticField.SQLSTATE) or b""
        primary = result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or b""
        message = primary.decode(errors="replace")
        lost = self._connection.status != pq.ConnStatus.OK
        if lost or state.startswith(_GOING_DOWN):
            return self.lost(message)
        if state == _IO_ERROR:
            return SourceUnreadable(
                f"the server can't read its own files: {message}",
                hint="the disk needs care; no backup was made, older ones are "
                "untouched",
            )
        hint = (result.error_field(pq.DiagnosticField.MESSAGE_HINT) or b"").decode(
            errors="replace"
        )
        return PostgresRefused(
            f"the server refused the base backup: {message}", hint=hint or _RIGHTS
        )

    def lost(self, message: str = "") -> PostgresUnreachable:
        """Return the error for a connection that is gone."""
        message = message or self._connection.get_error_message().strip()
        return PostgresUnreachable(
            f"the connection was lost during the base backup: {message}",
            hint="see the server's log for the reason, then take a new backup",
        )

    def _look_ahead(self) -> None:
        """Raise what ended a copy early; a copy that ended well is followed by more."""
        self._ahead = self.result()
        if self._ahead is not None and self._ahead.status == pq.ExecStatus.FATAL_ERROR:
            raise self.refused(self._ahead)

    def _wait(self) -> None:
        """Wait for bytes without holding up the other threads, or signals for long."""
        if ready(self._connection, select.POLLIN):
            try:
                self._connection.consume_input()
            except psycopg.Error as error:
                raise self.lost() from error

    def _notice(self, result: PGresult) -> None:
        message = result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or b""
        self.notices.append(message.decode(errors="replace"))
