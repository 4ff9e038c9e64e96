"""Sessions that another thread can end, whatever they wait for."""

from __future__ import annotations

import os
import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import psycopg

from drkit.errors import PostgresUnreachable
from drkit.postgres.connection import CANCEL_WITHIN

if TYPE_CHECKING:
    from collections.abc import Callable

    from drkit.postgres.connection import Connection


class _Opened(NamedTuple):
    connection: Connection
    line: socket.socket


class Interruptible:
    """Opens sessions as `connect` does, for one thread; `interrupt` is for another.

    The sessions belong to whoever opened them, who closes them as well.
    """

    def __init__(self, connect: Callable[[str | None], Connection]) -> None:
        self._connect = connect
        self._lock = threading.Lock()
        self._opened: list[_Opened] = []
        self._interrupted = False

    def __call__(self, database: str | None) -> Connection:
        """Open a session.

        Raises:
            PostgresUnreachable: no server answered, or it was interrupted.
            PostgresRefused: the login was refused.
        """
        return self.adopt(self._connect(database))

    def adopt(self, connection: Connection) -> Connection:
        """Take in a session that was opened elsewhere.

        Raises:
            PostgresUnreachable: it was interrupted.
        """
        # a descriptor of its own: the session's may be closed, and used by others
        line = socket.socket(fileno=os.dup(connection.fileno()))
        with self._lock:
            self._forget_closed()
            self._opened.append(_Opened(connection, line))
            interrupted = self._interrupted
        if interrupted:
            connection.close()
            raise PostgresUnreachable("the session was interrupted")
        return connection

    def interrupt(self) -> None:
        """Stop what the server does in these sessions, and cut them off."""
        with self._lock:
            self._interrupted = True
            opened = list(self._opened)
        for connection, line in opened:
            with suppress(psycopg.Error):
                connection.cancel_safe(timeout=CANCEL_WITHIN)
            with suppress(OSError):  # it has ended already
                line.shutdown(socket.SHUT_RDWR)

    def _forget_closed(self) -> None:
        """Let go of sessions that have ended: there may be many, one by one."""
        for _, line in (one for one in self._opened if one.connection.closed):
            line.close()
        self._opened = [one for one in self._opened if not one.connection.closed]

    def close(self) -> None:
        """Forget the sessions."""
        for _, line in self._opened:
            line.close()
