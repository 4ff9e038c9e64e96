"""Bringing an existing data directory back to a backup: compare, then write the rest.

Equal content is told by its keyed digest, so it is not even fetched.
"""

from __future__ import annotations

import os
import queue
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from drkit import workers
from drkit.model.manifest import FileKind
from drkit.operations.filling import LEFT_OUT, OpenFiles, Writing, write_packs
from drkit.repository.chain import Digests
from drkit.repository.unpacking import PackReader
from drkit.writing import write_all_at

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from drkit.model.pagemap import PageMap
    from drkit.postgres.existing_directory import ExistingDirectory
    from drkit.protocols import Progress
    from drkit.repository.repository import Repository

_BUFFER = 4 << 20  # no run is longer: it lies in one frame
_BLOCK = 8192


@dataclass(frozen=True, slots=True)
class Patched:
    """What a restore over an existing data directory came to.

    Attributes:
        files: compared, those among them that were not there.
        kept_bytes: content that was there already.
        written_bytes: content that differed or lacked.
        deleted_files: that the backup does not have.
        fetched_bytes: read from the repository.
    """

    files: int
    kept_bytes: int
    written_bytes: int
    deleted_files: int
    fetched_bytes: int


def patch_files(
    repository: Repository,
    page_map: PageMap,
    target: ExistingDirectory,
    progress: Progress,
    jobs: int,
) -> Patched:
    """Compare every file with the backup, and write what differs.

    Raises:
        Corrupt: a pack is missing, or is not what its manifest says.
    """
    comparison = Comparison(repository, page_map, target, progress)
    progress.phase("compare", int(page_map.files["size"][comparison.files].sum()))
    comparison.run(jobs)
    wanted, tally = comparison.wanted, comparison.tally
    progress.phase("fetch", int(page_map.pieces["length"][wanted].sum()))
    reader = PackReader(repository, page_map, wanted)
    owners = page_map.piece_files()[wanted]
    runs = np.bincount(owners, minlength=len(page_map.files))
    writing = Writing(page_map, target, progress, runs)
    write_packs(reader, jobs, lambda: _Patching(writing, tally))
    return Patched(
        len(comparison.files),
        tally.kept,
        tally.written,
        target.deleted,
        reader.fetched_bytes(),
    )


