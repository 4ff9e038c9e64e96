"""Is what is stored what was stored? Every frame and every WAL file, opened."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from drkit import workers
from drkit.errors import (
    Corrupt,
    KeyUnavailable,
    NotFound,
    StorageError,
    WalMissing,
    WalRefused,
)
from drkit.model.damage import Damage, DamageKind, Place
from drkit.model.wal import WalFileKind, WalFileName
from drkit.operations.backup_wal import own_segments, refuse_changed_wal
from drkit.operations.blame import add_place, places
from drkit.operations.expiry import expiry_of
from drkit.operations.verifying.log import check_entry
from drkit.operations.verifying.pages import PageAudit, PageTally
from drkit.operations.verifying.wal import expired_wal
from drkit.postgres.walfile import check_wal_file
from drkit.repository.checking import PackChecker, pack_name, pack_place
from drkit.repository.findings import stretches
from drkit.repository.fingerprint import read_fingerprint
from drkit.repository.manifests import read_manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from drkit.model.backup import BackupSummary
    from drkit.model.fingerprint import FingerprintRef
    from drkit.model.log import Commit
    from drkit.model.manifest import Manifest
    from drkit.protocols import Progress
    from drkit.repository.checking import Verdict
    from drkit.repository.log_entries import LoggedEntry
    from drkit.repository.repository import Repository

    Job = Callable[[], None]


@dataclass(slots=True)
class DataFound:
    """What was found of content; filled by several threads.

    Attributes:
        looked: names of the objects that were looked at.
        segments: WAL files that can't be relied on.
        bytes: stored length of what was looked at.
        pages: page checksums that were verified; `split` pages lie in two runs, so that
            theirs could not be.
    """

    damage: list[Damage] = field(default_factory=list)
    looked: set[str] = field(default_factory=set)
    segments: list[WalFileName] = field(default_factory=list)
    bytes: int = 0
    pages: int = 0
    split: int = 0


class DataCheck:
    """Checks packs and WAL files on several threads, one object a thread at a time.

    Args:
        chosen: whether it is an object's turn; by its name.
        sound: told of every object that was found sound.
    """

    def __init__(
        self,
        repository: Repository,
        chosen: Callable[[str], bool],
        sound: Callable[[str], None],
        progress: Progress,
    ) -> None:
        self.found = DataFound()
        self._repository = repository
        self._chosen = chosen
        self._sound = sound
        self._progress = progress
        self._lock = threading.Lock()

    def run(
        self, commits: Sequence[Commit], wal: Mapping[WalFileName, int], jobs: int
    ) -> DataFound:
        """Check the packs that backups stored, and WAL files with their stored size.

        Raises:
            StorageError: the store failed in a way that may pass.
        """
        waiting = _Waiting(self._jobs(commits, wal))
        workers.run([waiting.work] * jobs)
        return self.found

    def _jobs(
        self, commits: Sequence[Commit], wal: Mapping[WalFileName, int]
    ) -> Iterator[Job]:
        for logged in self._repository.log.entries:
            yield partial(self._entry, logged)
        for commit in commits:
            yield from self._packs(commit)
            if commit.backup.wal is not None:
                yield partial(self._range, commit.backup)
        for file, size in wal.items():
            name = self._repository.wal.name(file)
            if self._chosen(name):
                yield partial(self._wal, name, file, size)

    def _entry(self, logged: LoggedEntry) -> None:
        damage = check_entry(self._repository, logged)
        if damage is not None:
            self.found.damage.append(damage)

    def _packs(self, commit: Commit) -> Iterator[Job]:
        """Yield a job for each pack of a backup, and one for its fingerprint."""
        try:
            manifest = read_manifest(self._repository, commit.manifest)
            checker = PackChecker(self._repository, manifest)
        except (Corrupt, KeyUnavailable) as error:
            self.found.damage.append(_manifest_damage(commit, error))
            return
        audit = PageAudit(manifest)
        for pack in range(len(manifest.packs)):
            if self._chosen(pack_name(self._repository, manifest, pack)):
                yield partial(self._pack, checker, audit, pack)
        reference = manifest.head.fingerprint
        if reference is not None and self._chosen(reference.name):
            yield partial(self._fingerprint, commit.backup.label, reference)

    def _fingerprint(self, label: str, reference: FingerprintRef) -> None:
        damage, name = None, reference.name
        try:
            read_fingerprint(self._repository, reference)
        except (Corrupt, KeyUnavailable) as error:
            told = f"can't be used: {error.message}"
            code = error.exit_code
            damage = Damage(name, DamageKind.CONTENT, told, code, label, needed=False)
        except StorageError as error:
            damage = replace(_unreadable(name, error), backup=label, needed=False)
        self._took(name, reference.size, damage, PageTally())

    def _pack(self, checker: PackChecker, audit: PageAudit, pack: int) -> None:
        manifest, tally = checker.manifest, PageTally()
        damage: Damage | None
        try:
            verdict = checker.check(pack, partial(audit.look, tally=tally))
        except StorageError as error:
            name = pack_name(self._repository, manifest, pack)
            damage = _unreadable(name, error, manifest, pack)
        else:
            name = verdict.name
            damage = _pack_damage(manifest, verdict, tally)
        self._took(name, int(manifest.packs["size"][pack]), damage, tally)

    def _range(self, backup: BackupSummary) -> None:
        """Hold a backup's own WAL against what it was when the backup ended."""
        try:
            refuse_changed_wal(self._repository, backup)
        except (NotFound, KeyUnavailable):
            return  # told of each file, when it is opened
        except Corrupt as error:
            first = next(own_segments(backup)).name(backup.wal_segment_size)
            file = WalFileName.parse(first)
            name = self._repository.wal.name(file)
            what = f"can't be used: {error.message}"
            damage = Damage(name, DamageKind.CONTENT, what, error.exit_code)
            with self._lock:
                self.found.segments.append(file)
                self.found.damage.append(damage)

    def _wal(self, name: str, file: WalFileName, size: int) -> None:
        damage = None
        try:
            self._check_wal(file, self._repository.wal.get(file))
        except NotFound:
            what = "was there, and is missing"
            damage = Damage(name, DamageKind.MISSING, what, WalMissing.exit_code)
        except (Corrupt, KeyUnavailable, WalRefused) as error:
            told = f"can't be used: {error.message}"
            damage = Damage(name, DamageKind.CONTENT, told, Corrupt.exit_code)
        except StorageError as error:
            damage = _unreadable(name, error)
        if damage is not None and file.kind is WalFileKind.SEGMENT:
            self.found.segments.append(file)
        self._took(name, size, damage, PageTally())

    def _check_wal(self, file: WalFileName, content: bytes) -> None:
        opened = self._repository.log.state.opened
        if opened is None:
            raise ValueError("a log that was read has an owner")
        system, size = int(opened.system_identifier), opened.segment_size
        facts = check_wal_file(file.name, content, system)
        if facts.segment_size not in (0, size):
            raise WalRefused(
                f"{file.name} is of segments of {facts.segment_size} bytes, and the "
                f"cluster's have {size}"
            )

    def _took(
        self, name: str, size: int, damage: Damage | None, tally: PageTally
    ) -> None:
        found = self.found
        with self._lock:
            found.looked.add(name)
            found.bytes += size
            found.pages += tally.checked
            found.split += tally.split
            if damage is not None:
                found.damage.append(damage)
        if damage is None:
            self._sound(name)
        elif not self._has_expired(damage):
            self._progress.warning(f"{name} {damage.what}")
        self._progress.advance(size)

    def _has_expired(self, damage: Damage) -> bool:
        """Say whether what is damaged has expired since; read the log on for it."""
        with self._lock:
            if damage.backup is not None:
                return expiry_of(self._repository, damage.backup) is not None
            self._repository.log.read()
            return expired_wal(self._repository, damage)


