"""Bridging: a full backup's runs written in one go, though newer pages cut holes there.

Behind a long chain of incrementals a full backup's runs are left in many small pieces.
Writing the outdated pages between them too takes no more of the processor, since newer
pages then find theirs in memory, and what comes in a row goes to the disk at once: the
fsync at the end waits half as long. What is newer must be written after that.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from drkit.model.manifest import Rows
    from drkit.model.pagemap import PageMap

_WORTH_GAP = 64 << 10  # write over what is outdated rather than twice beside it


def bridge(page_map: PageMap) -> PageMap:
    """Return the map with the full backup's pieces joined over what newer ones cover.

    Pieces overlap then: those of the full backup are to be written before all others.
    Nothing is joined over a hole, nor beyond the last piece of a run.
    """
    if len(page_map.layers) == 1:
        return page_map
    first, lengths = _joined(page_map.pieces)
    keep = page_map.pieces["layer"] != 0
    keep[first] = True
    pieces = page_map.pieces.copy()
    pieces["length"][first] = lengths
    files = page_map.files.copy()
    files["runs"] = np.bincount(page_map.piece_files()[keep], minlength=len(files))
    return replace(page_map, files=files, pieces=pieces[keep])


def passes(bridged: PageMap) -> Iterator[npt.NDArray[np.bool_]]:
    """Yield the pieces of each pass; a pass begins when the one before it is done.

    The writes of one pass never overlap.
    """
    full = bridged.pieces["layer"] == 0
    yield full
    if not full.all():
        yield ~full


def _joined(pieces: Rows) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return which of layer 0's pieces begin a write, and how long each write is."""
    mine = np.flatnonzero(pieces["layer"] == 0)
    starts = pieces["position"][mine].astype(np.int64)
    ends = starts + pieces["length"][mine]
    runs = pieces["run"][mine]
    gaps = starts[1:] - ends[:-1]
    # pieces don't overlap: a gap is covered if those within are together as long
    behind = np.cumsum(pieces["length"], dtype=np.int64)[mine]
    covered = behind[1:] - behind[:-1] - pieces["length"][mine[1:]]
    joins = (runs[1:] == runs[:-1]) & (gaps == covered) & (gaps <= _WORTH_GAP)
    begins = np.ones(len(mine), dtype=bool)
    begins[1:] = ~joins
    closes = np.ones(len(mine), dtype=bool)
    closes[:-1] = ~joins
    return mine[begins], ends[closes] - starts[begins]
