"""A base backup read from the data directory, on the database's own host."""

from __future__ import annotations

import os
import queue
import threading
from typing import TYPE_CHECKING, NamedTuple

from drkit import workers
from drkit.errors import PostgresUnreachable, SourceUnreadable
from drkit.model.copied import BackupEnd, Copied, CopiedFile
from drkit.model.manifest import CONTROL_FILE, FileKind, WalPosition
from drkit.postgres.control import read_control
from drkit.postgres.damage import PageChecker
from drkit.postgres.exclusions import RelationFile, relation_file
from drkit.postgres.facts import read_facts
from drkit.postgres.pages import PAGE
from drkit.postgres.scan import Found, FoundFile, scan
from drkit.postgres.session import BackupSession

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from drkit.model.manifest import ServerDescription
    from drkit.postgres.connection import Connection
    from drkit.postgres.facts import ServerFacts
    from drkit.protocols import Clock, ContentWriter, Progress

_PIECE = 64 << 20  # what one worker takes of a large file at a time


class _Piece(NamedTuple):
    number: int
    file: FoundFile
    start: int
    end: int


class LocalSource:
    """Reads a cluster's files in parallel, between pg_backup_start and pg_backup_stop.

    Args:
        connection: held open for as long as the backup runs.
        facts: of the server that runs on `data_directory`.
        server: the same server, as the manifest describes it.
    """

    def __init__(
        self,
        connection: Connection,
        facts: ServerFacts,
        server: ServerDescription,
        data_directory: str,
        clock: Clock,
    ) -> None:
        self._connection = connection
        self._session = BackupSession(connection)
        self._facts = facts
        self._server = server
        self._data_directory = data_directory
        self._clock = clock
        self._start: WalPosition | None = None

    def start(self, label: str) -> WalPosition:
        """Run pg_backup_start with an immediate checkpoint."""
        lsn = self._session.start(label)
        self._start = WalPosition(lsn, self._facts.timeline, self._clock.now())
        return self._start

    def copy(self, writers: Sequence[ContentWriter], progress: Progress) -> Copied:
        """Read all files, one thread per writer, and `pg_control` after all others."""
        names = {one.oid: one.name for one in self._facts.tablespaces}
        found = scan(self._data_directory, names, self._server.catalog_version)
        progress.phase("copy", sum(file.size for file in found.files))
        reading = _Reading(found, self._checker(), progress)
        tasks = [reading.worker(writer) for writer in writers]
        workers.run(tasks, watch=self._check_session)
        self._check_session()
        control = self._copy_control(found, writers[0])
        return reading.copied(control)

    def stop(self) -> BackupEnd:
        """Run pg_backup_stop; its WAL is switched, not waited for."""
        lsn, label, tablespace_map = self._session.stop()
        position = WalPosition(lsn, self._facts.timeline, self._clock.now())
        return BackupEnd(position, label, tablespace_map)

    def close(self) -> None:
        """Close the connection; the server ends a backup that was not stopped."""
        self._connection.close()

    def _check_session(self) -> None:
        if not self._session.alive():
            raise PostgresUnreachable(
                "the session that holds the backup open was lost, and the backup with "
                "it",
                hint="see the server's log for the reason, then take a new backup",
            )

    def _insert_lsn(self) -> int:
        return read_facts(self._connection).insert_lsn

    def _checker(self) -> PageChecker | None:
        if not self._facts.data_checksums or self._start is None:
            return None
        return PageChecker(
            self._start.lsn, self._insert_lsn, self._server.relation_segment_size
        )

    def _copy_control(self, found: Found, writer: ContentWriter) -> dict[int, int]:
        for number, file in enumerate(found.files):
            if file.path == CONTROL_FILE:
                _, content = read_control(os.fsdecode(file.place))
                writer.add(number, 0, content)
                return {number: len(content)}
        raise SourceUnreadable(
            f"there is no global/pg_control in {self._data_directory}",
            hint="check `cluster.data_directory` in the policy",
        )


