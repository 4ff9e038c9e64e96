"""Pages as differences: what lies a tuple's width apart is often nearly the same.

Index tuples, and rows of columns of fixed length, are all of one width in most
relations. From one to the next only some bytes differ, and by little: keys and block
numbers ascend. So each 64-bit word of a page, but the first few, is replaced by what it
is more than the word one width before it. Long stretches of those are the same, which
zstd makes small, and fast: of ascending numbers' indexes a fifteenth of what it makes
of the pages, in a third of the time with what is done here.

The layout is in docs/repository-format.md, "Sealed objects". Such filters are old:
`delta` of XZ Utils (`lzma_options_delta`) does this by bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.lib.stride_tricks import as_strided

from drkit.model.page import PAGE

if TYPE_CHECKING:
    import numpy.typing as npt

    from drkit.protocols import Buffer

    Words = npt.NDArray[np.uint64]

WORD = 8
_WORDS = PAGE // WORD


def take(pages: Buffer, width: int, into: Words) -> memoryview:
    """Write the differences of whole pages; return them as bytes.

    Args:
        width: from each word to the one that it is compared with, in words.
        into: at least as long as the pages.
    """
    words = np.frombuffer(pages, dtype="<u8").reshape(-1, _WORDS)
    found = into[: words.size].reshape(words.shape)
    found[:, :width] = words[:, :width]
    np.subtract(words[:, width:], words[:, :-width], out=found[:, width:])
    return found.reshape(-1).view(np.uint8).data


def undo(differences: Buffer, width: int) -> memoryview:
    """Return the pages that have these differences; takes what `take` does."""
    given = np.frombuffer(differences, dtype="<u8").reshape(-1, _WORDS)
    pages = np.empty_like(given)
    rows, rest = divmod(_WORDS, width)
    np.add.accumulate(_rows(given, rows, width), axis=1, out=_rows(pages, rows, width))
    end = rows * width
    before = pages[:, end - width : end - width + rest]
    np.add(before, given[:, end:], out=pages[:, end:])
    return pages.reshape(-1).view(np.uint8).data


def _rows(pages: Words, rows: int, width: int) -> Words:
    """Return a view of the pages as rows of `width` words; a rest is left out."""
    steps = (PAGE, width * WORD, WORD)
    return as_strided(pages, (len(pages), rows, width), steps)
