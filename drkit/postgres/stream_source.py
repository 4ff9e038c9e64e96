"""A base backup that the server streams over a replication connection.

One thread reads the stream and hands buffers to the others, which verify pages and
write.
"""

from __future__ import annotations

import os
import queue
import re
import threading
from typing import TYPE_CHECKING, NamedTuple

from drkit import workers
from drkit.errors import Corrupt, PostgresRefused
from drkit.model.copied import BackupEnd, Copied, CopiedFile
from drkit.model.manifest import FileKind, Tablespace, WalPosition
from drkit.postgres.damage import PageChecker
from drkit.postgres.exclusions import RelationFile, relation_file
from drkit.postgres.facts import read_facts
from drkit.postgres.tar import Member, MemberKind, TarSplitter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from drkit.model.manifest import ServerDescription
    from drkit.postgres.connection import Connection
    from drkit.postgres.facts import ServerFacts
    from drkit.postgres.replication import BaseBackupStream, StreamStart
    from drkit.protocols import Clock, ContentWriter, Progress

_BUFFER = 2 << 20
_WAIT = 0.2  # seconds between looks at whether another thread failed
_MODE = 0o777
_MANIFEST = b"backup_manifest"
_TABLESPACE = re.compile(rb"pg_tblspc/[0-9]+\Z")
_KEPT_BESIDE = {b"backup_label", b"tablespace_map"}


class _Piece(NamedTuple):
    number: int
    relation: RelationFile | None
    position: int
    buffer: bytearray
    length: int


class StreamSource:
    """Reads a cluster through `BASE_BACKUP`, as from another host or container.

    Args:
        connection: an ordinary one, for what the stream does not tell.
        stream: on a replication connection.
    """

    def __init__(
        self,
        connection: Connection,
        stream: BaseBackupStream,
        facts: ServerFacts,
        server: ServerDescription,
        clock: Clock,
    ) -> None:
        self._connection = connection
        self._stream = stream
        self._facts = facts
        self._server = server
        self._clock = clock
        self._begun: StreamStart | None = None
        self._receiving: _Receiving | None = None

    def start(self, label: str) -> WalPosition:
        """Send `BASE_BACKUP` with an immediate checkpoint."""
        self._begun = self._stream.begin(label)
        begun = self._begun
        return WalPosition(begun.lsn, begun.timeline, self._clock.now())

    def copy(self, writers: Sequence[ContentWriter], progress: Progress) -> Copied:
        """Receive everything; one thread per writer beside the one that receives."""
        if self._begun is None:
            raise ValueError("copy before start")
        progress.phase("copy")
        receiving = _Receiving(self._begun, self._checker(), progress, len(writers))
        self._receiving = receiving
        archives = len(self._begun.archives)

        def receive(stop: workers.Stop) -> None:
            try:
                for archive, data in self._stream.data(archives, stop.is_set):
                    receiving.take(archive, data, stop)
                if not stop.is_set():
                    receiving.finish(stop)
            finally:
                receiving.end(len(writers))

        workers.run([receive, *(receiving.worker(writer) for writer in writers)])
        return receiving.copied(self._tablespaces())

    def stop(self) -> BackupEnd:
        """Read the end of the backup from the stream."""
        lsn, timeline, corrupted = self._stream.end()
        receiving = self._receiving
        if receiving is None or self._begun is None:
            raise ValueError("stop before copy")
        if corrupted and not (receiving.damaged or receiving.torn_maps()):
            raise Corrupt(
                "the server met pages with a wrong checksum that drkit did not: "
                + "; ".join(self._stream.notices),
                hint="check the cluster with pg_checksums or amcheck",
            )
        if timeline != self._begun.timeline:
            raise PostgresRefused(
                f"the server went from timeline {self._begun.timeline} to {timeline} "
                "during the backup",
                hint="take a new backup",
            )
        position = WalPosition(lsn, timeline, self._clock.now())
        beside = receiving.beside
        return BackupEnd(
            position,
            bytes(beside.get(b"backup_label", b"")),
            bytes(beside.get(b"tablespace_map", b"")),
        )

    def close(self) -> None:
        """Close both connections; the server ends an unfinished backup."""
        self._stream.close()
        self._connection.close()

    def _checker(self) -> PageChecker | None:
        if not self._facts.data_checksums or self._begun is None:
            return None
        return PageChecker(
            self._begun.lsn, self._insert_lsn, self._server.relation_segment_size
        )

    def _insert_lsn(self) -> int:
        return read_facts(self._connection).insert_lsn

    def _tablespaces(self) -> list[Tablespace]:
        names = {one.oid: one.name for one in self._facts.tablespaces}
        begun = self._begun.archives if self._begun else []
        return [
            Tablespace(
                oid, location, names.get(oid, str(oid)), not location.startswith("/")
            )
            for oid, location in begun
            if oid is not None
        ]