class _Waiting:
    """Jobs that threads take in turn; a manifest is read when its packs' turn comes."""

    def __init__(self, jobs: Iterator[Job]) -> None:
        self._jobs = jobs
        self._lock = threading.Lock()

    def work(self, stop: workers.Stop) -> None:
        """Do jobs until there is none left."""
        while not stop.is_set():
            with self._lock:
                job = next(self._jobs, None)
            if job is None:
                return
            job()


def _manifest_damage(commit: Commit, error: Corrupt | KeyUnavailable) -> Damage:
    """Tell that a backup's packs can't be looked at."""
    told = f"can't be used: {error.message}"
    label, code = commit.backup.label, error.exit_code
    return Damage(commit.manifest.name, DamageKind.CONTENT, told, code, label)


def _pack_damage(
    manifest: Manifest, verdict: Verdict, tally: PageTally
) -> Damage | None:
    if verdict.kind is not None:
        lost = places(manifest, verdict.place.frames or verdict.place.lost)
        label, code = manifest.head.label, Corrupt.exit_code
        return Damage(
            verdict.name, verdict.kind, verdict.what, code, label, verdict.place, lost
        )
    if tally.wrong:
        return _page_damage(manifest, verdict, tally)
    return None


def _page_damage(manifest: Manifest, verdict: Verdict, tally: PageTally) -> Damage:
    """Tell of pages that were stored as they are, and are wrong."""
    owners, frames = manifest.run_files(), manifest.runs["frame"]
    found: list[Place] = []
    for run, block in sorted(tally.wrong):
        add_place(found, Place(manifest.paths[owners[run]], "page", block, block))
    lost = stretches(int(frames[run]) for run, _ in tally.wrong)
    place = verdict.place._replace(frames=lost, lost=lost)
    what = (
        f"is as it was written, but {len(tally.wrong)} pages in it fail their "
        "checksum, and were not known to when they were read"
    )
    return Damage(
        verdict.name,
        DamageKind.PAGES,
        what,
        Corrupt.exit_code,
        manifest.head.label,
        place,
        tuple(found),
    )


def _unreadable(
    name: str,
    error: StorageError,
    manifest: Manifest | None = None,
    pack: int = 0,
) -> Damage:
    """Tell of an object that the store can't read.

    Raises:
        StorageError: `error`, if it may pass: then nothing is known of the object.
    """
    if error.transient:
        raise error
    what = f"can't be read: {error.message}"
    if manifest is None:
        return Damage(name, DamageKind.UNREADABLE, what, error.exit_code)
    place = pack_place(manifest, pack)
    label, lost = manifest.head.label, places(manifest, place.lost)
    code = error.exit_code
    return Damage(name, DamageKind.UNREADABLE, what, code, label, place, lost)
