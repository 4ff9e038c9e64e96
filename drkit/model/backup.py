"""What listings know of a backup: the summary in its commit entry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from drkit.model import members
from drkit.model.fingerprint import FingerprintPlace, Mode
from drkit.model.label import BackupKind
from drkit.model.lsn import Lsn

if TYPE_CHECKING:
    from datetime import datetime


@dataclass(frozen=True, slots=True)
class ManifestRef:
    """Where a backup's manifest is, and the SHA-256 of the stored object."""

    name: str
    size: int
    sha256: str
    dek_id: str


@dataclass(frozen=True, slots=True)
class WalRange:
    """What the WAL from a backup's start to its end is.

    Attributes:
        segments: how many.
        sha256: of each segment's name and the SHA-256 of its content, in order; in hex.
    """

    segments: int
    sha256: str


@dataclass(frozen=True, slots=True)
class BackupSummary:
    """One backup, as its commit entry describes it; sizes in bytes.

    Attributes:
        stop_lsn: recovery is consistent from here on; no target lies before it.
        stored_bytes: what packs, manifest and fingerprint take in the repository.
        damaged_pages: pages whose checksum stayed wrong when they were read.
        fingerprint: None if none was taken with it.
        wal: None if not all of its WAL was signed.
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
    fingerprint: FingerprintPlace | None = None
    wal: WalRange | None = None


def summary_to_json(summary: BackupSummary) -> dict[str, Any]:
    """Return the members of a commit entry's `backup`."""
    fields = {name: getattr(summary, name) for name in BackupSummary.__slots__}
    fields["kind"] = str(summary.kind)
    for name in ("start_lsn", "stop_lsn"):
        fields[name] = str(fields[name])
    for name in ("start_time", "stop_time"):
        fields[name] = fields[name].isoformat()
    if summary.fingerprint is not None:
        mode, lsn = summary.fingerprint
        fields["fingerprint"] = {"mode": str(mode), "lsn": str(lsn)}
    if summary.wal is not None:
        fields["wal"] = {
            "segments": summary.wal.segments,
            "sha256": summary.wal.sha256,
        }
    return fields


def reference_from_json(found: dict[str, Any]) -> ManifestRef:
    """Read a commit entry's `manifest`.

    Raises:
        ValueError, KeyError: a member is missing or malformed.
    """
    return ManifestRef(
        members.text(found, "name"),
        members.count(found, "size"),
        members.text(found, "sha256"),
        members.text(found, "dek_id"),
    )


def summary_from_json(found: dict[str, Any]) -> BackupSummary:
    """Read a commit entry's `backup`.

    Raises:
        ValueError, KeyError: a member is missing or malformed.
    """
    return BackupSummary(
        label=members.text(found, "label"),
        kind=BackupKind(found["kind"]),
        source=members.text(found, "source"),
        start_lsn=Lsn.parse(members.text(found, "start_lsn")),
        stop_lsn=Lsn.parse(members.text(found, "stop_lsn")),
        timeline=members.count(found, "timeline"),
        start_time=members.moment(found, "start_time"),
        stop_time=members.moment(found, "stop_time"),
        system_identifier=members.text(found, "system_identifier"),
        server_version=members.count(found, "server_version"),
        wal_segment_size=members.count(found, "wal_segment_size"),
        files=members.count(found, "files"),
        bytes=members.count(found, "bytes"),
        stored_bytes=members.count(found, "stored_bytes"),
        damaged_pages=members.count(found, "damaged_pages"),
        warnings=members.count(found, "warnings"),
        fingerprint=_fingerprint_from_json(found),
        wal=_wal_from_json(found),
    )


def _fingerprint_from_json(found: dict[str, Any]) -> FingerprintPlace | None:
    """Read what entries lack that are older than fingerprints."""
    if found.get("fingerprint") is None:
        return None
    place = members.nested(found, "fingerprint")
    lsn = Lsn.parse(members.text(place, "lsn"))
    return FingerprintPlace(Mode(members.text(place, "mode")), lsn)


def _wal_from_json(found: dict[str, Any]) -> WalRange | None:
    """Read what entries lack that are older than signed WAL."""
    if found.get("wal") is None:
        return None
    wal = members.nested(found, "wal")
    return WalRange(members.count(wal, "segments"), members.sha256(wal, "sha256"))
