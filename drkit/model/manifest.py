"""A backup's manifest in memory: a head, and columns for everything numerous.

A cluster may have a million files, so nothing here is an object per file but the
path. What the columns mean is in docs/repository-format.md, "Manifest".
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from datetime import datetime

    from drkit.model.label import BackupKind
    from drkit.model.lsn import Lsn

Rows = npt.NDArray[np.void]

PACK = np.dtype([("size", "<u8"), ("sha256", "u1", (32,)), ("frames", "<u4")])
FRAME = np.dtype([("stored", "<u4"), ("plain", "<u4"), ("codec", "u1")])
FILE = np.dtype(
    [
        ("kind", "u1"),
        ("mode", "<u2"),
        ("size", "<u8"),
        ("mtime", "<i8"),
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


@dataclass(frozen=True, slots=True)
class WalPosition:
    """A position in WAL and the wall clock's time when it was read."""

    lsn: Lsn
    timeline: int
    time: datetime


@dataclass(frozen=True, slots=True)
class ServerDescription:
    """The server that a backup was taken from; segment sizes as PostgreSQL has them.

    Attributes:
        version: as `server_version_num`, for example 150018.
        relation_segment_size: in blocks.
        wal_segment_size: in bytes.
        group_access: whether the data directory is readable by its group.
        config_file: the configuration file, where it lies outside of the data
            directory and so is not in the backup; else empty.
    """

    system_identifier: str
    version: int
    catalog_version: int
    control_version: int
    block_size: int
    relation_segment_size: int
    wal_segment_size: int
    data_checksums: bool
    group_access: bool
    config_file: str = ""


@dataclass(frozen=True, slots=True)
class Tablespace:
    """A tablespace; one that is `in_place` lies inside the data directory."""

    oid: int
    path: str
    name: str
    in_place: bool


@dataclass(frozen=True, slots=True)
class ManifestHead:
    """All of a manifest that is not a column.

    Attributes:
        source: `local` or `stream`.
        dek_id: the DEK of the packs, 32 hex digits.
        backup_label, tablespace_map: as the server gave them.
        warnings: what a person should know of this backup.
    """

    drkit_version: str
    cluster: str
    label: str
    attempt: str
    kind: BackupKind
    source: str
    dek_id: str
    server: ServerDescription
    start: WalPosition
    stop: WalPosition
    backup_label: str
    tablespace_map: str
    tablespaces: tuple[Tablespace, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Manifest:
    """A backup's files and where their bytes lie.

    Attributes:
        paths: one per row of `files`, in strictly ascending byte order.
        runs: in the order of files, ascending inside each.
    """

    head: ManifestHead
    paths: list[bytes]
    files: Rows
    packs: Rows
    frames: Rows
    runs: Rows
    damaged: Rows

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
        low, high = 0, len(self.paths)
        while low < high:
            middle = (low + high) // 2
            if self.paths[middle] < path:
                low = middle + 1
            else:
                high = middle
        return low if low < len(self.paths) and self.paths[low] == path else None


def empty(dtype: np.dtype[np.void]) -> Rows:
    """Return a table without rows."""
    return np.empty(0, dtype=dtype)
