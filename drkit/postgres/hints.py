"""Differences between two states of a page that no WAL tells of, and that do no harm.

Source: `src/backend/access/common/bufmask.c` and the access methods' `*_mask`
functions, which PostgreSQL's own consistency checks of WAL replay use.
"""

from __future__ import annotations

import struct

from drkit.model.page import PAGE

_HEADER = struct.Struct("<8sHHHHHHI")  # PageHeaderData up to the line pointers
_FLAGS, _PRUNE_XID = 10, 20
_HINT_FLAGS = 0x0001 | 0x0002  # PD_HAS_FREE_LINES, PD_PAGE_FULL
_NORMAL = 1  # LP_NORMAL
_INFOMASK = 20  # in a heap tuple's header
_INFOMASK_HINTS = 0x0F00  # HEAP_XMIN_ and HEAP_XMAX_ COMMITTED and INVALID
_SPECIAL_FLAGS = 12  # in the opaque data of B-tree, hash and GiST pages
_SPECIAL_HINTS = 1 << 4 | 1 << 6 | 1 << 7  # F_HAS_GARBAGE, BTP_…, LH_PAGE_HAS_DEAD…
_SPECIAL_BYTES = 16
_CYCLE = 14  # in the same place: which vacuum's a B-tree page's last split was
_SMALL_SPECIAL = PAGE - 8  # of SP-GiST and BRIN pages; the last two bytes tell which
_SPGIST_ID, _SPGIST_META = 0xFF82, 0x0001
_SPGIST_CACHE = _HEADER.size + 4  # behind the magic number: pages that were used last
_BRIN_IDS, _BRIN_EVACUATE = range(0xF091, 0xF094), 0x0001


def same_but_hints(one: bytes, other: bytes) -> bool:
    """Say whether two states of a page differ in hints alone, LSN and checksum aside.

    A hint that says a tuple's transaction has ended may be set without WAL where pages
    have no checksums; so may the mark of an index entry whose tuple is dead, and what
    an index keeps only to be faster.
    """
    return _masked(one) == _masked(other)


def _masked(page: bytes) -> bytes:
    masked = bytearray(page)
    masked[0:_FLAGS] = bytes(_FLAGS)  # LSN and checksum
    _clear(masked, _FLAGS, _HINT_FLAGS)
    masked[_PRUNE_XID : _PRUNE_XID + 4] = bytes(4)
    _, _, _, lower, upper, special, _, _ = _HEADER.unpack_from(page)
    if not _HEADER.size <= lower <= upper <= special <= PAGE:
        return bytes(masked)
    masked[lower:upper] = bytes(upper - lower)
    heap = special == PAGE
    for at in range(_HEADER.size, lower - 3, 4):
        pointer = int.from_bytes(page[at : at + 4], "little")
        offset, state = pointer & 0x7FFF, pointer >> 15 & 0x3
        if not heap:
            masked[at + 1] &= 0x7F  # the two bits of lp_flags
            masked[at + 2] &= 0xFE
        elif state == _NORMAL and upper <= offset <= special - _INFOMASK - 2:
            _clear(masked, offset + _INFOMASK, _INFOMASK_HINTS)
    _mask_special(masked, special, lower)
    return bytes(masked)


def _mask_special(masked: bytearray, special: int, lower: int) -> None:
    """Clear what an index's access method writes without WAL."""
    if PAGE - special == _SPECIAL_BYTES:
        _clear(masked, special + _SPECIAL_FLAGS, _SPECIAL_HINTS)
        masked[special + _CYCLE :] = bytes(2)  # else the id of hash and GiST pages
    if special != _SMALL_SPECIAL:
        return
    method = int.from_bytes(masked[-2:], "little")
    if method in _BRIN_IDS:
        _clear(masked, PAGE - 4, _BRIN_EVACUATE)
    elif method == _SPGIST_ID and masked[special] & _SPGIST_META:
        masked[_SPGIST_CACHE:lower] = bytes(max(lower - _SPGIST_CACHE, 0))


def _clear(page: bytearray, at: int, bits: int) -> None:
    value = int.from_bytes(page[at : at + 2], "little") & ~bits
    page[at : at + 2] = value.to_bytes(2, "little")