class _Receiving:
    """What the receiving thread and the writing ones share."""

    def __init__(
        self,
        begun: StreamStart,
        checker: PageChecker | None,
        progress: Progress,
        writers: int,
    ) -> None:
        self._begun = begun
        self._checker = checker
        self._progress = progress
        self._splitter = TarSplitter()
        self._archive: int | None = 0
        self._files: list[CopiedFile] = []
        self._numbers: dict[bytes, int] = {}
        self._into: bytearray | None = None
        self._file: tuple[int, RelationFile | None] | None = None
        self._position = self._filled = 0
        self._buffer = bytearray()
        self._lock = threading.Lock()
        self._spare: queue.SimpleQueue[bytearray] = queue.SimpleQueue()
        self._full: queue.SimpleQueue[_Piece | None] = queue.SimpleQueue()
        for _ in range(2 * writers + 1):
            self._spare.put(bytearray(_BUFFER))
        self.beside: dict[bytes, bytearray] = {}
        self.damaged: list[tuple[int, int]] = []
        self._warnings: list[str] = []

    def take(self, archive: int | None, data: memoryview, stop: workers.Stop) -> None:
        """Take the next bytes of an archive, or of the manifest."""
        if archive != self._archive:
            self._next_archive(archive, stop)
        if archive is None:
            self._content(data, stop)
            return
        for item in self._splitter.feed(data):
            if isinstance(item, Member):
                self._member(item, stop)
            else:
                self._content(item, stop)

    def finish(self, stop: workers.Stop) -> None:
        """Hand over what is left when the stream has ended."""
        self._next_archive(-1, stop)

    def end(self, writers: int) -> None:
        """Tell the writing threads that nothing more comes."""
        for _ in range(writers):
            self._full.put(None)

    def worker(self, writer: ContentWriter) -> Callable[[workers.Stop], None]:
        """Return a task that verifies and writes pieces until none come."""

        def work(stop: workers.Stop) -> None:
            while not stop.is_set():
                piece = self._full.get()
                if piece is None:
                    return
                view = memoryview(piece.buffer)[: piece.length]
                if piece.relation and self._checker:
                    self._verify(piece, piece.relation, view)
                writer.add(piece.number, piece.position, view)
                self._progress.advance(piece.length)
                self._spare.put(piece.buffer)

        return work

    def copied(self, tablespaces: list[Tablespace]) -> Copied:
        """Return what was received."""
        return Copied(
            list(self._files), tablespaces, sorted(self.damaged), self._warnings
        )

    def torn_maps(self) -> int:
        """Count pages of free space and visibility maps that the server met as well."""
        return self._checker.torn_maps if self._checker else 0

    def _next_archive(self, archive: int | None, stop: workers.Stop) -> None:
        self._flush(stop)
        if not self._splitter.at_end():
            raise PostgresRefused("the server's base backup ended inside a file")
        self._splitter = TarSplitter()
        self._archive = archive
        self._file = self._into = None
        if archive is None:
            self._begin_file(_MANIFEST, FileKind.ATTACHMENT, 0o600, 0, 0)

    def _member(self, member: Member, stop: workers.Stop) -> None:
        self._flush(stop)
        self._file = self._into = None
        path = self._path(member.name)
        if path in _KEPT_BESIDE:
            self._into = self.beside.setdefault(path, bytearray())
        elif member.kind is MemberKind.FILE:
            mode = member.mode & _MODE
            self._begin_file(path, FileKind.FILE, mode, member.size, member.mtime)
        elif path:
            # The server sends what is in a tablespace, but not pg_tblspc/<oid> itself.
            parent = path.rpartition(b"/")[0]
            for each in (parent, path) if _TABLESPACE.match(parent) else (path,):
                mode = member.mode & _MODE or 0o700
                self._begin_file(each, FileKind.DIRECTORY, mode, 0, member.mtime)

    def _begin_file(
        self, path: bytes, kind: FileKind, mode: int, size: int, mtime: int
    ) -> None:
        if path in self._numbers:
            return  # a tablespace's own directory comes again in its archive
        number = len(self._files)
        self._numbers[path] = number
        self._files.append(CopiedFile(path, kind, mode, size, mtime))
        if kind is not FileKind.DIRECTORY:
            self._file = (number, relation_file(path))
            self._position = self._filled = 0

    def _content(self, data: memoryview, stop: workers.Stop) -> None:
        if self._into is not None:
            self._into += data
            return
        while data and self._file is not None:
            if not self._buffer:
                self._buffer = self._next_buffer(stop)
                if stop.is_set():
                    return
            room = _BUFFER - self._filled
            part = data[:room]
            self._buffer[self._filled : self._filled + len(part)] = part
            self._filled += len(part)
            data = data[len(part) :]
            if self._filled == _BUFFER:
                self._flush(stop)

    def _flush(self, stop: workers.Stop) -> None:
        if not self._filled or self._file is None or stop.is_set():
            return
        number, relation = self._file
        piece = _Piece(number, relation, self._position, self._buffer, self._filled)
        self._full.put(piece)
        self._position += self._filled
        self._filled, self._buffer = 0, bytearray()
        if self._files[number].kind is FileKind.ATTACHMENT:
            self._files[number] = self._files[number]._replace(size=self._position)

    def _next_buffer(self, stop: workers.Stop) -> bytearray:
        while not stop.is_set():
            try:
                return self._spare.get(timeout=_WAIT)
            except queue.Empty:
                continue
        return bytearray()

    def _verify(self, piece: _Piece, relation: RelationFile, view: memoryview) -> None:
        if self._checker is None:
            return
        blocks = self._checker.damaged(relation, view, piece.position, None)
        path = os.fsdecode(self._files[piece.number].path)
        for block in blocks:
            with self._lock:
                self.damaged.append((piece.number, block))
            self._progress.warning(
                f"page {block} of {path} is damaged: its checksum is wrong",
                file=path,
                block=block,
            )

    def _path(self, name: bytes) -> bytes:
        """Return a member's path under the data directory."""
        name = name.rstrip(b"/").removeprefix(b"./")
        oid = (
            self._begun.archives[self._archive][0]
            if self._archive is not None
            else None
        )
        if oid is None:
            return b"" if name == b"." else name
        prefix = f"pg_tblspc/{oid}".encode()
        return prefix if name in (b"", b".") else prefix + b"/" + name
