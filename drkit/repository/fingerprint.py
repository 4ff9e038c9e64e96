"""Stored fingerprints: sealed beside the backup that they were taken of."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from drkit.errors import Corrupt, ObjectNotFound
from drkit.model.fingerprint import FingerprintRef
from drkit.model.fingerprint_json import dump, load
from drkit.model.lsn import Lsn
from drkit.repository import limits
from drkit.repository.objects import Sealing, seal, unseal

if TYPE_CHECKING:
    from drkit.crypto.keys import Dek
    from drkit.model.fingerprint import Fingerprint
    from drkit.model.head import ManifestHead
    from drkit.repository.repository import Repository

_HINT = (
    "the backup itself can still be restored; what it held is proven without it only "
    "by your own checks, or by a new backup"
)


def write_fingerprint(
    repository: Repository, name: str, fingerprint: Fingerprint, dek: Dek
) -> FingerprintRef:
    """Store a fingerprint; return what the manifest says of it.

    Args:
        dek: the one of the backup's manifest, of purpose `catalog`.
    """
    sealed = seal(Sealing(dek, repository.lineage, name), dump(fingerprint))
    repository.storage.put(name, sealed)
    return FingerprintRef(
        name,
        len(sealed),
        hashlib.sha256(sealed).hexdigest(),
        fingerprint.mode,
        Lsn.parse(fingerprint.lsn),
        fingerprint.restore_point,
    )


def fingerprint_of(repository: Repository, head: ManifestHead) -> Fingerprint | None:
    """Fetch the fingerprint that was taken with a backup; None if there was none.

    Raises:
        Corrupt: it is missing, or not the one that the manifest names.
        KeyUnavailable: its key is not there.
    """
    if head.fingerprint is None:
        return None
    return read_fingerprint(repository, head.fingerprint)


def read_fingerprint(repository: Repository, reference: FingerprintRef) -> Fingerprint:
    """Fetch a fingerprint.

    Raises:
        Corrupt: it is missing, or not the one that the manifest names.
    """
    name = reference.name
    try:
        data = repository.storage.get(name, limit=reference.size)
    except ObjectNotFound:
        raise Corrupt(f"fingerprint {name} is missing", hint=_HINT) from None
    if hashlib.sha256(data).hexdigest() != reference.sha256:
        raise Corrupt(f"fingerprint {name} is not what was stored", hint=_HINT)
    find = repository.keyring.finder("catalog")
    plain = unseal(find, repository.lineage, name, "catalog", data, limits.FINGERPRINT)
    try:
        return load(plain)
    except (ValueError, KeyError, TypeError) as error:
        message = f"fingerprint {name} is malformed: {error}"
        raise Corrupt(message, hint=_HINT) from None
