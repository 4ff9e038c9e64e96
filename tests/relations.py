"""Pages of made-up relations, laid out as PostgreSQL lays them out.

What matters here is where tuples lie and what they begin with: checksums are zero.
"""

from __future__ import annotations

import random
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PAGE = 8192
HEADER = 24
POINTER = 4
NORMAL = 1 << 15  # `lp_flags` of a line pointer: LP_NORMAL


def page(tuples: Iterable[bytes], special: int = 0) -> bytes:
    """One page with these tuples: line pointers ascend, tuples grow from the end."""
    pointers, body, end = b"", b"", PAGE - special
    for one in tuples:
        padded = one + bytes(-len(one) % 8)
        body = padded + body
        at = end - len(body)
        pointers += struct.pack("<I", at | NORMAL | len(one) << 17)
    lower, upper = HEADER + len(pointers), end - len(body)
    header = struct.pack(
        "<IIHHHHHHI", 0, 0x2000028, 0, 0, lower, upper, end, PAGE | 4, 0
    )
    assert lower <= upper
    return header + pointers + bytes(upper - lower) + body + bytes(special)


def index_pages(count: int) -> bytes:
    """Leaves of a B-tree over ascending 8-byte keys: tuples of 16 bytes."""
    return b"".join(page(_index_tuples(leaf), special=16) for leaf in range(count))


def _index_tuples(leaf: int) -> Iterator[bytes]:
    each = 366  # of 407, at the fillfactor of 90 %
    for key in range(leaf * each, (leaf + 1) * each):
        block, place = divmod(key, 185)
        yield struct.pack("<HHHHq", block >> 16, block & 0xFFFF, place + 1, 16, key)


def heap_pages(count: int, width: int, seed: int = 1) -> bytes:
    """Rows of ascending numbers and a few random bits, as long as `width` says.

    Args:
        width: of a tuple with its header, in bytes: at least 40.
    """
    chosen = random.Random(seed)
    each = (PAGE - HEADER) // (width + -width % 8 + POINTER)
    return b"".join(
        page(_row(block, place, each, width, chosen) for place in range(each))
        for block in range(count)
    )


def _row(block: int, place: int, each: int, width: int, chosen: random.Random) -> bytes:
    number = block * each + place
    row = struct.pack("<IIIHHHHHBB", 740, 0, 0, 0, block, place + 1, 2, 0x900, 24, 0)
    row = row[:24].ljust(24, b"\0") + struct.pack("<qq", number, chosen.randrange(1000))
    return row.ljust(width, b"\1")


def varied_pages(count: int, seed: int = 1) -> bytes:
    """Rows of text, most of another length than their neighbours."""
    chosen = random.Random(seed)
    return b"".join(page(_texts(chosen)) for _ in range(count))


def _texts(chosen: random.Random) -> Iterator[bytes]:
    for number in range(30):
        words = [
            b"%d" % chosen.randrange(10**6) for _ in range(chosen.randrange(1, 30))
        ]
        yield struct.pack("<IIIIII", 740, 0, 0, number, 0x902, 24) + b" ".join(words)
