"""The head of a manifest: all of it that is not a column.

It says of which server a backup is, and where in its WAL. Apart from the columns, since
what only asks a server needs none of what they take.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from drkit.model.fingerprint import FingerprintRef
    from drkit.model.label import BackupKind
    from drkit.model.lsn import Lsn


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
class ParentRef:
    """The backup that an incremental's page maps lie over.

    Attributes:
        sha256: of the stored manifest, as the parent's commit entry has it.
    """

    label: str
    sha256: str


@dataclass(frozen=True, slots=True)
class ManifestHead:
    """All of a manifest that is not a column.

    Attributes:
        parent: None for a full backup.
        source: `local` or `stream`.
        dek_id: the DEK of the packs, 32 hex digits.
        backup_label, tablespace_map: as the server gave them.
        warnings: what a person should know of this backup.
        fingerprint: None if none was taken.
    """

    drkit_version: str
    cluster: str
    label: str
    attempt: str
    kind: BackupKind
    parent: ParentRef | None
    source: str
    dek_id: str
    server: ServerDescription
    start: WalPosition
    stop: WalPosition
    backup_label: str
    tablespace_map: str
    tablespaces: tuple[Tablespace, ...]
    warnings: tuple[str, ...]
    fingerprint: FingerprintRef | None = None
