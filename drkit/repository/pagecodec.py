"""Compressing frames of pages: as they are, or as differences where that is smaller."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from drkit.crypto.sealing import MAX_CODEC
from drkit.model.page import PAGE
from drkit.repository.codec import FRAME_BYTES, Content, compress, compressor
from drkit.repository.differences import WORD, take

if TYPE_CHECKING:
    from drkit.protocols import Buffer

_LEAST = 2 * WORD  # a tuple's header alone is 8 bytes, and is never alone
_MOST = MAX_CODEC * WORD
_PAGES_LOOKED_AT, _TUPLES_OF_EACH = 16, 8
_FIRST_POINTER = 7  # in 32-bit words: behind the header and the first line pointer
_LENGTH_SHIFT = np.uint32(17)  # of a line pointer's `lp_len`
_TRIED = 8 * PAGE
_STANDS_FOR = 8  # frames of the same width
_WORTH = PAGE // 64  # bytes saved of each page: undoing differences takes time as well


class PageCompressor:
    """Compresses frames for one thread; what it returns is good until the next one.

    Args:
        level: of zstd.
        content: what the pages are where they are compressed as they are.
    """

    def __init__(self, level: int, content: Content = Content.PAGES) -> None:
        self._compressor = compressor(level, content)
        self._of_differences = compressor(level, Content.DIFFERENCES)
        self._differences = np.empty(FRAME_BYTES // WORD, dtype="<u8")
        self._paid: dict[int, int] = {}  # by width, for how many more frames

    def compress(self, plain: memoryview) -> tuple[Buffer, int]:
        """Return a frame's payload and its codec.

        Args:
            plain: of at most FRAME_BYTES.
        """
        width = tuple_width(plain)
        if width and self._is_worth(plain, width):
            packed = self._compressed_differences(plain, width)
            if len(packed) < len(plain):
                return packed, width // WORD
        return compress(self._compressor, plain)

    def _is_worth(self, plain: memoryview, width: int) -> bool:
        """Say whether differences pay; where they do, that stands for a few frames.

        Those are mostly of the same relation, and a trial takes an eighth of the time
        that compressing does. What does not pay in one relation may in the next.
        """
        left = self._paid.get(width, 0)
        if not left and self._worth(plain[:_TRIED], width):
            left = _STANDS_FOR
        self._paid[width] = max(left - 1, 0)
        return left > 0

    def _worth(self, sample: memoryview, width: int) -> bool:
        """Say whether a few pages come out enough smaller as differences."""
        differing = len(self._compressed_differences(sample, width))
        saved = len(self._compressor.compress(sample)) - differing
        return saved >= _WORTH * len(sample) // PAGE

    def _compressed_differences(self, plain: memoryview, width: int) -> bytes:
        differences = take(plain, width // WORD, self._differences)
        return self._of_differences.compress(differences)


def tuple_width(plain: Buffer) -> int:
    """Return the width that most tuples of these pages have; 0 if there is none.

    It is in bytes, with the padding up to the next tuple. What are not pages, or not
    such with line pointers (`src/include/storage/bufpage.h`), have none, but by chance:
    the width is only what is worth trying.
    """
    if not len(plain) or len(plain) % PAGE:
        return 0
    pages = np.frombuffer(plain, dtype="<u4").reshape(-1, PAGE // 4)
    looked_at = pages[:: max(len(pages) // _PAGES_LOOKED_AT, 1)]
    pointers = looked_at[:, _FIRST_POINTER : _FIRST_POINTER + _TUPLES_OF_EACH]
    lengths = pointers.reshape(-1) >> _LENGTH_SHIFT
    counts = np.bincount((lengths + (WORD - 1)) // WORD)
    commonest = int(counts.argmax())
    width, usual = commonest * WORD, 2 * counts[commonest] > len(lengths)
    return width if usual and _LEAST <= width <= _MOST else 0
