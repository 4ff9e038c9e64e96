"""Is everything there that the backups refer to, and is it as long as it should be?"""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, NamedTuple

from drkit.errors import (
    Corrupt,
    DrkitError,
    KeyUnavailable,
    NotRecipient,
    ObjectNotFound,
)
from drkit.model.damage import Damage, DamageKind
from drkit.operations.blame import places
from drkit.operations.verifying.pages import page_checksums
from drkit.repository.chain import lineage, read_chain
from drkit.repository.checking import pack_name, pack_place
from drkit.repository.manifests import read_manifest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime

    from drkit.model.head import ManifestHead
    from drkit.model.log import Commit
    from drkit.model.manifest import Manifest
    from drkit.protocols import Progress
    from drkit.repository.repository import Repository

_SHOWN = 5
_DAY = re.compile(r"([0-9]{8})(-[0-9]+)?\Z")


class ObjectsFound(NamedTuple):
    """What there is of some backups.

    Attributes:
        objects: how many were asked for.
        bytes: their length together.
        packs: by attempt, how many packs its manifest names.
    """

    damage: list[Damage]
    notes: list[str]
    objects: int
    bytes: int
    packs: dict[str, int]


def verify_objects(
    repository: Repository, commits: Sequence[Commit], progress: Progress
) -> ObjectsFound:
    """Look for everything that backups and their ancestors refer to.

    A listing proves that an object is there; what it lacks is asked for by name.
    """
    look = _Look(repository)
    for commit in _newest_of_chains(repository, commits):
        progress.event("looking at a chain", label=commit.backup.label)
        look.chain(commit)
    look.log_keys()
    look.wal_keys(min(commit.backup.start_time for commit in commits))
    return ObjectsFound(look.damage, look.notes, look.objects, look.bytes, look.packs)


def with_ancestors(repository: Repository, commits: Iterable[Commit]) -> list[Commit]:
    """Return backups with all that they build on, each once, ancestors first."""
    state = repository.log.state
    found: dict[str, Commit] = {}
    for commit in commits:
        found |= {one.backup.label: one for one in lineage(state, commit)}
    return list(found.values())


def _newest_of_chains(
    repository: Repository, commits: Iterable[Commit]
) -> Iterator[Commit]:
    """Yield the backups that no other one of them builds on."""
    chosen = list(commits)
    attempts = repository.log.state.attempts
    parents = {attempts[one.attempt].begin.parent for one in chosen}
    yield from (one for one in chosen if one.backup.label not in parents)


