"""What a stream's receiving thread hands to those that verify, compare and write."""

from __future__ import annotations

import os
import queue
import threading
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from drkit.model.page import PAGE

if TYPE_CHECKING:
    from collections.abc import Callable

    from drkit.model.manifest import Row
    from drkit.postgres.damage import PageChecker
    from drkit.postgres.exclusions import RelationFile
    from drkit.protocols import ContentWriter, ParentContent, Progress
    from drkit.workers import Stop

BUFFER = 2 << 20
_WAIT = 0.2  # seconds between looks at whether another thread failed


class StreamedFile(NamedTuple):
    """A file as it comes; without a number its pages are verified, not stored."""

    number: int | None
    path: bytes
    relation: RelationFile | None


class Stretch(NamedTuple):
    """Bytes of a file that stand together.

    Attributes:
        like: the piece of the parent's page map that may hold the same.
    """

    position: int
    length: int
    like: Row | None = None


class Piece(NamedTuple):
    """A buffer that holds stretches of one file, one behind the other.

    Of a relation's stretches all but the last of the file are whole pages.
    """

    file: StreamedFile
    buffer: bytearray
    stretches: list[Stretch]


class Exchange:
    """Buffers that go to and fro between the receiving thread and the writing ones."""

    def __init__(self, writers: int) -> None:
        self._writers = writers
        self._spare: queue.SimpleQueue[bytearray] = queue.SimpleQueue()
        self._full: queue.SimpleQueue[Piece | None] = queue.SimpleQueue()
        for _ in range(2 * writers + 1):
            self._spare.put(bytearray(BUFFER))

    def spare(self, stop: Stop) -> bytearray | None:
        """Wait for an empty buffer; None if the threads are to give up."""
        while not stop.is_set():
            try:
                return self._spare.get(timeout=_WAIT)
            except queue.Empty:
                continue
        return None

    def send(self, piece: Piece) -> None:
        """Hand a piece over."""
        self._full.put(piece)

    def end(self) -> None:
        """Tell the writing threads that nothing more comes."""
        for _ in range(self._writers):
            self._full.put(None)

    def take(self) -> Piece | None:
        """Wait for the next piece; None at the end."""
        return self._full.get()

    def give_back(self, piece: Piece) -> None:
        """Let a piece's buffer be filled anew."""
        self._spare.put(piece.buffer)


class Storing:
    """What the writing threads share.

    Attributes:
        damaged: number of the file and block in it of pages with a wrong checksum.
        unchanged: files of which something is left to the parent.
    """

    def __init__(
        self,
        exchange: Exchange,
        checker: PageChecker | None,
        parent: ParentContent | None,
        progress: Progress,
    ) -> None:
        self._exchange = exchange
        self._checker = checker
        self._parent = parent
        self._progress = progress
        self._lock = threading.Lock()
        self.damaged: list[tuple[int, int]] = []
        self.unchanged: set[int] = set()

    def worker(self, writer: ContentWriter) -> Callable[[Stop], None]:
        """Return a task that verifies and writes pieces until none come."""

        def work(stop: Stop) -> None:
            while not stop.is_set():
                piece = self._exchange.take()
                if piece is None:
                    return
                self._store(piece, writer)
                self._exchange.give_back(piece)

        return work

    def met_damage(self) -> bool:
        """Say whether any page was bad, those of maps that mend themselves included."""
        torn = self._checker.torn_maps if self._checker else 0
        return bool(self.damaged or torn)

    def _store(self, piece: Piece, writer: ContentWriter) -> None:
        sound = self._verify(piece)
        view, start = memoryview(piece.buffer), 0
        for stretch in piece.stretches:
            data = view[start : start + stretch.length]
            start += stretch.length
            if piece.file.number is None:
                continue
            if sound and self._same(stretch, data):
                with self._lock:
                    self.unchanged.add(piece.file.number)
            else:
                _write(writer, piece.file, stretch.position, data)
        self._progress.advance(start)

    def _same(self, stretch: Stretch, data: memoryview) -> bool:
        if self._parent is None or stretch.like is None:
            return False
        return self._parent.unchanged(stretch.like, data)

    def _verify(self, piece: Piece) -> bool:
        """Say whether all pages are sound; report those that are not."""
        if self._checker is None or piece.file.relation is None:
            return True
        blocks = np.concatenate(
            [
                np.arange(one.position // PAGE, (one.position + one.length) // PAGE)
                for one in piece.stretches
            ]
        )
        pages = memoryview(piece.buffer)[: len(blocks) * PAGE]
        found = self._checker.damaged_among(piece.file.relation, pages, blocks, None)
        for block in found:
            self._report(piece.file, block)
        return not found

    def _report(self, file: StreamedFile, block: int) -> None:
        path = os.fsdecode(file.path)
        if file.number is not None:
            with self._lock:
                self.damaged.append((file.number, block))
        self._progress.warning(
            f"page {block} of {path} is damaged: its checksum is wrong",
            file=path,
            block=block,
        )


def _write(
    writer: ContentWriter, file: StreamedFile, position: int, data: memoryview
) -> None:
    """Write bytes; a relation's pages are not cut in two."""
    if file.number is None:
        return
    unit = PAGE if file.relation else 1
    while data:
        space = writer.space(min(unit, len(data)))
        count = len(data)
        if count > len(space):
            count = len(space) // unit * unit
        space[:count] = data[:count]
        writer.took(file.number, position, count)
        position += count
        data = data[count:]
