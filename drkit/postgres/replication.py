"""Reading what `BASE_BACKUP` streams: results, archives, manifest.

Source of the protocol: PostgreSQL's documentation, "Streaming Replication Protocol",
and `src/backend/backup/basebackup_copy.c`. From version 15 on one COPY carries all
archives, each message with a letter in front; before, each archive is a COPY of its
own and the manifest the last one.
"""

from __future__ import annotations

import select
from typing import TYPE_CHECKING, NamedTuple

import psycopg
from psycopg import pq

from drkit.errors import PostgresRefused, PostgresUnreachable, SourceUnreadable
from drkit.model.lsn import Lsn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from psycopg.pq.abc import PGconn, PGresult

    from drkit.errors import DrkitError

_ONE_COPY = 150000
_POLL = 1.0  # seconds between chances for a signal handler to raise
_DATA_CORRUPTED = b"XX001"
_IO_ERROR = b"58030"
_GOING_DOWN = (b"57P", b"08")  # shutdown, crash, terminated; connection exceptions


class StreamStart(NamedTuple):
    """Where the backup begins; tablespaces by oid, None standing for the cluster's."""

    lsn: Lsn
    timeline: int
    archives: list[tuple[int | None, str]]


class ArchiveData(NamedTuple):
    """Bytes of the archive numbered `archive`, or of the manifest if that is None."""

    archive: int | None
    data: memoryview


class BaseBackupStream:
    """One `BASE_BACKUP` command on a replication connection."""

    def __init__(self, connection: PGconn) -> None:
        self._connection = connection
        self._ahead: PGresult | None = None
        self.notices: list[str] = []
        connection.notice_handler = self._notice

    def begin(self, label: str) -> StreamStart:
        """Send the command; return its first results."""
        self._connection.send_query(self._command(label).encode())
        start = self._rows(self._result())[0]
        archives = [
            (int(oid) if oid else None, location)
            for oid, location, *_ in self._rows(self._result())
        ]
        return StreamStart(Lsn.parse(start[0]), int(start[1]), archives)

    def data(
        self, archives: int, given_up: Callable[[], bool]
    ) -> Iterator[ArchiveData]:
        """Yield the archives' bytes one behind the other, then the manifest's.

        Args:
            given_up: asked now and then while the server sends nothing; the stream ends
                where it stands when it says so.
        """
        if self._connection.server_version >= _ONE_COPY:
            yield from self._one_copy(given_up)
            return
        for archive in (*range(archives), None):
            self._expect_copy()
            for data in self._messages(given_up):
                yield ArchiveData(archive, data)

    def end(self) -> tuple[Lsn, int, bool]:
        """Return where the backup ended, and whether the server met bad checksums.

        The server reports those only after it has sent everything.
        """
        position = self._rows(self._result())[0]
        corrupted = False
        while (result := self._result()) is not None:
            if result.status == pq.ExecStatus.FATAL_ERROR:
                if result.error_field(pq.DiagnosticField.SQLSTATE) != _DATA_CORRUPTED:
                    raise self._refused(result)
                corrupted = True
        return Lsn.parse(position[0]), int(position[1]), corrupted

    def close(self) -> None:
        """Close the connection; an unfinished backup ends with it."""
        self._connection.finish()

    def _command(self, label: str) -> str:
        quoted = "'" + label.replace("'", "''") + "'"
        if self._connection.server_version >= _ONE_COPY:
            return (
                f"BASE_BACKUP (LABEL {quoted}, CHECKPOINT 'fast', WAIT false, "
                "TABLESPACE_MAP true, MANIFEST 'yes')"
            )
        return f"BASE_BACKUP LABEL {quoted} FAST NOWAIT TABLESPACE_MAP MANIFEST 'yes'"

    def _one_copy(self, given_up: Callable[[], bool]) -> Iterator[ArchiveData]:
        self._expect_copy()
        archive: int | None = -1
        for message in self._messages(given_up):
            kind = message[0]
            if kind == ord("n") and archive is not None:
                archive += 1
            elif kind == ord("m"):
                archive = None
            elif kind == ord("d"):
                yield ArchiveData(archive, message[1:])

    def _messages(self, given_up: Callable[[], bool]) -> Iterator[memoryview]:
        while not given_up():
            try:
                count, data = self._connection.get_copy_data(1)
            except psycopg.Error as error:
                raise self._lost() from error
            if count > 0:
                yield memoryview(data)
            elif count == 0:
                self._wait()
            else:
                self._look_ahead()
                return

    def _look_ahead(self) -> None:
        """Raise what ended a copy early; a copy that ended well is followed by more."""
        self._ahead = self._result()
        if self._ahead is not None and self._ahead.status == pq.ExecStatus.FATAL_ERROR:
            raise self._refused(self._ahead)

    def _result(self) -> PGresult | None:
        if self._ahead is not None:
            ahead, self._ahead = self._ahead, None
            return ahead
        connection = self._connection
        while connection.is_busy():
            self._wait()
        return connection.get_result()

    def _wait(self) -> None:
        """Wait for bytes without holding up the other threads, or signals for long."""
        if select.select([self._connection.socket], [], [], _POLL)[0]:
            try:
                self._connection.consume_input()
            except psycopg.Error as error:
                raise self._lost() from error

    def _rows(self, result: PGresult | None) -> list[list[str]]:
        if result is None:
            raise self._lost()
        if result.status != pq.ExecStatus.TUPLES_OK:
            raise self._refused(result)
        return [
            [
                (result.get_value(row, column) or b"").decode(errors="surrogateescape")
                for column in range(result.nfields)
            ]
            for row in range(result.ntuples)
        ]

    def _expect_copy(self) -> None:
        result = self._result()
        if result is None:
            raise self._lost()
        if result.status != pq.ExecStatus.COPY_OUT:
            raise self._refused(result)

    def _refused(self, result: PGresult) -> DrkitError:
        state = result.error_field(pq.DiagnosticField.SQLSTATE) or b""
        primary = result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or b""
        message = primary.decode(errors="replace")
        lost = self._connection.status != pq.ConnStatus.OK
        if lost or state.startswith(_GOING_DOWN):
            return self._lost(message)
        if state == _IO_ERROR:
            return SourceUnreadable(
                f"the server can't read its own files: {message}",
                hint="the disk needs care; no backup was made, older ones are "
                "untouched",
            )
        return PostgresRefused(
            f"the server refused the base backup: {message}",
            hint="drkit's role needs REPLICATION, and pg_hba.conf a line for "
            "`replication`",
        )

    def _lost(self, message: str = "") -> PostgresUnreachable:
        message = message or self._connection.get_error_message().strip()
        return PostgresUnreachable(
            f"the connection was lost during the base backup: {message}",
            hint="see the server's log for the reason, then take a new backup",
        )

    def _notice(self, result: PGresult) -> None:
        message = result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or b""
        self.notices.append(message.decode(errors="replace"))