class _Look:
    """One look at a repository; backups that were seen are not looked at again."""

    def __init__(self, repository: Repository) -> None:
        self.damage: list[Damage] = []
        self.notes: list[str] = []
        self.objects = 0
        self.bytes = 0
        self.packs: dict[str, int] = {}
        self._repository = repository
        prefix = repository.layout.backups()
        self._listed = {
            info.name: info.size for info in repository.storage.list(prefix)
        }
        self._seen: set[str] = set()
        self._unwrapped: dict[tuple[str, bytes], Corrupt | KeyUnavailable | None] = {}

    def chain(self, commit: Commit) -> None:
        """Look at a backup and all that it builds on."""
        commits = lineage(self._repository.log.state, commit)
        for one in commits:
            self._keys(one)
        manifests: Iterable[Manifest] = ()
        try:
            manifests = read_chain(self._repository, commit).layers
        except (Corrupt, KeyUnavailable) as error:
            manifests = list(self._readable(commits))
            labels = {one.backup.label for one in commits}
            if not any(one.backup in labels for one in self.damage):
                self._add(commit, commit.manifest.name, DamageKind.CONTENT, error)
        for manifest in manifests:
            self._packs(manifest)
        self._seen |= {one.backup.label for one in commits}

    def wal_keys(self, since: datetime) -> None:
        """Look whether the keys that WAL was sealed under can be unwrapped.

        Args:
            since: WAL from before this is nobody's any more, and neither are its keys.
        """
        layout, storage = self._repository.layout, self._repository.storage
        for info in storage.list(layout.keys("wal")):
            self.objects += 1
            with contextlib.suppress(ValueError):  # anybody can put a name there
                self._wal_key(info.name, bytes.fromhex(info.name.split("/")[-2]))
        first, now = since.strftime("%Y%m%d"), self._repository.clock.now()
        days: dict[str, list[str]] = {}
        for info in storage.list(layout.wal_days()):
            match = _DAY.match(info.name.removeprefix(layout.wal_days()))
            if match is not None and first <= match[1] <= now.strftime("%Y%m%d"):
                days.setdefault(match[1], []).append(info.name)
        for names in days.values():
            self._wal_day(names)

    def log_keys(self) -> None:
        """Look at the keys that the log's entries are sealed under."""
        for key_id in sorted(self._repository.log.key_ids):
            self._key(None, "catalog", key_id)

    def _wal_day(self, names: Sequence[str]) -> None:
        """Follow a day's pointers; they may have expired since they were listed.

        One that names no key hurts nobody: WAL files name the key that they need. One
        that names a key which is lost does not either, where there is another.
        """
        keyring = self._repository.keyring
        lost: dict[str, bytes] = {}
        sound = 0
        for name in names:
            self.objects += 1
            try:
                key_id = keyring.wal_day_key(name)
            except ObjectNotFound:
                continue
            except Corrupt as error:
                self.notes.append(f"{error.message}; it is passed over")
                continue
            if self._unusable("wal", key_id) is None:
                sound += 1
            else:
                lost[name] = key_id
        for name, key_id in lost.items():
            if sound:
                self.notes.append(f"object {name} names a key that nothing is under")
            else:
                self._wal_key(name, key_id)

    def _wal_key(self, listed: str, key_id: bytes) -> None:
        """Look at a key that a listed object is of, unless that has expired since."""
        error = self._unusable("wal", key_id)
        if error is not None and self._there(listed) is not None:
            self._add(None, listed, DamageKind.KEY, error)

    def _keys(self, commit: Commit) -> None:
        if commit.backup.label not in self._seen:
            begun = self._repository.log.state.attempts[commit.attempt].begin
            for purpose, key_id in begun.keys:
                self._key(commit, purpose, bytes.fromhex(key_id))

    def _key(self, commit: Commit | None, purpose: str, key_id: bytes) -> None:
        """Look whether a key can be unwrapped."""
        self.objects += 1
        error = self._unusable(purpose, key_id)
        if error is not None:
            name = self._repository.layout.dek(purpose, key_id).rstrip("/")
            self._add(commit, name, DamageKind.KEY, error)

    def _unusable(self, purpose: str, key_id: bytes) -> Corrupt | KeyUnavailable | None:
        """Say why none of a key's generations can be unwrapped; None if one can.

        Of those beside it, one that is damaged is told, which no restore needs; one for
        another key-encrypting key than the policy's is none.
        """
        if (purpose, key_id) not in self._unwrapped:
            self._unwrapped[purpose, key_id] = self._unwrap(purpose, key_id)
        return self._unwrapped[purpose, key_id]

    def _unwrap(self, purpose: str, key_id: bytes) -> Corrupt | KeyUnavailable | None:
        try:
            found = list(self._repository.keyring.generations(purpose, key_id))
        except KeyUnavailable as error:
            return error
        failed = [(name, one) for name, one in found if isinstance(one, DrkitError)]
        if len(failed) == len(found):
            return failed[0][1]
        for name, one in failed:
            if not isinstance(one, NotRecipient):
                told = f"can't be used, but another generation can: {one.message}"
                code = one.exit_code
                damage = Damage(name, DamageKind.KEY, told, code, needed=False)
                self.damage.append(damage)
        return None

    def _readable(self, commits: list[Commit]) -> Iterator[Manifest]:
        """Yield the manifests that are as they were committed; tell of the others."""
        for commit in commits:
            try:
                yield read_manifest(self._repository, commit.manifest)
            except KeyUnavailable:
                continue  # told as the key's own damage
            except Corrupt as error:
                if commit.backup.label not in self._seen:
                    self._manifest(commit, error)

    def _manifest(self, commit: Commit, error: DrkitError) -> None:
        name, size = commit.manifest.name, commit.manifest.size
        wrong = self._wrong(name, size)
        if wrong is None:
            self._add(commit, name, DamageKind.CONTENT, error)
        else:
            self._tell(commit.backup.label, name, *wrong)

    def _packs(self, manifest: Manifest) -> None:
        label = manifest.head.label
        if label in self._seen:
            return
        self.objects += 1
        self.packs[manifest.head.attempt] = len(manifest.packs)
        for number, size in enumerate(manifest.packs["size"].tolist()):
            name = pack_name(self._repository, manifest, number)
            wrong = self._wrong(name, size)
            if wrong is not None:
                place = pack_place(manifest, number)
                lost = places(manifest, place.lost)
                damage = Damage(name, *wrong, Corrupt.exit_code, label, place, lost)
                self.damage.append(damage)
        self._fingerprint(manifest.head)
        self.notes += _notes(manifest)

    def _fingerprint(self, head: ManifestHead) -> None:
        if head.fingerprint is None:
            return
        name = head.fingerprint.name
        wrong = self._wrong(name, head.fingerprint.size)
        if wrong is not None:
            self.damage.append(
                Damage(name, *wrong, Corrupt.exit_code, head.label, needed=False)
            )

    def _wrong(self, name: str, size: int) -> tuple[DamageKind, str] | None:
        """Say what is wrong with an object that should be there; None if nothing is."""
        self.objects += 1
        self.bytes += size
        if self._listed.get(name) == size:
            return None
        there = self._there(name)
        if there is None:
            return DamageKind.MISSING, "is missing, though its backup was committed"
        if there != size:
            return DamageKind.SIZE, f"has {there} bytes, not {size}"
        return None

    def _there(self, name: str) -> int | None:
        """Return the size of an object, asked for by its name; None if it is gone."""
        try:
            return self._repository.storage.size(name)
        except ObjectNotFound:
            return None

    def _add(
        self, commit: Commit | None, name: str, kind: DamageKind, error: DrkitError
    ) -> None:
        label = None if commit is None else commit.backup.label
        told = f"can't be used: {error.message}"
        self.damage.append(Damage(name, kind, told, error.exit_code, label))

    def _tell(self, label: str, name: str, kind: DamageKind, what: str) -> None:
        self.damage.append(Damage(name, kind, what, Corrupt.exit_code, label))


def _notes(manifest: Manifest) -> Iterator[str]:
    """Yield what to know of a backup beside what is wrong with it."""
    head = manifest.head
    if len(manifest.damaged):
        pages = [
            f"{manifest.paths[file].decode(errors='replace')} page {block}"
            for file, block in manifest.damaged[:_SHOWN].tolist()
        ]
        more = ", …" if len(manifest.damaged) > _SHOWN else ""
        yield (
            f"{head.label} holds {len(manifest.damaged)} pages that were damaged in "
            f"the cluster already: {', '.join(pages)}{more}"
        )
    if not page_checksums(manifest):
        yield (
            f"{head.label} is of a cluster without page checksums: its content is held "
            "against what was read then, and damage from before would not be seen"
        )