class _Reading:
    """The shared state of the threads that read one cluster."""

    def __init__(
        self,
        found: Found,
        checker: PageChecker | None,
        progress: Progress,
    ) -> None:
        self._found = found
        self._checker = checker
        self._progress = progress
        self._lock = threading.Lock()
        self._ends: dict[int, int] = {}
        self._vanished: set[int] = set()
        self._damaged: list[tuple[int, int]] = []
        self._pieces: queue.SimpleQueue[_Piece] = queue.SimpleQueue()
        for piece in _cut(found.files):
            self._pieces.put(piece)

    def worker(self, writer: ContentWriter) -> Callable[[workers.Stop], None]:
        """Return a task that reads pieces until none is left."""

        def work(stop: workers.Stop) -> None:
            while not stop.is_set():
                try:
                    piece = self._pieces.get_nowait()
                except queue.Empty:
                    return
                self._read(piece, writer, stop)

        return work

    def copied(self, control: dict[int, int]) -> Copied:
        """Return what was read, sizes as they were read and not as they were listed."""
        ends = self._ends | control
        files: list[CopiedFile | None] = []
        for number, file in enumerate(self._found.files):
            gone = number in self._vanished and number not in ends
            size = ends.get(number, 0)
            entry = CopiedFile(file.path, file.kind, file.mode, size, file.mtime)
            files.append(None if gone else entry)
        found = self._found
        return Copied(files, found.tablespaces, sorted(self._damaged), found.warnings)

    def _read(self, piece: _Piece, writer: ContentWriter, stop: workers.Stop) -> None:
        path = os.fsdecode(piece.file.place)
        try:
            descriptor = os.open(piece.file.place, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            with self._lock:
                self._vanished.add(piece.number)
            return
        except OSError as error:
            raise _unreadable(path, piece.start, error) from error
        try:
            self._read_open(descriptor, piece, writer, stop)
        finally:
            os.close(descriptor)

    def _read_open(
        self, descriptor: int, piece: _Piece, writer: ContentWriter, stop: workers.Stop
    ) -> None:
        path = os.fsdecode(piece.file.place)
        relation = relation_file(piece.file.path)
        unit = PAGE if relation else 1
        position = piece.start
        while position < piece.end and not stop.is_set():
            space = writer.space(unit)
            want = min(len(space) // unit * unit, piece.end - position)
            count = _read_full(path, descriptor, space[:want], position)
            if relation and self._checker:
                self._verify(descriptor, piece, relation, space[:count], position)
            writer.took(piece.number, position, count)
            position += count
            self._note(piece.number, position if count else 0, count)
            if count < want:
                return  # truncated since it was listed; WAL replay truncates it too

    def _verify(
        self,
        descriptor: int,
        piece: _Piece,
        relation: RelationFile,
        pages: memoryview,
        position: int,
    ) -> None:
        place = os.fsdecode(piece.file.place)

        def reread(page: memoryview, at: int) -> int:
            return _read_full(place, descriptor, page, at)

        if self._checker is None:
            return
        blocks = self._checker.damaged(relation, pages, position, reread)
        for block in blocks:
            with self._lock:
                self._damaged.append((piece.number, block))
            self._progress.warning(
                f"page {block} of {os.fsdecode(piece.file.path)} is damaged: its "
                "checksum stayed wrong when it was read again",
                file=os.fsdecode(piece.file.path),
                block=block,
            )

    def _note(self, number: int, end: int, count: int) -> None:
        with self._lock:
            self._ends[number] = max(self._ends.get(number, 0), end)
        self._progress.advance(count)


def _cut(files: list[FoundFile]) -> list[_Piece]:
    """Return what there is to read: large files in pieces and first, then the rest.

    The last thing that is read should be small, so that no thread waits for another.
    """
    pieces = [
        _Piece(number, file, start, min(start + _PIECE, file.size))
        for number, file in enumerate(files)
        if file.kind is FileKind.FILE and file.path != CONTROL_FILE
        for start in range(0, file.size, _PIECE)
    ]
    pieces.sort(key=lambda piece: piece.end - piece.start < _PIECE // 16)
    return pieces


def _read_full(path: str, descriptor: int, into: memoryview, position: int) -> int:
    """Read until `into` is full or the file ends; return the count of bytes."""
    done = 0
    while done < len(into):
        try:
            count = os.preadv(descriptor, [into[done:]], position + done)
        except OSError as error:
            # the kernel hands over what it could read before it tells of an error
            raise _unreadable(path, position + done, error) from error
        if count == 0:
            break
        done += count
    return done


def _unreadable(path: str, position: int, error: OSError) -> SourceUnreadable:
    return SourceUnreadable(
        f"can't read {path} at block {position // PAGE}: {error.strerror}",
        hint="the disk or the permissions need care; no backup was made, older ones "
        "are untouched",
    )
