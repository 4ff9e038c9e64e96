"""Backups that are whole though the log has no commit of them.

Such a one was left by a process that died just before its commit; or its commit is
hidden or gone. Nobody can tell which from the store alone, so it is never swept: a
person discards it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from drkit.errors import Corrupt, KeyLost, KeyUnavailable, ObjectNotFound
from drkit.repository import limits
from drkit.repository.objects import unseal

if TYPE_CHECKING:
    from drkit.protocols import Storage
    from drkit.repository.repository import Repository


def is_whole(repository: Repository, label: str, attempt: str) -> bool:
    """Say whether an attempt's manifest is there and all packs that it names.

    One that this policy's keys can't open, or this drkit can't read, counts as whole:
    it may be. What no holder of the keys has written does not.

    Raises:
        StorageError: the store failed.
    """
    try:
        plain = _manifest(repository, label, attempt)
    except KeyLost:
        return False
    except KeyUnavailable:
        return True
    return plain is not None and _has_packs(repository, label, attempt, plain)


def has_manifest(repository: Repository, label: str, attempt: str) -> bool:
    """Say whether a holder of the keys has written a manifest of the attempt."""
    try:
        return _manifest(repository, label, attempt) is not None
    except KeyUnavailable:
        return False


def deleted_parts(repository: Repository, label: str, attempt: str) -> list[str]:
    """Return the names of an attempt's that the store has other bytes of.

    They were deleted or replaced, and could be brought back.
    """
    prefix = repository.layout.backup(label, attempt)
    return list(repository.storage.hidden(prefix) or ())


def _manifest(repository: Repository, label: str, attempt: str) -> bytes | None:
    """Return the plaintext of an attempt's manifest; None if there is none to open."""
    name = repository.layout.manifest(label, attempt)
    find = repository.keyring.finder("catalog")
    try:
        data = repository.storage.get(name, limit=limits.sealed(limits.MANIFEST))
        return unseal(find, repository.lineage, name, "catalog", data, limits.MANIFEST)
    except (ObjectNotFound, Corrupt):
        return None


def _has_packs(repository: Repository, label: str, attempt: str, plain: bytes) -> bool:
    """Say whether every pack is there; what a listing lacks is looked for by name."""
    from drkit.repository.manifest import decode  # noqa: PLC0415 - imports numpy

    storage, layout = repository.storage, repository.layout
    try:
        sizes = decode(layout.manifest(label, attempt), plain).packs["size"].tolist()
    except Corrupt:
        return True
    listed = {
        info.name: info.size for info in storage.list(layout.backup(label, attempt))
    }
    names = [layout.pack(label, attempt, number) for number in range(len(sizes))]
    return all(
        size == (listed.get(name) or _size(storage, name))
        for name, size in zip(names, sizes, strict=True)
    )


def _size(storage: Storage, name: str) -> int:
    try:
        return storage.size(name)
    except ObjectNotFound:
        return -1
