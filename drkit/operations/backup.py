"""Taking a full backup: keys, packs, manifest, log, in that order."""

from __future__ import annotations

import itertools
import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from drkit import __version__, workers
from drkit.crypto.keys import new_dek
from drkit.errors import DrkitError
from drkit.model.backup import BackupSummary
from drkit.model.label import BackupKind, new_label
from drkit.model.log import Begin, Commit
from drkit.model.manifest import DAMAGED, FILE, RUN, Manifest, ManifestHead, Rows
from drkit.operations.attempts import abandon, abandon_dead, leased, sweep_attempt
from drkit.operations.waiting import wait_for_wal
from drkit.repository.packing import (
    Packed,
    Packing,
    PackWriter,
    assemble,
    pack_bytes,
)
from drkit.repository.repository import write_manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import timedelta

    from drkit.crypto.keys import Dek
    from drkit.model.backup import ManifestRef
    from drkit.model.copied import BackupEnd, Copied, CopiedFile
    from drkit.model.log import Entry, LogState
    from drkit.model.manifest import ServerDescription, WalPosition
    from drkit.protocols import BaseBackupSource, Progress
    from drkit.repository.repository import Repository


@dataclass(frozen=True, slots=True)
class BackupOptions:
    """How a backup is taken.

    Attributes:
        source: `local` or `stream`, as recorded in the manifest.
        jobs: threads that read, compress and store.
        level: of zstd.
        wal_timeout: how long each WAL segment that the backup needs may take to arrive.
        archiver: asks the server why archiving may be stuck, for the message.
    """

    host: str
    source: str
    jobs: int
    level: int
    wal_timeout: timedelta
    archiver: Callable[[], str]


@dataclass(frozen=True, slots=True)
class _Attempt:
    attempt: str
    label: str
    start: WalPosition
    data_key: Dek
    manifest_key: Dek


def full_backup(
    repository: Repository,
    server: ServerDescription,
    source: BaseBackupSource,
    options: BackupOptions,
    progress: Progress,
) -> BackupSummary:
    """Take a full backup and return its summary; it is listed only when it is whole.

    Raises:
        Locked: another backup of this cluster is running.
        WalMissing: the WAL that it needs did not arrive; the backup is given up.
        AttemptFenced: another host declared this attempt dead.
    """
    repository.backups()
    abandon_dead(repository, options.host, progress)
    attempt_id = os.urandom(16).hex()
    with (
        leased(repository, attempt_id, options.host, progress),
        _abandoned_on_failure(repository, attempt_id, progress),
    ):
        attempt = _begin(repository, source, attempt_id, progress)
        for key in (attempt.data_key, attempt.manifest_key):
            repository.keyring.store(key)
        copied, packed, end = _copy(repository, source, attempt, options, progress)
        progress.phase("wal")
        wait_for_wal(
            repository,
            server,
            attempt.start,
            end.position,
            options.wal_timeout,
            options.archiver,
            progress,
        )
        progress.phase("commit")
        head = _head(repository, server, attempt, options, copied, end)
        return _commit(repository, attempt, _manifest(head, copied, packed))


def _begin(
    repository: Repository,
    source: BaseBackupSource,
    attempt: str,
    progress: Progress,
) -> _Attempt:
    progress.phase("start")
    label_of = _label_chooser(repository)
    start = source.start(f"drkit {label_of(repository.log.state)}")
    # The entry names the keys before they are stored: none is ever left unknown.
    data_key, manifest_key = new_dek("backup"), new_dek("catalog")
    keys = tuple((key.purpose, key.key_id.hex()) for key in (data_key, manifest_key))

    def decide(state: LogState) -> Entry:
        label = label_of(state)
        return Begin(
            attempt, label, BackupKind.FULL, None, start.lsn, start.timeline, keys
        )

    begin = repository.log.append(decide).entry
    if not isinstance(begin, Begin):
        raise TypeError("the log returned another entry than it was given")
    progress.event("backup begun", label=begin.label, start_lsn=str(start.lsn))
    return _Attempt(attempt, begin.label, start, data_key, manifest_key)


def _label_chooser(repository: Repository) -> Callable[[LogState], str]:
    now = repository.clock.now()
    return lambda state: new_label(now, BackupKind.FULL, state.last_label)


@contextmanager
def _abandoned_on_failure(
    repository: Repository, attempt: str, progress: Progress
) -> Iterator[None]:
    """Abandon and sweep the attempt if the block fails; what failed is raised on."""
    try:
        yield
    except BaseException as error:
        try:
            abandon(repository, attempt, str(error) or type(error).__name__)
            sweep_attempt(repository, attempt, progress)
        except DrkitError as other:
            progress.warning(
                "could not clear away the failed backup; the next one will",
                error=str(other),
            )
        raise


