"""Storing a backup: keys, packs, manifest, log, in that order."""

from __future__ import annotations

import itertools
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from threading import Event
from typing import TYPE_CHECKING

from drkit import __version__, workers
from drkit.crypto.keys import new_dek
from drkit.errors import AttemptFenced, DrkitError, NoSpace, RolledBack, StorageError
from drkit.model.backup import BackupSummary
from drkit.model.head import ManifestHead, ParentRef
from drkit.model.label import BackupKind, new_label
from drkit.model.log import AttemptState, Begin, Commit
from drkit.operations.backup_options import Taken
from drkit.operations.backup_wal import demand_signatures
from drkit.operations.fingerprints.attempt import Copy
from drkit.operations.fingerprints.of_backup import fingerprinting, keep_fingerprint
from drkit.operations.manifest import make_manifest
from drkit.operations.parent import choose_parent
from drkit.operations.waiting import wait_for_wal
from drkit.repository.heads import head_of
from drkit.repository.manifests import write_manifest
from drkit.repository.packing import (
    Packed,
    Packing,
    PackWriter,
    digest_key,
    pack_bytes,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from drkit.crypto.keys import Dek
    from drkit.model.backup import ManifestRef, WalRange
    from drkit.model.copied import BackupEnd, Copied, Present
    from drkit.model.due import Due
    from drkit.model.head import WalPosition
    from drkit.model.log import Entry, LogState
    from drkit.model.manifest import Manifest
    from drkit.operations.backup_options import BackupOptions, Begun
    from drkit.operations.fingerprints.attempt import Attempted
    from drkit.operations.fingerprints.of_backup import FingerprintTaken
    from drkit.operations.framers.process import ProcessFramer
    from drkit.operations.parent import Parent
    from drkit.protocols import BaseBackupSource, Progress
    from drkit.repository.repository import Repository


@dataclass(frozen=True, slots=True)
class _Attempt:
    attempt: str
    label: str
    kind: BackupKind
    start: WalPosition
    parent: Parent | None
    reason: str
    data_key: Dek
    manifest_key: Dek


def store_backup(
    repository: Repository,
    present: Present,
    source: BaseBackupSource,
    begun: Begun,
    wanted: Due,
    options: BackupOptions,
    progress: Progress,
) -> Taken:
    """Store a backup that was begun on the server, under the lease of its attempt.

    Raises:
        WalMissing, AttemptFenced: as `take_backup` does.
    """
    parent = None
    if wanted.kind is BackupKind.INCREMENTAL:
        parent = choose_parent(repository, present)
    attempt = _begin(repository, source, begun, parent, wanted, progress)
    for key in (attempt.data_key, attempt.manifest_key):
        repository.keyring.store(key)
    before = repository.clock.monotonic()
    copied, writers, end = _copy(repository, source, attempt, options, progress)
    seconds = repository.clock.monotonic() - before
    copy = Copy(attempt.label, present.server, end, seconds)
    with fingerprinting(options.fingerprint, copy, repository.clock) as attempted:
        packed = _close(writers)
        manifest = _manifest(repository, attempt, copy, options, copied, packed)
        wal = _wait_for_wal(repository, attempt, copy, options, progress)
        fingerprint = _fingerprint(
            repository, attempt, copy, options, attempted, progress
        )
    progress.phase("commit")
    summary = _commit(repository, attempt, _with(manifest, fingerprint), copied, wal)
    label = attempt.parent.label if attempt.parent else None
    head = head_of(repository.log.entries)
    demand_signatures(repository, summary, progress)
    return Taken(summary, label, attempt.reason, fingerprint, head)


def _begin(
    repository: Repository,
    source: BaseBackupSource,
    begun: Begun,
    parent: Parent | str | None,
    wanted: Due,
    progress: Progress,
) -> _Attempt:
    """Learn where the server began, which may refuse the parent; begin in the log."""
    reason = wanted.reason
    if isinstance(parent, str):
        reason, parent = parent, None
    started = source.start(parent.content if parent else None)
    if started.refusal is not None:
        reason, parent = started.refusal, None
    kind, start = _kind(parent), started.position
    # The entry names the keys before they are stored: none is ever left unknown.
    data_key, manifest_key = new_dek("backup"), new_dek("catalog")
    keys = tuple((key.purpose, key.key_id.hex()) for key in (data_key, manifest_key))

    def decide(state: LogState) -> Entry:
        _refuse_expired_wal(state, start)
        label = new_label(begun.at, kind, state.last_label)
        above = parent.label if parent else None
        return Begin(begun.attempt, label, kind, above, start.lsn, start.timeline, keys)

    begin = repository.log.append(decide).entry
    if not isinstance(begin, Begin):
        raise TypeError("the log returned another entry than it was given")
    if kind is not wanted.kind:
        progress.warning(
            f"taking a full backup instead of an incremental: {reason}", reason=reason
        )
    progress.event(
        "backup begun", label=begin.label, start_lsn=str(start.lsn), parent=begin.parent
    )
    return _Attempt(
        begun.attempt, begin.label, kind, start, parent, reason, data_key, manifest_key
    )


def _refuse_expired_wal(state: LogState, start: WalPosition) -> None:
    """Refuse to begin where an expiry may have deleted WAL, or be about to."""
    bound = state.wal_bound(start.timeline)
    if start.lsn < bound:
        raise AttemptFenced(
            f"this backup would need WAL of timeline {start.timeline} from {start.lsn} "
            f"on, and what lies before {bound} has expired",
            hint="nothing was stored; a standby that lags has to catch up first: run "
            f"the command again once it has replayed {bound} and the checkpoint behind",
        )


def _kind(parent: Parent | None) -> BackupKind:
    return BackupKind.INCREMENTAL if parent else BackupKind.FULL


def _copy(
    repository: Repository,
    source: BaseBackupSource,
    attempt: _Attempt,
    options: BackupOptions,
    progress: Progress,
) -> tuple[Copied, list[PackWriter], BackupEnd]:
    packing = Packing(
        repository.storage,
        attempt.data_key,
        repository.lineage,
        options.level,
        lambda number: repository.layout.pack(attempt.label, attempt.attempt, number),
        itertools.count(),
    )
    writers = _writers(packing, options)
    copied = source.copy(writers, progress)
    _dismiss(options.framers, progress)
    progress.phase("stop")
    return copied, writers, source.stop()


def _writers(packing: Packing, options: BackupOptions) -> list[PackWriter]:
    key, size = digest_key(packing.dek, packing.lineage), pack_bytes(options.jobs)
    for framer in options.framers:
        framer.set_up(key, packing.level)
    framers = itertools.chain(options.framers, itertools.repeat(None))
    return [
        PackWriter(packing, size, framer)
        for framer in itertools.islice(framers, options.jobs)
    ]


def _dismiss(framers: Sequence[ProcessFramer], progress: Progress) -> None:
    """Let the framers end while the backup does; tell of those that ended early."""
    for framer in framers:
        framer.close()
    lost = sum(framer.lost for framer in framers)
    if lost:
        progress.warning(
            f"{lost} of the {len(framers)} processes that help reading changed pages "
            "ended early; their pages were read without them, so this backup is whole, "
            "but it took longer",
            lost=lost,
        )


def _close(writers: Sequence[PackWriter]) -> Packed:
    packed = Packed()
    for part in workers.run([_closing(writer) for writer in writers]):
        packed.extend(part)
    return packed


def _closing(writer: PackWriter) -> Callable[[workers.Stop], Packed]:
    return lambda _: writer.close()


def _wait_for_wal(
    repository: Repository,
    attempt: _Attempt,
    copy: Copy,
    options: BackupOptions,
    progress: Progress,
) -> WalRange | None:
    progress.phase("wal")
    return wait_for_wal(
        repository,
        copy.server,
        attempt.start,
        copy.end,
        options.wal_timeout,
        options.archiver,
        progress,
        options.pg_wal,
    )


def _fingerprint(
    repository: Repository,
    attempt: _Attempt,
    copy: Copy,
    options: BackupOptions,
    attempted: Callable[[], Attempted] | None,
    progress: Progress,
) -> FingerprintTaken | None:
    if attempted is None:
        return None
    progress.phase("fingerprint")
    name = repository.layout.fingerprint(attempt.label, attempt.attempt)
    key, archiver = attempt.manifest_key, options.archiver
    return keep_fingerprint(
        repository, name, attempted(), copy, key, archiver, progress
    )


def _manifest(
    repository: Repository,
    attempt: _Attempt,
    copy: Copy,
    options: BackupOptions,
    copied: Copied,
    packed: Packed,
) -> Manifest:
    """Lay out all of the manifest but the fingerprint, while WAL is archived."""
    end = copy.end
    head = ManifestHead(
        drkit_version=__version__,
        cluster=repository.layout.cluster,
        label=attempt.label,
        attempt=attempt.attempt,
        kind=attempt.kind,
        parent=_parent_ref(attempt.parent),
        source=options.source,
        dek_id=attempt.data_key.key_id.hex(),
        server=copy.server,
        start=attempt.start,
        stop=end.position,
        backup_label=end.backup_label.decode(errors="surrogateescape"),
        tablespace_map=end.tablespace_map.decode(errors="surrogateescape"),
        tablespaces=tuple(copied.tablespaces),
        warnings=tuple(copied.warnings),
    )
    below = attempt.parent.content.chain if attempt.parent else None
    return make_manifest(head, copied, packed, below)


def _with(manifest: Manifest, fingerprint: FingerprintTaken | None) -> Manifest:
    if fingerprint is None:
        return manifest
    head = replace(
        manifest.head,
        warnings=(*manifest.head.warnings, *fingerprint.warnings),
        fingerprint=fingerprint.reference,
    )
    return replace(manifest, head=head)


def _parent_ref(parent: Parent | None) -> ParentRef | None:
    if parent is None:
        return None
    return ParentRef(parent.label, parent.commit.manifest.sha256)


def _commit(
    repository: Repository,
    attempt: _Attempt,
    manifest: Manifest,
    copied: Copied,
    wal: WalRange | None,
) -> BackupSummary:
    name = repository.layout.manifest(attempt.label, attempt.attempt)
    with _taken_back_on_failure(repository, attempt.attempt, name) as writing:
        reference = write_manifest(repository, name, manifest, attempt.manifest_key)
        summary = replace(_summary(manifest, reference, copied), wal=wal)
        commit = Commit(attempt.attempt, reference, summary)

        def decide(_: LogState) -> Entry:
            writing.set()
            return commit

        repository.log.append(decide)
    return summary


@contextmanager
def _taken_back_on_failure(
    repository: Repository, attempt: str, manifest: str
) -> Iterator[Event]:
    """Delete the manifest if the block fails and has certainly written no commit.

    Nobody else can know that, and what has a manifest and its packs is never swept.
    The block sets the event when it begins to write the commit.
    """
    writing = Event()
    try:
        yield writing
    except BaseException as error:
        if _is_certain(error, writing=writing.is_set()):
            _take_back(repository, attempt, manifest)
        raise


def _is_certain(error: BaseException, *, writing: bool) -> bool:
    """Say whether no commit was written, nor can still come to be, after an error."""
    if isinstance(error, RolledBack):
        return False  # nothing is deleted then
    if isinstance(error, StorageError):
        return not (writing and error.transient)
    return not writing or isinstance(error, AttemptFenced | NoSpace)


def _take_back(repository: Repository, attempt: str, manifest: str) -> None:
    with suppress(DrkitError):  # of the store, which has failed already
        state = repository.log.read().attempts[attempt].state
        if state is not AttemptState.COMMITTED:
            repository.storage.delete(manifest)


def _summary(
    manifest: Manifest, reference: ManifestRef, copied: Copied
) -> BackupSummary:
    head = manifest.head
    files = [file for file in copied.files if file is not None]
    stored = int(manifest.packs["size"].sum()) + reference.size
    if head.fingerprint is not None:
        stored += head.fingerprint.size
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
        files=len(files),
        bytes=sum(file.size for file in files),
        stored_bytes=stored,
        damaged_pages=len(manifest.damaged),
        warnings=len(head.warnings),
        fingerprint=head.fingerprint.place if head.fingerprint else None,
    )
