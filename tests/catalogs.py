"""Catalogs of backups for tests of retention: made up, in memory, without a server."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from drkit.model.backup import BackupSummary
from drkit.model.label import BackupKind, label_time, new_label
from drkit.model.log import Begin, Commit
from drkit.model.lsn import Lsn
from drkit.repository.manifests import write_manifest
from drkit.repository.packing import PackWriter
from tests.builders import (
    SEGMENT,
    SYSTEM,
    commit_entry,
    manifest_head,
    manifest_of,
    new_attempt,
    packing,
    write_files,
)

if TYPE_CHECKING:
    from drkit.repository.repository import Repository

NOW = datetime(2026, 6, 15, 12, 0, tzinfo=UTC)
FULL, INCR = BackupKind.FULL, BackupKind.INCREMENTAL
DUMP, FILES = BackupKind.DUMP, BackupKind.FILES


def backup(
    ended: datetime,
    kind: BackupKind = FULL,
    *,
    start: int = 0,
    stop: int | None = None,
    timeline: int = 1,
    damaged: int = 0,
    label: str | None = None,
) -> BackupSummary:
    """A backup's summary; `start` and `stop` count segments."""
    start_lsn = start * SEGMENT + 0x28
    stop_lsn = start_lsn + 0x100 if stop is None else stop * SEGMENT + 0x100
    return BackupSummary(
        label=label or new_label(ended, kind, None),
        kind=kind,
        source="local",
        start_lsn=Lsn(start_lsn),
        stop_lsn=Lsn(stop_lsn),
        timeline=timeline,
        start_time=ended - timedelta(seconds=5),
        stop_time=ended,
        system_identifier=SYSTEM,
        server_version=180000,
        wal_segment_size=SEGMENT,
        files=1,
        bytes=1,
        stored_bytes=1 << 20,
        damaged_pages=damaged,
        warnings=0,
    )


def store(
    repository: Repository,
    kind: BackupKind = FULL,
    *,
    parent: str | None = None,
    objects: bool = True,
    files: int = 3,
    **summary: Any,
) -> Commit:
    """Write a backup that ends now, by the repository's clock: objects and entries.

    Args:
        repository: where.
        kind: of the backup.
        parent: its label, for an incremental.
        objects: False spares packs, manifest and keys.
        files: how many files, each in a pack of its own.
        summary: as for `backup`.
    """
    data_key = repository.keyring.create("backup") if objects else None
    manifest_key = repository.keyring.create("catalog") if objects else None
    keys = [(key.purpose, key.key_id.hex()) for key in (data_key, manifest_key) if key]
    begun = start(repository, kind, parent=parent, keys=keys, **summary)
    entry = commit_entry(begun)
    if data_key and manifest_key:
        shared = packing(repository, data_key, begun.label, begun.attempt)
        writers = [PackWriter(shared, 8 << 20) for _ in range(files)]
        contents = {b"%03d" % number: b"content" for number in range(files)}
        head = manifest_head(begun, data_key.key_id.hex())
        manifest = manifest_of(head, *write_files(writers, contents))
        name = repository.layout.manifest(begun.label, begun.attempt)
        entry = replace(
            entry, manifest=write_manifest(repository, name, manifest, manifest_key)
        )
    made = backup(repository.clock.now(), kind, label=begun.label, **summary)
    entry = replace(entry, backup=made)
    repository.log.append(lambda _: entry)
    return entry


def start(
    repository: Repository,
    kind: BackupKind = FULL,
    *,
    parent: str | None = None,
    keys: list[tuple[str, str]] | None = None,
    **summary: Any,
) -> Begin:
    """Write the `begin` of an attempt."""
    now = repository.clock.now()
    place = backup(now, kind, **summary)
    logged = repository.log.append(
        lambda state: Begin(
            new_attempt(),
            new_label(now, kind, state.last_label),
            kind,
            parent,
            place.start_lsn,
            place.timeline,
            tuple(keys or ()),
        )
    )
    assert isinstance(logged.entry, Begin)
    assert label_time(logged.entry.label) >= now.replace(microsecond=0)
    return logged.entry
