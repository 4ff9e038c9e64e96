"""Pages that became all visible: a change that their LSN may not tell of.

VACUUM sets a table page's flag and the bit of its visibility map in one WAL record.
Where hints are not in the WAL (no page checksums, `wal_log_hints` off) it leaves the
page's LSN as it was. A backup that took the map as it is and the page from its parent
would restore a bit without its flag: the next change of the page would then not clear
the bit, and index-only scans would show rows that are gone.

Source: `visibilitymap_set` in `src/backend/access/heap/visibilitymap.c`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from drkit.model.page import PAGE
from drkit.postgres.pages import page_lsns

if TYPE_CHECKING:
    import numpy.typing as npt

    Blocks = npt.NDArray[np.int64]
    Pages = npt.NDArray[np.uint8]

_HEADER = 24
_BLOCKS_PER_PAGE = (PAGE - _HEADER) * 4  # two bits each: all visible, all frozen


def map_stretch(first: int, behind: int) -> tuple[int, int]:
    """Return the stretch (position, length) of a map that tells of some blocks.

    Args:
        first, behind: the blocks, counted over all segments of the relation.
    """
    page, last = first // _BLOCKS_PER_PAGE, (behind - 1) // _BLOCKS_PER_PAGE
    return page * PAGE, (last + 1 - page) * PAGE


def newly_visible(
    old: bytes, new: bytes, first: int, behind: int, since: int
) -> Blocks:
    """Return the blocks that are all visible in `new`, and may not have been in `old`.

    A page of the old map that was written while its backup was taken (its own LSN
    tells, as it always moves) proves nothing: that backup may have read the table's
    page before the flag was set, and the map after.

    Args:
        old, new: the stretch of the map that `map_stretch` names; what is missing at
            its end counts as not visible.
        since: where the backup that holds `old` started.
    """
    start = first - first % _BLOCKS_PER_PAGE
    _, length = map_stretch(first, behind)
    before, now = _pages(old, length), _pages(new, length)
    before[page_lsns(before.tobytes()) >= since] = 0
    gained = _visible(now) & ~_visible(before)
    blocks = np.flatnonzero(gained).astype(np.int64) + start
    return blocks[(blocks >= first) & (blocks < behind)]


def _pages(stretch: bytes, length: int) -> Pages:
    pages = np.zeros(length, np.uint8)
    pages[: len(stretch)] = np.frombuffer(stretch, np.uint8)
    return pages.reshape(-1, PAGE)


def _visible(pages: Pages) -> npt.NDArray[np.bool_]:
    bits = np.unpackbits(pages[:, _HEADER:], bitorder="little")
    return bits[0::2].astype(np.bool_)
