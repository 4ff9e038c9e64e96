"""Data pages: checksums, LSNs, and which pages of a buffer fail.

The algorithm is PostgreSQL's, from `src/include/storage/checksum_impl.h`: 32 FNV-1a
sums side by side over the page's 32-bit words, folded, mixed with the block number.
Here each of the 64 steps runs over all pages of a buffer at once, which numpy does
without the interpreter's lock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from drkit.model.page import PAGE

if TYPE_CHECKING:
    import numpy.typing as npt

    from drkit.protocols import Buffer

    Words = npt.NDArray[np.uint32]
    Blocks = npt.NDArray[np.int64]

_ROWS, _SUMS = 64, 32
# As arrays: numpy makes one of a scalar at each call, which takes as long as the call.
_PRIME = np.array(16777619, dtype=np.uint32)
_SHIFT = np.array(17, dtype=np.uint32)
_KEEP_FLAGS = np.uint32(0xFFFF0000)  # pd_checksum is the low half of word 2
_BASE = np.array(
    [
        0x5B1F36E9, 0xB8525960, 0x02AB50AA, 0x1DE66D2A,
        0x79FF467A, 0x9BB9F8A3, 0x217E7CD2, 0x83E13D2C,
        0xF8D4474F, 0xE39EB970, 0x42C6AE16, 0x993216FA,
        0x7B093B5D, 0x98DAFF3C, 0xF718902A, 0x0B1C9CDB,
        0xE58F764B, 0x187636BC, 0x5D7B3BB1, 0xE73DE7DE,
        0x92BEC979, 0xCCA6C0B2, 0x304A0979, 0x85AA43D4,
        0x783125BB, 0x6CA8EAA2, 0xE407EAC6, 0x4B5CFC3E,
        0x9FBF8C76, 0x15CA20BE, 0xF2CA9FD3, 0x959BD756,
    ],
    dtype=np.uint32,
)  # fmt: skip


def checksums(pages: Buffer, blocks: int | Blocks) -> npt.NDArray[np.uint16]:
    """Return the checksum that each page should carry.

    Args:
        pages: whole pages of 8192 bytes.
        blocks: the number of each, counted over all segments of its fork; or that of
            the first, if the others follow it.
    """
    rows = _words(pages).reshape(-1, _ROWS, _SUMS)
    sums = np.empty((len(rows), _SUMS), np.uint32)
    scratch = np.empty_like(sums)
    np.bitwise_xor(rows[:, 0], _BASE, out=sums)
    # Word 2 is hashed with its checksum half cleared.
    sums[:, 2] = (rows[:, 0, 2] & _KEEP_FLAGS) ^ _BASE[2]
    _mix(sums, scratch)
    for step in range(1, _ROWS):
        np.bitwise_xor(sums, rows[:, step], sums)
        _mix(sums, scratch)
    _mix(sums, scratch)
    _mix(sums, scratch)
    folded = np.bitwise_xor.reduce(sums, axis=1)
    if isinstance(blocks, int):
        blocks = np.arange(blocks, blocks + len(rows))
    folded ^= blocks.astype(np.uint32)
    sums16: npt.NDArray[np.uint16] = (folded % np.uint32(65535) + np.uint32(1)).astype(
        np.uint16
    )
    return sums16


def failing(pages: Buffer, blocks: int | Blocks) -> list[int]:
    """Return the indexes of pages that PostgreSQL would refuse to read.

    Takes pages and their numbers as `checksums` does.

    A page whose `pd_upper` is zero is new: it carries no checksum, and is right only if
    all of it is zero.
    """
    words = _words(pages).reshape(-1, PAGE // 4)
    carried = (words[:, 2] & np.uint32(0xFFFF)).astype(np.uint16)
    new = (words[:, 3] >> np.uint32(16)) == 0
    wrong = (checksums(pages, blocks) != carried) & ~new
    suspects: list[int] = np.flatnonzero(wrong).tolist()
    if new.any():
        dirty = words[new].any(axis=1)
        suspects += np.flatnonzero(new)[dirty].tolist()
    return sorted(suspects)


def page_lsn(page: Buffer) -> int:
    """Return a page's LSN: two 32-bit halves, the high one first."""
    view = memoryview(page)
    high = int.from_bytes(view[0:4], "little")
    return high << 32 | int.from_bytes(view[4:8], "little")


def page_lsns(pages: Buffer) -> npt.NDArray[np.uint64]:
    """Return the LSN of each of several whole pages."""
    halves = _words(pages).reshape(-1, PAGE // 4)[:, :2].astype(np.uint64)
    lsns: npt.NDArray[np.uint64] = halves[:, 0] << np.uint64(32) | halves[:, 1]
    return lsns


def _words(pages: Buffer) -> Words:
    return np.frombuffer(pages, dtype="<u4")


def _mix(sums: Words, scratch: Words) -> None:
    np.right_shift(sums, _SHIFT, scratch)
    np.multiply(sums, _PRIME, sums)
    np.bitwise_xor(sums, scratch, sums)
