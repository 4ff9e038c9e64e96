"""Repositories for tests: over any storage, with keys, a clock and a log to share.

world = World()                       # one storage, one set of keys, one clock
repository = world.repository()       # each call is another host's view
summary = back_up(repository, {b"PG_VERSION": b"18\n"})
"""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from drkit.crypto.keys import PURPOSES, LocalKeyProvider
from drkit.crypto.signing import Signer, format_public
from drkit.model.backup import BackupSummary, ManifestRef
from drkit.model.head import (
    ManifestHead,
    ParentRef,
    ServerDescription,
    Tablespace,
    WalPosition,
)
from drkit.model.label import BackupKind, new_label
from drkit.model.log import Begin, Commit, Open
from drkit.model.log_wal import WalSigners
from drkit.model.lsn import Lsn
from drkit.model.manifest import DAMAGED, FILE, RUN, FileKind, Manifest, Rows, empty
from drkit.repository.fingerprint import write_fingerprint
from drkit.repository.identity import create_identity
from drkit.repository.keyring import Keyring
from drkit.repository.layout import Layout
from drkit.repository.log import Log
from drkit.repository.log_entries import LogIdentity
from drkit.repository.manifests import write_manifest
from drkit.repository.packing import Packed, Packing, PackWriter, assemble
from drkit.repository.repository import Repository
from drkit.repository.wal import WalArchive
from drkit.repository.wal_signature import WalSigning, wal_trust
from drkit.storage.memory import MemoryStorage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from drkit.crypto.keys import Dek
    from drkit.model.fingerprint import Fingerprint
    from drkit.protocols import KeyProvider, Storage

CLUSTER = "alpha"
SYSTEM = "7300000000000000001"
SEGMENT = 16 << 20
EPOCH = datetime(2026, 1, 15, 10, 30, tzinfo=UTC)


