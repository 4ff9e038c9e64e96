"""Manifests in a repository: stored sealed, fetched as they were committed."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from drkit.errors import Corrupt, ObjectNotFound
from drkit.model.backup import ManifestRef
from drkit.repository import limits
from drkit.repository.manifest import decode, encode
from drkit.repository.objects import Sealing, seal, unseal

if TYPE_CHECKING:
    from drkit.crypto.keys import Dek
    from drkit.model.manifest import Manifest
    from drkit.repository.repository import Repository


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
        data = repository.storage.get(name, limit=reference.size)
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
    plain = unseal(find, repository.lineage, name, "catalog", data, limits.MANIFEST)
    return decode(name, plain)