def _copy(
    repository: Repository,
    source: BaseBackupSource,
    attempt: _Attempt,
    options: BackupOptions,
    progress: Progress,
) -> tuple[Copied, Packed, BackupEnd]:
    packing = Packing(
        repository.storage,
        attempt.data_key,
        repository.lineage,
        options.level,
        lambda number: repository.layout.pack(attempt.label, attempt.attempt, number),
        itertools.count(),
    )
    size = pack_bytes(options.jobs)
    writers = [PackWriter(packing, size) for _ in range(options.jobs)]
    copied = source.copy(writers, progress)
    progress.phase("stop")
    end = source.stop()
    packed = Packed()
    for part in workers.run([_closing(writer) for writer in writers]):
        packed.extend(part)
    return copied, packed, end


def _closing(writer: PackWriter) -> Callable[[workers.Stop], Packed]:
    return lambda _: writer.close()


def _head(
    repository: Repository,
    server: ServerDescription,
    attempt: _Attempt,
    options: BackupOptions,
    copied: Copied,
    end: BackupEnd,
) -> ManifestHead:
    return ManifestHead(
        drkit_version=__version__,
        cluster=repository.layout.cluster,
        label=attempt.label,
        attempt=attempt.attempt,
        kind=BackupKind.FULL,
        source=options.source,
        dek_id=attempt.data_key.key_id.hex(),
        server=server,
        start=attempt.start,
        stop=end.position,
        backup_label=end.backup_label.decode(errors="surrogateescape"),
        tablespace_map=end.tablespace_map.decode(errors="surrogateescape"),
        tablespaces=tuple(copied.tablespaces),
        warnings=tuple(copied.warnings),
    )


def _manifest(head: ManifestHead, copied: Copied, packed: Packed) -> Manifest:
    """Put the files in order and lay their runs beside them."""
    packs, frames, file_runs = assemble(packed)
    paths, files, renumbered = _file_table(copied.files)
    runs, counts = _run_table(file_runs, renumbered, len(paths))
    files["runs"] = counts
    damaged = np.array(
        [(renumbered[number], block) for number, block in copied.damaged], dtype=DAMAGED
    )
    return Manifest(head, paths, files, packs, frames, runs, damaged)


def _file_table(
    copied: list[CopiedFile | None],
) -> tuple[list[bytes], Rows, np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """Return paths in order, their rows, and by old number each file's new one."""
    kept = sorted(
        (file.path, number) for number, file in enumerate(copied) if file is not None
    )
    renumbered = np.full(len(copied), -1, dtype=np.int64)
    rows = np.zeros(len(kept), dtype=FILE)
    for place, (_, number) in enumerate(kept):
        file = copied[number]
        if file is not None:
            rows[place] = (file.kind, file.mode, file.size, file.mtime, 0)
        renumbered[number] = place
    return [path for path, _ in kept], rows, renumbered


def _run_table(
    file_runs: Rows,
    renumbered: np.ndarray[tuple[int], np.dtype[np.int64]],
    count: int,
) -> tuple[Rows, np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """Return the runs in the files' new order, and how many each file has."""
    owner = renumbered[file_runs["file"]]
    order = np.lexsort((file_runs["position"], owner))
    runs = np.empty(len(order), dtype=RUN)
    for name in RUN.names or ():
        runs[name] = file_runs[name][order]
    return runs, np.bincount(owner, minlength=count)


def _commit(
    repository: Repository, attempt: _Attempt, manifest: Manifest
) -> BackupSummary:
    name = repository.layout.manifest(attempt.label, attempt.attempt)
    reference = write_manifest(repository, name, manifest, attempt.manifest_key)
    summary = _summary(manifest, reference)
    commit = Commit(attempt.attempt, reference, summary)
    repository.log.append(lambda _: commit)
    return summary


def _summary(manifest: Manifest, reference: ManifestRef) -> BackupSummary:
    head = manifest.head
    return BackupSummary(
        label=head.label,
        kind=head.kind,
        source=head.source,
        start_lsn=head.start.lsn,
        stop_lsn=head.stop.lsn,
        timeline=head.stop.timeline,
        start_time=head.start.time,
        stop_time=head.stop.time,
        system_identifier=head.server.system_identifier,
        server_version=head.server.version,
        wal_segment_size=head.server.wal_segment_size,
        files=len(manifest.paths),
        bytes=manifest.content_bytes(),
        stored_bytes=int(manifest.packs["size"].sum()) + reference.size,
        damaged_pages=len(manifest.damaged),
        warnings=len(head.warnings),
    )
