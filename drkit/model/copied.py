"""What a base backup source tells of a server, and of what it has read."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from drkit.model.head import ServerDescription, Tablespace, WalPosition
    from drkit.model.lsn import Lsn
    from drkit.model.manifest import FileKind
    from drkit.model.timeline import TimelineHistory


class Present(NamedTuple):
    """The server as it is now.

    Attributes:
        history: of the timeline that it is on.
        lsn: how far it has written, or replayed.
    """

    server: ServerDescription
    history: TimelineHistory
    lsn: Lsn


class Started(NamedTuple):
    """A backup that has begun on the server.

    Attributes:
        refusal: why it is a full one though a parent was given; None if it is not.
    """

    position: WalPosition
    refusal: str | None = None


class CopiedFile(NamedTuple):
    """A file or directory as it was read; size is what there was of it, in bytes.

    Attributes:
        identity: differs from the parent's where this is another file of the same
            name; 0 where the source can't tell.
        kept: below here, what was not written is as the parent has it; 0 where all of
            the file was written.
    """

    path: bytes
    kind: FileKind
    mode: int
    size: int
    mtime: int
    identity: int = 0
    kept: int = 0


class Copied(NamedTuple):
    """All files that were read.

    Attributes:
        files: by the number under which their bytes were written; None where a file
            vanished before it could be read, or turned out not to belong there.
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

    @property
    def from_standby(self) -> bool:
        """Whether the server was a standby, which can't end a WAL segment itself."""
        return b"\nBACKUP FROM: standby\n" in self.backup_label
