"""Telling pages that are damaged from pages that were merely being written."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import numpy as np

from drkit.model.page import PAGE
from drkit.postgres.exclusions import Fork
from drkit.postgres.pages import failing, page_lsn

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from drkit.postgres.exclusions import RelationFile

_REREADS = 3
_PAUSE = 0.05  # seconds; a torn read is of a write that ends within that


class PageChecker:
    """Verifies the pages of one backup.

    A page that fails its checksum is read again: it may have been torn by a write
    that ran at the same time. A page whose LSN lies between the backup's start and
    the server's present is left alone, for WAL replay writes it anew. What is left is
    damaged, but for free space and visibility maps, which the server may tear and
    repairs by itself.

    Args:
        start_lsn: where the backup began.
        current_lsn: asks the server for its insert position; called rarely.
        segment_blocks: pages in one segment file of a relation.

    Attributes:
        torn_maps: how many pages of free space and visibility maps had wrong checksums.
    """

    def __init__(
        self, start_lsn: int, current_lsn: Callable[[], int], segment_blocks: int
    ) -> None:
        self._start = start_lsn
        self._current = current_lsn
        self._segment_blocks = segment_blocks
        self._lock = threading.Lock()
        self.torn_maps = 0

    def first(self, file: RelationFile) -> int:
        """Return the number of a file's first page, counted over its fork's files."""
        return file.segment * self._segment_blocks

    def damaged(
        self,
        file: RelationFile,
        pages: memoryview,
        position: int,
        reread: Callable[[memoryview, int], int] | None,
    ) -> list[int]:
        """Return the blocks, counted in this file, that are damaged.

        Args:
            pages: the bytes that were read; whole pages of them are looked at.
            position: where in the file they stood, on a page boundary.
            reread: reads again into a page at a position, and returns how much it
                read; what it finds replaces what was read before.
        """
        whole = pages[: len(pages) // PAGE * PAGE]
        first = position // PAGE
        blocks = np.arange(first, first + len(whole) // PAGE)
        return self.damaged_among(file, whole, blocks, reread)

    def damaged_among(
        self,
        file: RelationFile,
        pages: memoryview,
        blocks: npt.NDArray[np.int64],
        reread: Callable[[memoryview, int], int] | None,
    ) -> list[int]:
        """Return those of `blocks` that are damaged.

        Args:
            pages: whole pages, each of the block at its place in `blocks`.
            reread: as for `damaged`.
        """
        numbers = blocks + self.first(file)
        stable = [
            int(blocks[index])
            for index in failing(pages, numbers)
            if not self._excused(pages, index, numbers, blocks, reread)
        ]
        if file.fork not in (Fork.FSM, Fork.VM):
            return stable
        with self._lock:
            self.torn_maps += len(stable)
        return []

    def _excused(
        self,
        pages: memoryview,
        index: int,
        numbers: npt.NDArray[np.int64],
        blocks: npt.NDArray[np.int64],
        reread: Callable[[memoryview, int], int] | None,
    ) -> bool:
        page = pages[index * PAGE : (index + 1) * PAGE]
        for _ in range(_REREADS if reread else 0):
            if self._being_written(page):
                return True
            time.sleep(_PAUSE)
            if reread and reread(page, int(blocks[index]) * PAGE) < PAGE:
                return True  # truncated meanwhile
            if not failing(page, int(numbers[index])):
                return True
        return self._being_written(page)

    def _being_written(self, page: memoryview) -> bool:
        lsn = page_lsn(page)
        if lsn < self._start:
            return False
        with self._lock:
            return lsn <= self._current()
