"""Filling a data directory: each frame read once, each run written where it belongs."""

from __future__ import annotations

import os
import queue
import threading
from collections import OrderedDict
from contextlib import closing
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING

import numpy as np

from drkit import workers
from drkit.model.manifest import CONTROL_FILE, FileKind
from drkit.operations.bridging import bridge, passes
from drkit.repository.unpacking import PackReader
from drkit.writing import write_all_at

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from drkit.model.pagemap import PageMap
    from drkit.postgres.target_directory import TargetDirectory
    from drkit.protocols import Progress
    from drkit.repository.repository import Repository
    from drkit.repository.unpacking import Pack, Run

_UNFLUSHED = 1 << 20
_DENSE = 1.25
_NOWHERE = 1 << 62
_OPEN_FILES = 64  # kept open by each worker: a relation's runs come in a row
LEFT_OUT = (CONTROL_FILE, b"recovery.signal", b"standby.signal")
"""`pg_control` comes last; a signal file of the source would steer this recovery."""


def write_files(
    repository: Repository,
    page_map: PageMap,
    target: TargetDirectory,
    progress: Progress,
    jobs: int,
) -> None:
    """Write every file but `pg_control` and what is not restored.

    Raises:
        Corrupt: a pack is missing, or is not what its manifest says.
    """
    bridged = bridge(page_map)
    writing = Writing(bridged, target, progress, bridged.files["runs"])
    for wanted in passes(bridged):
        reader = PackReader(repository, bridged, wanted)
        write_packs(reader, jobs, lambda: OpenFiles(writing))
    writing.write_empty()


def write_packs(
    reader: PackReader, jobs: int, open_files: Callable[[], OpenFiles]
) -> None:
    """Write what lies in the reader's packs, several packs at a time.

    Raises:
        Corrupt: a pack is missing, or is not what its manifest says.
    """
    packs: queue.SimpleQueue[Pack] = queue.SimpleQueue()
    for pack in _spread(reader.packs(), jobs):
        packs.put(pack)

    def work(stop: workers.Stop) -> None:
        with closing(open_files()) as files:
            while not stop.is_set():
                try:
                    pack = packs.get_nowait()
                except queue.Empty:
                    return
                _write_pack(reader, pack, files, stop)

    workers.run([work] * jobs)


def _spread(packs: list[Pack], jobs: int) -> list[Pack]:
    """Order packs so that those worked on at once lie far apart.

    Neighbours hold stretches of the same large file, whose writers wait for each other.
    """
    part = -(-len(packs) // jobs)
    return [pack for first in range(part) for pack in packs[first::part]]


def _write_pack(
    reader: PackReader, pack: Pack, files: OpenFiles, stop: workers.Stop
) -> None:
    for runs, plain in reader.frames(pack):
        if stop.is_set():
            return
        for number, mine in groupby(runs, key=itemgetter(0)):
            files.write(number, list(mine), plain)


class Writing:
    """What the workers of one restore share: which files still lack runs.

    Args:
        runs: for each file, how many runs will be written to it.
    """

    def __init__(
        self,
        page_map: PageMap,
        target: TargetDirectory,
        progress: Progress,
        runs: npt.NDArray[np.integer],
    ) -> None:
        self.page_map = page_map
        self.target = target
        self._progress = progress
        self._lock = threading.Lock()
        self._left = runs.tolist()
        self._uncounted = page_map.files["size"].tolist()
        self._left_out = {
            number
            for number, kind in enumerate(page_map.files["kind"].tolist())
            if kind != FileKind.FILE or page_map.paths[number] in LEFT_OUT
        }

    def wanted(self, number: int) -> bool:
        """Say whether a file is written here: signals and attachments are not."""
        return number not in self._left_out

    def wrote(self, number: int, runs: int, count: int) -> bool:
        """Count runs, of `count` bytes; say whether their file lacks none now.

        What bridging writes twice is told once: no file comes to more than its size.
        """
        with self._lock:
            told = min(count, self._uncounted[number])
            self._uncounted[number] -= told
            self._left[number] -= runs
            whole = bool(self._left[number] == 0)
        self._progress.advance(told)
        return whole

    def finish(self, number: int, descriptor: int) -> None:
        """Make a file whose runs are all written whole and durable."""
        row = self.page_map.files[number]
        size, mode, mtime = int(row["size"]), int(row["mode"]), int(row["mtime"])
        if os.fstat(descriptor).st_size != size:
            os.ftruncate(descriptor, size)  # a hole at the end
        self.target.finish(descriptor, mode, mtime)

    def write_empty(self) -> None:
        """Make the files that have no run at all."""
        for number in np.flatnonzero(self.page_map.files["runs"] == 0).tolist():
            if self.wanted(number):
                mode = int(self.page_map.files[number]["mode"])
                descriptor = self.target.open(self.page_map.paths[number], mode)
                try:
                    self.finish(number, descriptor)
                finally:
                    os.close(descriptor)


class OpenFile:
    """A file that is being written.

    What was written in one stretch goes to the disk at once, so that the fsync at the
    end finds little to do. Pages that lie scattered wait for that: by itself each would
    be a seek, and most have neighbours that are still to come.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._count = 0
        self._stretch = (_NOWHERE, 0)

    def wrote(self, first: int, end: int, count: int) -> None:
        """Take note of `count` bytes that were written between `first` and `end`."""
        before, behind = self._stretch
        self._stretch = min(before, first), max(behind, end)
        self._count += count
        if self._count >= _UNFLUSHED:
            self._flush()

    def _flush(self) -> None:
        first, end = self._stretch
        if end - first <= _DENSE * self._count:
            length = end - first
            os.posix_fadvise(self.descriptor, first, length, os.POSIX_FADV_DONTNEED)
        self._count, self._stretch = 0, (_NOWHERE, 0)


class OpenFiles:
    """One worker's open files, the least recently used closed first."""

    def __init__(self, writing: Writing) -> None:
        self._writing = writing
        self._open: OrderedDict[int, OpenFile] = OrderedDict()

    def write(self, number: int, runs: list[Run], plain: memoryview) -> None:
        """Write runs of one file, which lie in one frame, where they belong.

        They come by their place in the file.
        """
        if not self._writing.wanted(number):
            return
        file = self._file(number)
        count = 0
        for _, position, offset, length in runs:
            self.put(file.descriptor, position, plain[offset : offset + length])
            count += length
        _, last, _, length = runs[-1]
        file.wrote(runs[0][1], last + length, count)
        if self._writing.wrote(number, len(runs), count):
            self._writing.finish(number, file.descriptor)
            os.close(self._open.pop(number).descriptor)

    def put(self, descriptor: int, position: int, data: memoryview) -> None:
        """Write bytes to an open file."""
        write_all_at(descriptor, data, position)

    def close(self) -> None:
        """Close what is open."""
        for file in self._open.values():
            os.close(file.descriptor)
        self._open.clear()

    def _file(self, number: int) -> OpenFile:
        if number not in self._open:
            if len(self._open) >= _OPEN_FILES:
                os.close(self._open.popitem(last=False)[1].descriptor)
            page_map = self._writing.page_map
            mode = int(page_map.files[number]["mode"])
            descriptor = self._writing.target.open(page_map.paths[number], mode)
            self._open[number] = OpenFile(descriptor)
        self._open.move_to_end(number)
        return self._open[number]
