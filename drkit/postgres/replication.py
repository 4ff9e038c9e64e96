"""Reading what `BASE_BACKUP` streams: results, archives, manifest.

Source of the protocol: PostgreSQL's documentation, "Streaming Replication Protocol",
and `src/backend/backup/basebackup_copy.c`. From version 15 on one COPY carries all
archives, each message with a letter in front; before, each archive is a COPY of its
own and the manifest the last one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import psycopg
from psycopg import pq

from drkit.model.lsn import Lsn
from drkit.postgres.replies import Replies

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from psycopg.pq.abc import PGconn

_ONE_COPY = 150000
_CHUNK = 64 << 10
_DATA_CORRUPTED = b"XX001"


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
    """One `BASE_BACKUP` command on a replication connection.

    Args:
        connect: opens another connection like `connection`.
    """

    def __init__(self, connection: PGconn, connect: Callable[[], PGconn]) -> None:
        self._connection = connection
        self._connect = connect
        self._replies = Replies(connection)

    @property
    def notices(self) -> list[str]:
        """What the server has warned of."""
        return self._replies.notices

    def begin(self, label: str) -> StreamStart:
        """Ask for a full backup; return where it begins."""
        return self._begin(label)

    def begin_incremental(self, label: str, manifest: bytes) -> StreamStart:
        """Ask for what changed since another backup; return where this one begins.

        The server may need its WAL summarizer to catch up, and waits as long as that
        makes headway.

        Args:
            manifest: what the server sent as the other backup's.

        Raises:
            PostgresRefused: the server has a reason not to; see `reconnect`.
        """
        self._upload(manifest)
        return self._begin(label, incremental=True)

    def reconnect(self) -> None:
        """Drop the connection with what it began, and use a new one."""
        self._connection.finish()
        self._connection = self._connect()
        self._replies = Replies(self._connection)

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
            self._replies.expect(pq.ExecStatus.COPY_OUT)
            for data in self._replies.messages(given_up):
                yield ArchiveData(archive, data)

    def end(self) -> tuple[Lsn, int, bool]:
        """Return where the backup ended, and whether the server met bad checksums.

        The server reports those only after it has sent everything.
        """
        position = self._replies.rows()[0]
        corrupted = False
        while (result := self._replies.result()) is not None:
            if result.status == pq.ExecStatus.FATAL_ERROR:
                if result.error_field(pq.DiagnosticField.SQLSTATE) != _DATA_CORRUPTED:
                    raise self._replies.refused(result)
                corrupted = True
        return Lsn.parse(position[0]), int(position[1]), corrupted

    def close(self) -> None:
        """Close the connection; an unfinished backup ends with it."""
        self._connection.finish()

    def _upload(self, manifest: bytes) -> None:
        self._connection.send_query(b"UPLOAD_MANIFEST")
        self._replies.expect(pq.ExecStatus.COPY_IN)
        try:
            for start in range(0, len(manifest), _CHUNK):
                self._connection.put_copy_data(manifest[start : start + _CHUNK])
            self._connection.put_copy_end()
        except psycopg.Error as error:
            raise self._replies.lost() from error
        self._replies.expect(pq.ExecStatus.COMMAND_OK)
        while self._replies.result() is not None:
            pass

    def _begin(self, label: str, *, incremental: bool = False) -> StreamStart:
        command = self._command(label, incremental=incremental)
        self._connection.send_query(command.encode())
        start = self._replies.rows()[0]
        archives = [
            (int(oid) if oid else None, location)
            for oid, location, *_ in self._replies.rows()
        ]
        return StreamStart(Lsn.parse(start[0]), int(start[1]), archives)

    def _command(self, label: str, *, incremental: bool) -> str:
        quoted = "'" + label.replace("'", "''") + "'"
        if self._connection.server_version >= _ONE_COPY:
            more = ", INCREMENTAL true" if incremental else ""
            return (
                f"BASE_BACKUP (LABEL {quoted}, CHECKPOINT 'fast', WAIT false, "
                f"TABLESPACE_MAP true, MANIFEST 'yes'{more})"
            )
        return f"BASE_BACKUP LABEL {quoted} FAST NOWAIT TABLESPACE_MAP MANIFEST 'yes'"

    def _one_copy(self, given_up: Callable[[], bool]) -> Iterator[ArchiveData]:
        self._replies.expect(pq.ExecStatus.COPY_OUT)
        archive: int | None = -1
        for message in self._replies.messages(given_up):
            kind = message[0]
            if kind == ord("n") and archive is not None:
                archive += 1
            elif kind == ord("m"):
                archive = None
            elif kind == ord("d"):
                yield ArchiveData(archive, message[1:])