class Tally:
    """Counts bytes for several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.kept = 0
        self.written = 0

    def add(self, *, kept: int = 0, written: int = 0) -> None:
        """Count bytes that were there already, and bytes that were not."""
        with self._lock:
            self.kept += kept
            self.written += written


class Comparison:
    """Finds the pieces of a backup's files that a directory lacks.

    Attributes:
        files: the numbers of the files that are restored.
        wanted: for each piece whether it must be fetched: it differs, or can't be told
            by its digest because a later backup of the chain covers a part of it.
    """

    def __init__(
        self,
        repository: Repository,
        page_map: PageMap,
        target: ExistingDirectory,
        progress: Progress,
    ) -> None:
        self._map = page_map
        self._target = target
        self._progress = progress
        self._digests = Digests(repository, page_map.layers)
        self._ends = page_map.ends()
        restored = page_map.files["kind"] == FileKind.FILE
        left_out = [page_map.find(path) for path in LEFT_OUT]
        restored[[number for number in left_out if number is not None]] = False
        self.files = np.flatnonzero(restored)
        self.wanted: npt.NDArray[np.bool_] = restored[page_map.piece_files()]
        self.tally = Tally()

    def run(self, jobs: int) -> None:
        """Compare all files, one a worker at a time."""
        waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
        for number in self.files.tolist():
            waiting.put(number)

        def work(stop: workers.Stop) -> None:
            buffer = memoryview(bytearray(_BUFFER))
            while not stop.is_set():
                try:
                    number = waiting.get_nowait()
                except queue.Empty:
                    return
                self._file(number, buffer, stop)

        workers.run([work] * jobs)

    def _file(self, number: int, buffer: memoryview, stop: workers.Stop) -> None:
        """Compare one file; finish it if nothing of it has to be fetched."""
        row, path = self._map.files[number], self._map.paths[number]
        descriptor = self._target.open_existing(path)
        if descriptor is None:
            if row["runs"]:
                self._progress.advance(int(row["size"]))
                return
            descriptor = self._target.open(path, int(row["mode"]))
        try:
            if os.fstat(descriptor).st_size != row["size"]:
                os.ftruncate(descriptor, int(row["size"]))
            end = int(self._ends[number])
            places = range(end - int(row["runs"]), end)
            self._pieces(places, descriptor, buffer, stop)
            for start, length in self._holes(number, places):
                self._empty(descriptor, start, length, buffer)
            if not stop.is_set() and not self.wanted[places.start : places.stop].any():
                self._target.finish(descriptor, int(row["mode"]), int(row["mtime"]))
        finally:
            os.close(descriptor)

    def _pieces(
        self, places: range, descriptor: int, buffer: memoryview, stop: workers.Stop
    ) -> None:
        for place in places:
            if stop.is_set():
                return
            piece = self._map.pieces[place]
            data = buffer[: int(piece["length"])]
            there = _read(descriptor, data, int(piece["position"]))
            if there and self._digests.unchanged(piece, data):
                self.wanted[place] = False
                self.tally.add(kept=len(data))
            self._progress.advance(len(data))

    def _holes(self, number: int, places: range) -> Iterator[tuple[int, int]]:
        """Yield the stretches of a file, (start, length), that no piece covers."""
        position = 0
        for piece in self._map.pieces[places.start : places.stop]:
            start = int(piece["position"])
            if start > position:
                yield position, start - position
            position = start + int(piece["length"])
        size = int(self._map.files["size"][number])
        if size > position:
            yield position, size - position

    def _empty(
        self, descriptor: int, start: int, length: int, buffer: memoryview
    ) -> None:
        """Make a stretch zeros where it is not."""
        for position in range(start, start + length, len(buffer)):
            data = buffer[: min(len(buffer), start + length - position)]
            if not _read(descriptor, data, position) or np.frombuffer(data, "u1").any():
                write_all_at(descriptor, bytes(len(data)), position)
                self.tally.add(written=len(data))
            self._progress.advance(len(data))


class _Patching(OpenFiles):
    """One worker's open files; of each run it writes the blocks that differ."""

    def __init__(self, writing: Writing, tally: Tally) -> None:
        super().__init__(writing)
        self._tally = tally
        self._buffer = memoryview(bytearray(_BUFFER))

    def put(self, descriptor: int, position: int, data: memoryview) -> None:
        """Write the blocks that differ from what is there."""
        there = self._buffer[: len(data)]
        if not _read(descriptor, there, position):
            super().put(descriptor, position, data)
            self._tally.add(written=len(data))
            return
        written = 0
        for start, end in differing(there, data):
            super().put(descriptor, position + start, data[start:end])
            written += end - start
        self._tally.add(kept=len(data) - written, written=written)


def differing(there: memoryview, data: memoryview) -> list[tuple[int, int]]:
    """Return the stretches, (start, end), of the blocks that differ in two buffers."""
    whole = len(data) // _BLOCK * _BLOCK
    here, wanted = np.frombuffer(there, "u1"), np.frombuffer(data, "u1")
    differs = here != wanted
    blocks = differs[:whole].reshape(-1, _BLOCK).any(axis=1)
    if whole < len(data):
        blocks = np.append(blocks, differs[whole:].any())
    edges = np.flatnonzero(np.diff(blocks, prepend=False, append=False)).tolist()
    starts, ends = edges[::2], edges[1::2]
    return [
        (start * _BLOCK, min(end * _BLOCK, len(data)))
        for start, end in zip(starts, ends, strict=True)
    ]


def _read(descriptor: int, into: memoryview, position: int) -> bool:
    """Fill `into`; False where a disk can't be read, which counts as different."""
    done = 0
    while done < len(into):
        try:
            count = os.preadv(descriptor, [into[done:]], position + done)
        except OSError:
            return False
        if count == 0:
            return False
        done += count
    return True
