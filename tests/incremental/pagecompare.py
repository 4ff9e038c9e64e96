"""Comparing two data directories page by page, but for what WAL does not carry.

A server and its copy that replayed the same WAL differ in hints: bits that say what
the commit log says as well, line pointers of index entries known to be dead, bytes
between the line pointers and the tuples. `masked` clears them, by access method, as
`src/backend/access/common/bufmask.c` and each method's mask function do for
`wal_consistency_checking`, yet keeps more: of a tuple's transaction state only the
four hint bits are cleared, and that a table's page is all visible counts.

Not compared: free space maps and visibility maps, temporary relations, and of unlogged
ones all but the init fork.
"""

from __future__ import annotations

import itertools
import os
import re
from enum import Enum, auto
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PAGE = 8192
_HEADER = 24
_LSN_AND_CHECKSUM = 10
_HINT_FLAGS = 0x3  # PD_HAS_FREE_LINES, PD_PAGE_FULL
_ALL_VISIBLE = 0x4  # PD_ALL_VISIBLE
_TUPLE_HINTS = 0x0F00  # HEAP_XMIN_ and HEAP_XMAX_, COMMITTED and INVALID
_COMBO_CID = 0x0020
_SEQUENCE_MAGIC = 0x1717
_BRIN_MAP = 0xF092
_TID = 6  # bytes of a row's address
_RELATION = re.compile(r"(?P<number>\d+)(?:_(?P<fork>fsm|vm|init))?(?:\.\d+)?\Z")
_DIRECTORY = re.compile(r"(?:global|base/\d+|pg_tblspc/\d+/PG_[^/]+/\d+)\Z")
# WAL carries these as they are, and nothing else writes to them.
_VERBATIM = re.compile(r"(?:.*/)?(?:PG_VERSION|pg_filenode\.map)\Z")


class Difference(NamedTuple):
    """What is not the same; `block` is -1 where it is not one page.

    Attributes:
        path: relative to the data directory.
    """

    path: str
    block: int
    what: str


def compare(expected: Path, found: Path) -> list[Difference]:
    """Compare the relations of two data directories that nobody writes to.

    Pages at the end of a file in `expected` may be absent in `found` as long as nothing
    was ever put on them: extending a relation is not in the WAL, using the page is.
    A file in `found` alone may be empty: dropping one truncates it and leaves the rest
    to a checkpoint, the one behind the next if the commit comes just before the redo
    pointer of that (`SyncPreCheckpoint` in sync.c); no replay goes back so far.
    """
    ours = relations(expected)
    theirs = {
        path
        for path in relations(found)
        if path in ours or (found / path).stat().st_size
    }
    differences = [Difference(path, -1, "is missing") for path in sorted(ours - theirs)]
    differences += [Difference(path, -1, "is extra") for path in sorted(theirs - ours)]
    for path in sorted(ours & theirs):
        first, second = (expected / path).read_bytes(), (found / path).read_bytes()
        if first != second:
            differences += _differences(path, first, second)
    return differences


def relations(root: Path) -> set[str]:
    """Return the paths of the files that are to be the same after recovery."""
    found: set[str] = set()
    for directory, names in _directories(root):
        matches = [match for name in names if (match := _RELATION.match(name))]
        unlogged = {one["number"] for one in matches if one["fork"] == "init"}
        compared = [
            one.string
            for one in matches
            if one["fork"] == "init"
            or (one["fork"] is None and one["number"] not in unlogged)
        ]
        compared += [name for name in names if _VERBATIM.match(name)]
        found |= {f"{directory}/{name}" for name in compared}
    return found


def unsupported_visibility(root: Path) -> list[Difference]:
    """Return pages of tables that the visibility map alone says are all visible.

    A change of such a page would leave the map as it is, and index-only scans would
    then take what it says for true.
    """
    found = []
    for directory, names in _directories(root):
        for name in names:
            if name.endswith("_vm"):
                found += _unsupported(root, f"{directory}/{name.removesuffix('_vm')}")
    return found


def _unsupported(root: Path, path: str) -> Iterator[Difference]:
    """Compare the map of one table with its pages, two bits with one flag for each."""
    maps = np.frombuffer((root / f"{path}_vm").read_bytes(), np.uint8)
    bits = np.unpackbits(maps.reshape(-1, PAGE)[:, _HEADER:], bitorder="little")
    pages = [page for one in _segments(root / path) for page in _pages(one)]
    for block in np.flatnonzero(bits[0::2]).tolist():
        if block >= len(pages) or not pages[block][10] & _ALL_VISIBLE:
            yield Difference(path, block, "is all visible by the map only")


def _segments(first: Path) -> Iterator[bytes]:
    """Yield the content of a relation's files, 1 GiB each but the last."""
    for number in itertools.count():
        path = first if number == 0 else Path(f"{first}.{number}")
        if not path.exists():
            return
        yield path.read_bytes()


