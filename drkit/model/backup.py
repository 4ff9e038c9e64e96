"""What listings know of a backup: the summary in its commit entry."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from drkit.model.label import BackupKind
from drkit.model.lsn import Lsn


@dataclass(frozen=True, slots=True)
class ManifestRef:
    """Where a backup's manifest is, and the SHA-256 of the stored object."""

    name: str
    size: int
    sha256: str
    dek_id: str


@dataclass(frozen=True, slots=True)
class BackupSummary:
    """One backup, as its commit entry describes it; sizes in bytes.

    Attributes:
        stop_lsn: recovery is consistent from here on; no target lies before it.
        stored_bytes: what packs and manifest take in the repository.
        damaged_pages: pages whose checksum stayed wrong when they were read.
    """

    label: str
    kind: BackupKind
    source: str
    start_lsn: Lsn
    stop_lsn: Lsn
    timeline: int
    start_time: datetime
    stop_time: datetime
    system_identifier: str
    server_version: int
    wal_segment_size: int
    files: int
    bytes: int
    stored_bytes: int
    damaged_pages: int
    warnings: int


def summary_to_json(summary: BackupSummary) -> dict[str, Any]:
    """Return the members of a commit entry's `backup`."""
    fields = {name: getattr(summary, name) for name in BackupSummary.__slots__}
    fields["kind"] = str(summary.kind)
    for name in ("start_lsn", "stop_lsn"):
        fields[name] = str(fields[name])
    for name in ("start_time", "stop_time"):
        fields[name] = fields[name].isoformat()
    return fields


def summary_from_json(found: dict[str, Any]) -> BackupSummary:
    """Read a commit entry's `backup`.

    Raises:
        ValueError, KeyError, TypeError: a member is missing or malformed.
    """
    fields = {name: found[name] for name in BackupSummary.__slots__}
    fields["kind"] = BackupKind(fields["kind"])
    for name in ("start_lsn", "stop_lsn"):
        fields[name] = Lsn.parse(fields[name])
    for name in ("start_time", "stop_time"):
        fields[name] = datetime.fromisoformat(fields[name])
    return BackupSummary(**fields)
