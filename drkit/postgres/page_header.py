"""The shape of page headers: what can be told of pages without a checksum.

The rules are those by which PostgreSQL refuses a page (`PageIsVerified` in
`src/backend/storage/page/bufpage.c`), and the layout's version, 4 since 8.3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from drkit.model.page import PAGE

if TYPE_CHECKING:
    from drkit.protocols import Buffer

_FLAGS, _LOWER, _UPPER, _SPECIAL, _SIZE_AND_VERSION = 5, 6, 7, 8, 9  # 16-bit words
_KNOWN_FLAGS = 0x0007
_LAYOUT = PAGE | 4
_ALIGNMENT = 8


def empty(pages: Buffer) -> int:
    """Return how many of whole pages are new: nothing was ever put on them."""
    words = np.frombuffer(pages, dtype="<u2").reshape(-1, PAGE // 2)
    return int(np.count_nonzero(words[:, _UPPER] == 0))


def misshapen(pages: Buffer) -> list[int]:
    """Return the indexes of whole pages whose header no server writes.

    A page whose `pd_upper` is zero is new, and right only if all of it is zero.
    """
    words = np.frombuffer(pages, dtype="<u2").reshape(-1, PAGE // 2)
    lower, upper, special = words[:, _LOWER], words[:, _UPPER], words[:, _SPECIAL]
    new = upper == 0
    wrong = (
        (words[:, _FLAGS] & np.uint16(0xFFFF ^ _KNOWN_FLAGS) != 0)
        | (lower > upper)
        | (upper > special)
        | (special > PAGE)
        | (special % _ALIGNMENT != 0)
        | (words[:, _SIZE_AND_VERSION] != _LAYOUT)
    ) & ~new
    suspects: list[int] = np.flatnonzero(wrong).tolist()
    if new.any():
        dirty = words[new].any(axis=1)
        suspects += np.flatnonzero(new)[dirty].tolist()
    return sorted(suspects)
