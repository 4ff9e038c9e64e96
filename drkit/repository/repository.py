"""One cluster's part of a repository, opened: what the operations work with."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from drkit.errors import Corrupt, NotFound, ObjectNotFound, RepositoryMissing
from drkit.model.backup import ManifestRef
from drkit.repository.manifest import decode, encode
from drkit.repository.objects import Sealing, seal, unseal

if TYPE_CHECKING:
    from drkit.crypto.keys import Dek
    from drkit.model.log import Commit
    from drkit.model.manifest import Manifest
    from drkit.protocols import Clock, Storage
    from drkit.repository.keyring import Keyring
    from drkit.repository.layout import Layout
    from drkit.repository.log import Log
    from drkit.repository.wal import WalArchive

_MAX_MANIFEST = 1 << 30


@dataclass(frozen=True, slots=True)
class Repository:
    """The parts of a repository that belong to one cluster."""

    storage: Storage
    layout: Layout
    lineage: bytes
    keyring: Keyring
    log: Log
    wal: WalArchive
    clock: Clock

    def backups(self) -> list[Commit]:
        """Return the live backups, oldest first.

        Raises:
            RepositoryMissing: this cluster was never set up here.
        """
        state = self.log.read()
        if state.opened is None:
            raise RepositoryMissing(
                f"cluster {self.layout.cluster} has no log at {self.storage.url}",
                hint="set it up with `drkit init`, or check `repository.url`",
            )
        return list(state.backups.values())

    def find(self, label: str) -> Commit:
        """Return the backup that `label`, a unique prefix of it, or `latest` means.

        Raises:
            NotFound: none or several are meant.
        """
        commits = self.backups()
        if label == "latest":
            meant = commits[-1:]
        else:
            meant = [one for one in commits if one.backup.label.startswith(label)]
        if len(meant) == 1:
            return meant[0]
        known = ", ".join(one.backup.label for one in commits) or "none"
        cluster = self.layout.cluster
        if not meant:
            raise NotFound(
                f"{cluster} has no backup {label!r}", hint=f"the backups are: {known}"
            )
        labels = ", ".join(one.backup.label for one in meant)
        raise NotFound(
            f"{label!r} could be any of {len(meant)} backups of {cluster}: {labels}",
            hint="write out as much of the label as one of them alone has",
        )


def write_manifest(
    repository: Repository, name: str, manifest: Manifest, dek: Dek
) -> ManifestRef:
    """Store a manifest; return what a commit entry says of it."""
    sealed = seal(Sealing(dek, repository.lineage, name), encode(manifest))
    repository.storage.put(name, sealed)
    digest = hashlib.sha256(sealed).hexdigest()
    return ManifestRef(name, len(sealed), digest, dek.key_id.hex())


def read_manifest(repository: Repository, reference: ManifestRef) -> Manifest:
    """Fetch a manifest and check it against its commit entry, which is signed.

    Raises:
        Corrupt: it is missing, or not what was committed.
    """
    name = reference.name
    try:
        data = repository.storage.get(name)
    except ObjectNotFound:
        raise Corrupt(
            f"manifest {name} is missing, though its backup was committed",
            hint="choose another backup; `drkit info` lists them",
        ) from None
    if hashlib.sha256(data).hexdigest() != reference.sha256:
        raise Corrupt(
            f"manifest {name} is not what was committed",
            hint="it was changed or damaged; choose another backup",
        )
    find = repository.keyring.finder("catalog")
    plain = unseal(find, repository.lineage, name, "catalog", data, _MAX_MANIFEST)
    return decode(name, plain)
