"""Pages that are to be read, and frames that were filled but are not sealed yet."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from drkit.model.manifest import RUN

if TYPE_CHECKING:
    import numpy.typing as npt

    from drkit.model.manifest import Rows
    from drkit.model.owner import Owner

PAGES_AT_ONCE = 256
"""Of 8192 bytes: what fills a frame."""

# Runs are collected with their file's number, which the manifest drops again.
FILE_RUN = np.dtype([("file", "<u4"), *RUN.descr])


class FilePages(NamedTuple):
    """Pages of one file, by their numbers.

    Attributes:
        file: its number in the manifest.
        place: its path, as the system has it.
        root: a directory above it, from which no link leads to it.
        owner: whom root acts as to open it; None stays who it is.
        blocks: the pages' numbers in this file, in order.
        first: the number of the file's first page, counted over all segments of its
            fork; a page's checksum covers that.
    """

    file: int
    place: bytes
    root: bytes
    owner: Owner | None
    blocks: npt.NDArray[np.int64]
    first: int


class FilledFrame(NamedTuple):
    """A frame before it is sealed.

    Attributes:
        payload: what is to be sealed; it may be overwritten once that is done.
        plain: bytes of plaintext.
        codec: of the payload, one of `drkit.crypto.sealing`'s.
        runs: FILE_RUN rows of what is in it, their frame not numbered yet.
    """

    payload: bytes | bytearray | memoryview
    plain: int
    codec: int
    runs: Rows
