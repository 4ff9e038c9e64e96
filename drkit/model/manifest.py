"""A backup's manifest in memory: a head, and columns for everything numerous.

A cluster may have a million files, so nothing here is an object per file but the
path. What the columns mean is in docs/repository-format.md, "Manifest".
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from drkit.model.head import ManifestHead

Rows = npt.NDArray[np.void]
Row = np.void

PACK = np.dtype([("size", "<u8"), ("sha256", "u1", (32,)), ("frames", "<u4")])
FRAME = np.dtype([("stored", "<u4"), ("plain", "<u4"), ("codec", "u1")])
FILE = np.dtype(
    [
        ("kind", "u1"),
        ("mode", "<u2"),
        ("size", "<u8"),
        ("mtime", "<i8"),
        ("identity", "<u8"),
        ("kept", "<u8"),
        ("runs", "<u4"),
    ]
)
RUN = np.dtype(
    [
        ("position", "<u8"),
        ("length", "<u4"),
        ("frame", "<u4"),
        ("offset", "<u4"),
        ("digest", "u1", (16,)),
    ]
)
DAMAGED = np.dtype([("file", "<u4"), ("block", "<u4")])

CONTROL_FILE = b"global/pg_control"
"""Read last by a backup and written last by a restore."""


class FileKind(IntEnum):
    """What an entry of the manifest is; an attachment is not restored."""

    FILE = 1
    DIRECTORY = 2
    ATTACHMENT = 3


@dataclass(frozen=True, slots=True, eq=False)
class Manifest:
    """A backup's files and where their bytes lie.

    An incremental lists only what differs from its parent; `drkit.model.pagemap` lays
    it over the manifests before it.

    Attributes:
        paths: one per row of `files`, in strictly ascending byte order.
        runs: in the order of files, ascending inside each.
        gone: paths of the parent that this backup has no more, ascending.
    """

    head: ManifestHead
    paths: list[bytes]
    files: Rows
    packs: Rows
    frames: Rows
    runs: Rows
    damaged: Rows
    gone: tuple[bytes, ...] = ()

    def run_files(self) -> npt.NDArray[np.uint32]:
        """Return for each run the number of its file."""
        numbers = np.arange(len(self.files), dtype=np.uint32)
        return np.repeat(numbers, self.files["runs"])

    def frame_packs(self) -> npt.NDArray[np.uint32]:
        """Return for each frame the number of its pack."""
        numbers = np.arange(len(self.packs), dtype=np.uint32)
        return np.repeat(numbers, self.packs["frames"])

    def content_bytes(self) -> int:
        """Return the length of all files together."""
        return int(self.files["size"].sum())

    def find(self, path: bytes) -> int | None:
        """Return the number of the file at `path`, or None."""
        return find_path(self.paths, path)


def find_path(paths: Sequence[bytes], path: bytes) -> int | None:
    """Return the place of `path` in ascending `paths`, or None."""
    place = bisect_left(paths, path)
    return place if place < len(paths) and paths[place] == path else None


def empty(dtype: np.dtype[np.void]) -> Rows:
    """Return a table without rows."""
    return np.empty(0, dtype=dtype)