def _directories(root: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield each directory that holds relations, and the names in it."""
    for top in ("global", "base", "pg_tblspc"):
        for place, _, names in os.walk(root / top, followlinks=True):
            path = os.path.relpath(place, root)
            if _DIRECTORY.match(path):
                yield path, names


def _differences(path: str, first: bytes, second: bytes) -> list[Difference]:
    if _VERBATIM.match(path):
        return [Difference(path, -1, "differs")]
    if (len(first) | len(second)) % PAGE:
        return [Difference(path, -1, f"has {len(first)} and {len(second)} bytes")]
    ours, theirs = _pages(first), _pages(second)
    if len(theirs) > len(ours):
        what = f"has {len(theirs)} pages and not {len(ours)}"
        return [Difference(path, len(ours), what)]
    same = (ours[: len(theirs)] == theirs).all(axis=1)
    differences = []
    for block in [*np.flatnonzero(~same).tolist(), *range(len(theirs), len(ours))]:
        other = theirs[block].tobytes() if block < len(theirs) else bytes(PAGE)
        what = _page_difference(ours[block].tobytes(), other, block)
        if what:
            differences.append(Difference(path, block, what))
    return differences


def _pages(content: bytes) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    """Return pages with LSN and checksum cleared, which differ always."""
    pages = np.frombuffer(content, np.uint8).reshape(-1, PAGE).copy()
    pages[:, :_LSN_AND_CHECKSUM] = 0
    return pages


def _page_difference(first: bytes, second: bytes, block: int) -> str:
    """Say in what two pages differ; empty if in nothing that counts."""
    try:
        one, other = masked(first, block), masked(second, block)
    except ValueError as error:
        return f"is no page: {error}"
    places = [at for at in range(PAGE) if one[at] != other[at]]
    if not places:
        return ""
    if not any(one) or not any(other):
        return "is empty in one of the two"
    if _lost_from_map(one, other):
        return ""
    method = access_method(first, block).name
    return f"({method}) differs in {len(places)} bytes from byte {places[0]} on"


def _lost_from_map(first: bytes, second: bytes) -> bool:
    """Say whether a BRIN index's map has lost entries, and is as it was otherwise.

    The pages of that map declare no content between header and special space. When
    PostgreSQL copies a database by WAL, its images leave out that space, so whoever
    replays the copy has an empty map. Scans then read all ranges that it lacks.
    """
    if not _u16(first, PAGE - 2) == _u16(second, PAGE - 2) == _BRIN_MAP:
        return False
    entries = range(_HEADER, PAGE - 8 - _TID, _TID)
    lost = bytearray(first)
    for at in entries:
        if not any(second[at : at + _TID]):
            lost[at : at + _TID] = bytes(_TID)
    return bytes(lost) == second


class AccessMethod(Enum):
    """What a page is laid out for; it can be told by the page itself."""

    HEAP = auto()
    SEQUENCE = auto()
    BTREE = auto()
    HASH = auto()
    GIST = auto()
    GIN = auto()
    SPGIST = auto()
    BRIN = auto()


_BY_PAGE_ID = {  # the last two bytes of a page
    0xFF80: AccessMethod.HASH,
    0xFF81: AccessMethod.GIST,
    0xFF82: AccessMethod.SPGIST,
    0xF091: AccessMethod.BRIN,
    _BRIN_MAP: AccessMethod.BRIN,
    0xF093: AccessMethod.BRIN,
}


def access_method(page: bytes | bytearray, block: int) -> AccessMethod:
    """Tell a page's access method by its special space and the id at its end."""
    special = _u16(page, 16)
    if special == PAGE:
        return AccessMethod.HEAP
    if special not in (PAGE - 8, PAGE - 16):
        raise ValueError(f"no access method has its special space at {special}")
    found = _BY_PAGE_ID.get(_u16(page, PAGE - 2))
    if found:
        return found
    if special == PAGE - 16:
        return AccessMethod.BTREE
    magic = int.from_bytes(page[special : special + 4], "little")
    if block == 0 and magic == _SEQUENCE_MAGIC:
        return AccessMethod.SEQUENCE
    return AccessMethod.GIN


def masked(page: bytes, block: int) -> bytes:
    """Return a page with everything cleared that WAL does not carry.

    A heap page without tuples is one that was never used: both come back all zero.
    """
    if not any(page[_LSN_AND_CHECKSUM:]):
        return bytes(PAGE)
    cleared = bytearray(page)
    cleared[:_LSN_AND_CHECKSUM] = bytes(_LSN_AND_CHECKSUM)
    cleared[10] &= ~_HINT_FLAGS
    cleared[20:24] = bytes(4)  # pd_prune_xid
    method = access_method(cleared, block)
    if method is AccessMethod.HEAP and _u16(cleared, 12) == _HEADER:
        return bytes(PAGE)
    _MASKS[method](cleared)
    return bytes(cleared)


def _mask_heap(page: bytearray) -> None:
    _mask_hole(page)
    for start, length in _items(page):
        _clear_bits(page, start + 20, _TUPLE_HINTS | _COMBO_CID)
        page[start + 8 : start + 12] = bytes(4)  # t_cid: replay knows none
        end = start + length
        page[end : _aligned(end)] = bytes(_aligned(end) - end)


def _mask_sequence(page: bytearray) -> None:
    """WAL holds values ahead of those that were handed out: the content compares."""
    _mask_hole(page)
    for start, length in _items(page):
        _clear_bits(page, start + 20, _TUPLE_HINTS)
        values = start + page[start + 22]
        page[values : _aligned(start + length)] = bytes(
            _aligned(start + length) - values
        )


def _mask_btree(page: bytearray) -> None:
    flags = _u16(page, PAGE - 4)
    deleted, leaf = flags & 4, flags & 1
    if deleted:
        _mask_content(page)
    _mask_hole(page)
    if leaf:
        _mask_item_flags(page)
    _clear_bits(page, PAGE - 4, 32 | 64)  # BTP_SPLIT_END, BTP_HAS_GARBAGE
    page[PAGE - 2 :] = bytes(2)  # the cycle id of a vacuum


def _mask_hash(page: bytearray) -> None:
    kind = _u16(page, PAGE - 4) & 0xF
    if kind == 0:
        _mask_content(page)
    _mask_hole(page)
    if kind & 3:  # bucket or overflow page
        _mask_item_flags(page)
    _clear_bits(page, PAGE - 4, 128)  # LH_PAGE_HAS_DEAD_TUPLES


def _mask_gist(page: bytearray) -> None:
    _mask_hole(page)
    page[PAGE - 16 : PAGE - 8] = bytes(8)  # the node's sequence number is an LSN
    if _u16(page, PAGE - 4) & 1:
        _mask_item_flags(page)
    _clear_bits(page, PAGE - 4, 8 | 16)  # F_FOLLOW_RIGHT, F_HAS_GARBAGE


def _mask_gin(page: bytearray) -> None:
    if _u16(page, PAGE - 2) & 4:  # GIN_DELETED
        _mask_content(page)
    elif _u16(page, 12) > _HEADER:
        _mask_hole(page)


def _mask_spgist(page: bytearray) -> None:
    if _u16(page, PAGE - 8) & 1:  # the meta page: which pages were used last
        page[_HEADER + 4 : PAGE - 8] = bytes(PAGE - 12 - _HEADER)
    elif _u16(page, 12) >= _HEADER:
        _mask_hole(page)


def _mask_brin(page: bytearray) -> None:
    _clear_bits(page, PAGE - 4, 1)  # BRIN_EVACUATE_PAGE
    if _u16(page, 12) > _HEADER:
        _mask_hole(page)


_MASKS: dict[AccessMethod, Callable[[bytearray], None]] = {
    AccessMethod.HEAP: _mask_heap,
    AccessMethod.SEQUENCE: _mask_sequence,
    AccessMethod.BTREE: _mask_btree,
    AccessMethod.HASH: _mask_hash,
    AccessMethod.GIST: _mask_gist,
    AccessMethod.GIN: _mask_gin,
    AccessMethod.SPGIST: _mask_spgist,
    AccessMethod.BRIN: _mask_brin,
}


def _mask_hole(page: bytearray) -> None:
    lower, upper = _u16(page, 12), _u16(page, 14)
    if not _HEADER <= lower <= upper <= _u16(page, 16):
        raise ValueError(f"a page's hole can't be from {lower} to {upper}")
    page[lower:upper] = bytes(upper - lower)


def _mask_content(page: bytearray) -> None:
    """Clear all between header and special space: the page is in no structure."""
    special = _u16(page, 16)
    page[_HEADER:special] = bytes(special - _HEADER)
    page[12:16] = bytes([_HEADER, 0]) + special.to_bytes(2, "little")


def _items(page: bytearray) -> Iterator[tuple[int, int]]:
    """Yield place and length of each tuple that has storage."""
    for at in range(_HEADER, _u16(page, 12), 4):
        pointer = int.from_bytes(page[at : at + 4], "little")
        if pointer >> 15 & 3 == 1:
            yield pointer & 0x7FFF, pointer >> 17


def _mask_item_flags(page: bytearray) -> None:
    """An index entry that was found dead is marked so without WAL."""
    for at in range(_HEADER, _u16(page, 12), 4):
        pointer = int.from_bytes(page[at : at + 4], "little") & ~(3 << 15)
        page[at : at + 4] = pointer.to_bytes(4, "little")


def _clear_bits(page: bytearray, at: int, bits: int) -> None:
    page[at : at + 2] = (_u16(page, at) & ~bits).to_bytes(2, "little")


def _u16(page: bytes | bytearray, at: int) -> int:
    return int.from_bytes(page[at : at + 2], "little")


def _aligned(length: int) -> int:
    return length + 7 & ~7
