"""What a base backup source hands over when it has read a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from drkit.model.manifest import FileKind, Tablespace, WalPosition


class CopiedFile(NamedTuple):
    """A file or directory as it was read; size is what was read of it, in bytes."""

    path: bytes
    kind: FileKind
    mode: int
    size: int
    mtime: int


class Copied(NamedTuple):
    """All files that were read.

    Attributes:
        files: by the number under which their bytes were written; None where a file
            vanished before it could be read.
        damaged: number of the file and block in it, for each page whose checksum
            stayed wrong.
    """

    files: list[CopiedFile | None]
    tablespaces: list[Tablespace]
    damaged: list[tuple[int, int]]
    warnings: list[str]


class BackupEnd(NamedTuple):
    """Where a backup ended, and the files that the server made for it."""

    position: WalPosition
    backup_label: bytes
    tablespace_map: bytes
