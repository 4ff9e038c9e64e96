"""The `INCREMENTAL.*` files that stand for relation files in a server's backup.

Source of the format: PostgreSQL's `src/backend/backup/basebackup.c`, `sendFile`, and
`src/bin/pg_combinebackup/reconstruct.c`. Three 32-bit integers in the server's byte
order (a magic number, the count of blocks, the truncation block length), then the
number of each block, counted in its file. Where there are blocks, zeros follow up to
the next page, and then the blocks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from drkit.errors import PostgresRefused
from drkit.model.page import PAGE

if TYPE_CHECKING:
    import numpy.typing as npt

    Blocks = npt.NDArray[np.int64]

PREFIX = b"INCREMENTAL."
_MAGIC = 0xD3AE1F0D
_FIXED = 12
_NUMBER = 4


class IncrementalHeader(NamedTuple):
    """What an incremental file says of the file that it stands for.

    Attributes:
        truncation: in blocks; what is below here and not in `blocks` is as it was, and
            the file is at least as long.
        blocks: numbers of the blocks whose content follows, ascending.
    """

    truncation: int
    blocks: Blocks

    @property
    def size(self) -> int:
        """The length in bytes of the file that it stands for."""
        behind = int(self.blocks[-1]) + 1 if len(self.blocks) else 0
        return max(self.truncation, behind) * PAGE

    def stretches(self) -> list[tuple[int, int]]:
        """Return where the blocks stand as (position, length) in bytes, in order."""
        if not len(self.blocks):
            return []
        parts = np.split(self.blocks, np.flatnonzero(np.diff(self.blocks) != 1) + 1)
        return [(int(part[0]) * PAGE, len(part) * PAGE) for part in parts]


class HeaderReader:
    """Reads a header from bytes as they come.

    Args:
        path: of the file, for messages.
        size: of the incremental file, in bytes.
        segment_blocks: how many blocks a relation's file has at most.

    Attributes:
        header: None until all of it has come.
    """

    def __init__(self, path: str, size: int, segment_blocks: int) -> None:
        self.header: IncrementalHeader | None = None
        self._path = path
        self._size = size
        self._segment_blocks = segment_blocks
        self._bytes = bytearray()
        self._wanted = _FIXED
        if size < _FIXED:
            raise self._malformed("is too short")

    def feed(self, data: memoryview) -> memoryview:
        """Take what belongs to the header; return the rest.

        Raises:
            PostgresRefused: the file is none that a server writes.
        """
        while data and self.header is None:
            missing = self._wanted - len(self._bytes)
            self._bytes += data[:missing]
            data = data[missing:]
            if len(self._bytes) == self._wanted:
                self._advance()
        return data

    def _advance(self) -> None:
        """Learn from the fixed part how much more there is, or read all of it."""
        magic, count, truncation = np.frombuffer(self._bytes, "<u4", 3).tolist()
        if self._wanted == _FIXED:
            self._check(magic, count, truncation)
            self._wanted = _header_bytes(count)
        if len(self._bytes) == self._wanted:
            numbers = np.frombuffer(self._bytes, "<u4", count, _FIXED).astype(np.int64)
            self._check_blocks(numbers)
            self.header = IncrementalHeader(truncation, numbers)

    def _check(self, magic: int, count: int, truncation: int) -> None:
        if magic != _MAGIC:
            raise self._malformed("has another magic number")
        if max(count, truncation) > self._segment_blocks:
            raise self._malformed("has more blocks than a file of a relation")
        if self._size != _header_bytes(count) + count * PAGE:
            raise self._malformed(f"has {self._size} bytes for {count} blocks")

    def _check_blocks(self, numbers: Blocks) -> None:
        if (np.diff(numbers) <= 0).any():
            raise self._malformed("has blocks that don't ascend")
        if len(numbers) and numbers[-1] >= self._segment_blocks:
            raise self._malformed("has a block past the end of a relation's file")

    def _malformed(self, what: str) -> PostgresRefused:
        return PostgresRefused(
            f"the server's incremental file for {self._path} {what}",
            hint="take a full backup; if the URL leads past PostgreSQL itself, mend it",
        )


def _header_bytes(count: int) -> int:
    """Return a header's length; without blocks it has no padding."""
    length = _FIXED + count * _NUMBER
    return -(-length // PAGE) * PAGE if count else length