class FakeClock:
    """A clock that stands still until somebody sleeps or sets it."""

    def __init__(self, now: datetime = EPOCH) -> None:
        self.time = now
        self.seconds = 0.0

    def now(self) -> datetime:
        return self.time

    def monotonic(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds
        self.time += timedelta(seconds=seconds)

    def jump(self, **by: float) -> None:
        """Change the wall clock alone, as an administrator or a bad NTP server does."""
        self.time += timedelta(**by)


@dataclass
class Keys:
    """Key-encrypting keys by purpose, and the seeds of both signing keys."""

    keks: dict[str, bytes] = field(
        default_factory=lambda: {purpose: os.urandom(32) for purpose in PURPOSES}
    )
    seed: bytes = field(default_factory=lambda: os.urandom(32))
    wal_seed: bytes = field(default_factory=lambda: os.urandom(32))

    @property
    def signer(self) -> Signer:
        return Signer(self.seed)

    @property
    def wal_signer(self) -> Signer:
        return Signer(self.wal_seed)

    def providers(self) -> dict[str, Callable[[], KeyProvider]]:
        def source(purpose: str) -> Callable[[], KeyProvider]:
            return lambda: LocalKeyProvider(self.keks[purpose])

        return {purpose: source(purpose) for purpose in PURPOSES}


@dataclass
class World:
    """A storage with a repository in it, and what its hosts share.

    Attributes:
        signed: hosts sign WAL, and pin the key; the log says so from its beginning on.
    """

    storage: Storage = field(default_factory=MemoryStorage)
    keys: Keys = field(default_factory=Keys)
    clock: FakeClock = field(default_factory=FakeClock)
    cluster: str = CLUSTER
    signed: bool = False

    def repository(
        self,
        *,
        host: str = "host-a",
        opened: bool = True,
        storage: Storage | None = None,
        keys: Keys | None = None,
        trusted: Sequence[bytes] | None = None,
    ) -> Repository:
        """Open the repository as a host does; make it and its log at first.

        Args:
            host: as log entries name it.
            opened: False leaves the log alone.
            storage: another view of the same objects, such as one with faults.
            keys: of another holder; by default the world's own.
            trusted: public keys to believe; by default only the world's own.
        """
        store = storage or self.storage
        keys = keys or self.keys
        lineage = create_identity(store, self.clock.now())
        layout = Layout(self.cluster)
        keyring = Keyring(store, layout, lineage, keys.providers())
        trust = [self.keys.signer.public] if trusted is None else trusted
        identity = LogIdentity(host, lambda: keys.signer, frozenset(trust))
        log = Log(store, layout, lineage, keyring, identity, self.clock)
        signing = self.wal_signing(log, keys) if self.signed else WalSigning()
        wal = WalArchive(store, layout, lineage, keyring, SYSTEM, signing=signing)
        if opened and log.read().opened is None:
            log.append(lambda _: Open(self.cluster, SYSTEM, SEGMENT))
            if self.signed:
                public = format_public(self.keys.wal_signer.public)
                log.append(lambda _: WalSigners((public,), ()))
        return Repository(store, layout, lineage, keyring, log, wal, self.clock)

    def wal_signing(self, log: Log, keys: Keys) -> WalSigning:
        """How a host of these keys signs WAL; all believe the world's own key."""
        pinned = frozenset({self.keys.wal_signer.public})
        return WalSigning(lambda: keys.wal_signer, partial(wal_trust, log, pinned))


def new_attempt() -> str:
    """A random attempt id."""
    return os.urandom(16).hex()


def begin(
    repository: Repository,
    *,
    attempt: str | None = None,
    parent: str | None = None,
    keys: Sequence[tuple[str, str]] = (),
    start_lsn: int = 0x2000028,
) -> Begin:
    """Write a `begin` entry with the next label."""
    attempt = attempt or new_attempt()
    kind = BackupKind.FULL if parent is None else BackupKind.INCREMENTAL
    now = repository.clock.now()
    logged = repository.log.append(
        lambda state: Begin(
            attempt,
            new_label(now, kind, state.last_label),
            kind,
            parent,
            Lsn(start_lsn),
            1,
            tuple(keys),
        )
    )
    assert isinstance(logged.entry, Begin)
    return logged.entry


def commit_entry(begun: Begin, manifest: ManifestRef | None = None) -> Commit:
    """A `commit` that fits its `begin`; what it says of sizes is made up."""
    reference = manifest or ManifestRef("nowhere/manifest", 1, "0" * 64, "0" * 32)
    summary = BackupSummary(
        label=begun.label,
        kind=begun.kind,
        source="local",
        start_lsn=begun.start_lsn,
        stop_lsn=Lsn(begun.start_lsn + 0x100),
        timeline=begun.timeline,
        start_time=EPOCH,
        stop_time=EPOCH + timedelta(seconds=5),
        system_identifier=SYSTEM,
        server_version=180000,
        wal_segment_size=SEGMENT,
        files=0,
        bytes=0,
        stored_bytes=reference.size,
        damaged_pages=0,
        warnings=0,
    )
    return Commit(begun.attempt, reference, summary)


def server() -> ServerDescription:
    """A server of version 18 with checksums."""
    return ServerDescription(
        SYSTEM, 180000, 202506291, 1800, 8192, 131072, SEGMENT, True, False
    )


def manifest_head(
    begun: Begin | None = None, dek_id: str = "0" * 32, parent: ParentRef | None = None
) -> ManifestHead:
    """A head with every member filled, also with bytes that are no UTF-8."""
    label = begun.label if begun else "20260115-103000-full"
    return ManifestHead(
        drkit_version="0.1.0",
        cluster=CLUSTER,
        label=label,
        attempt=begun.attempt if begun else "ab" * 16,
        kind=BackupKind.FULL if parent is None else BackupKind.INCREMENTAL,
        parent=parent,
        source="local",
        dek_id=dek_id,
        server=server(),
        start=WalPosition(Lsn(0x2000028), 1, EPOCH),
        stop=WalPosition(Lsn(0x2000128), 1, EPOCH + timedelta(seconds=5)),
        backup_label="START WAL LOCATION: 0/2000028\nLABEL: caf\udce9\n",
        tablespace_map="16385 /srv/fast\n",
        tablespaces=(Tablespace(16385, "/srv/fast", "fast", False),),
        warnings=("odd is neither file nor directory and was left out",),
    )


def packing(
    repository: Repository, dek: Dek, label: str, attempt: str, level: int = 3
) -> Packing:
    """What the writers of one backup share."""
    return Packing(
        repository.storage,
        dek,
        repository.lineage,
        level,
        lambda number: repository.layout.pack(label, attempt, number),
        itertools.count(),
    )


def manifest_of(
    head: ManifestHead,
    files: Sequence[tuple[bytes, FileKind, int]],
    packed: Packed,
    *,
    mode: int = 0o600,
    mtime: int = 1_768_473_000,
) -> Manifest:
    """Put a manifest together.

    Args:
        head: of the manifest.
        files: path, kind and size, by the number that runs know a file by.
        packed: of all writers.
        mode: of files; directories are 0700.
        mtime: of all.
    """
    packs, frames, file_runs = assemble(packed)
    order = sorted(range(len(files)), key=lambda number: files[number][0])
    place = np.empty(len(files), dtype=np.int64)
    place[order] = np.arange(len(files))
    owner = place[file_runs["file"]]
    by_owner = np.lexsort((file_runs["position"], owner))
    runs = np.empty(len(file_runs), dtype=RUN)
    for name in RUN.names or ():
        runs[name] = file_runs[name][by_owner]
    rows = np.zeros(len(files), dtype=FILE)
    for row, number in enumerate(order):
        _, kind, size = files[number]
        row_mode = 0o700 if kind is FileKind.DIRECTORY else mode
        rows[row] = (kind, row_mode, size, mtime, 0, 0, 0)
    rows["runs"] = np.bincount(owner, minlength=len(files))
    paths = [files[number][0] for number in order]
    return Manifest(head, paths, rows, packs, frames, runs, empty(DAMAGED))


def write_files(
    writers: Sequence[PackWriter], contents: Mapping[bytes, bytes | None]
) -> tuple[list[tuple[bytes, FileKind, int]], Packed]:
    """Give files to writers in turn; None stands for a directory."""
    files = []
    for number, (path, content) in enumerate(contents.items()):
        kind = FileKind.DIRECTORY if content is None else FileKind.FILE
        files.append((path, kind, len(content or b"")))
        writers[number % len(writers)].add(number, 0, content or b"")
    packed = Packed()
    for writer in writers:
        packed.extend(writer.close())
    return files, packed


def back_up(
    repository: Repository,
    contents: Mapping[bytes, bytes | None],
    *,
    writers: int = 1,
    pack_size: int = 8 << 20,
    level: int = 3,
    start_lsn: int = 0x2000028,
    fingerprint: Fingerprint | None = None,
) -> Commit:
    """Write a whole backup of made-up files: keys, packs, manifest, commit.

    Args:
        fingerprint: to be stored with it; made up as well.
    """
    data_key = repository.keyring.create("backup")
    manifest_key = repository.keyring.create("catalog")
    keys = [(key.purpose, key.key_id.hex()) for key in (data_key, manifest_key)]
    begun = begin(repository, keys=keys, start_lsn=start_lsn)
    shared = packing(repository, data_key, begun.label, begun.attempt, level)
    made = [PackWriter(shared, pack_size) for _ in range(writers)]
    head = manifest_head(begun, data_key.key_id.hex())
    if fingerprint is not None:
        name = repository.layout.fingerprint(begun.label, begun.attempt)
        made_up = replace(fingerprint, restore_point=f"drkit {begun.label}")
        kept = write_fingerprint(repository, name, made_up, manifest_key)
        head = replace(head, fingerprint=kept)
    manifest = manifest_of(head, *write_files(made, contents))
    name = repository.layout.manifest(begun.label, begun.attempt)
    reference = write_manifest(repository, name, manifest, manifest_key)
    entry = commit_entry(begun, reference)
    summary = replace(
        entry.backup,
        files=len(manifest.paths),
        bytes=manifest.content_bytes(),
        stored_bytes=int(manifest.packs["size"].sum()) + reference.size,
        warnings=len(head.warnings),
        fingerprint=head.fingerprint.place if head.fingerprint else None,
    )
    logged = repository.log.append(lambda _: replace(entry, backup=summary))
    assert isinstance(logged.entry, Commit)
    return logged.entry


def rows_of(dtype: np.dtype[np.void], *rows: tuple[object, ...]) -> Rows:
    """A manifest's table with these rows."""
    table = np.zeros(len(rows), dtype=dtype)
    for number, row in enumerate(rows):
        table[number] = row
    return table


def copy_of(storage: Storage) -> MemoryStorage:
    """A memory storage with the same objects, to be changed at will."""
    copy = MemoryStorage()
    for info in storage.list(""):
        copy.put(info.name, storage.get(info.name))
    return copy


def replace_object(storage: Storage, name: str, data: bytes) -> None:
    """Do what drkit never does: give an object other bytes."""
    storage.delete(name)
    storage.put(name, data)
