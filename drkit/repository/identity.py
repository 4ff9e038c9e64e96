"""`drkit.json`: that a repository is there, its format and its lineage.

On the path of `wal push`: imports no more than that needs.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from typing import TYPE_CHECKING

from drkit.errors import (
    Corrupt,
    ObjectExists,
    ObjectNotFound,
    RepositoryMissing,
    StorageError,
)
from drkit.model import members
from drkit.repository import limits
from drkit.repository.layout import REPOSITORY

if TYPE_CHECKING:
    from datetime import datetime

    from drkit.protocols import Storage

_FORMAT = 1
_LINEAGE_BYTES = 16


def read_lineage(storage: Storage) -> bytes:
    """Return the lineage of the repository in `storage`, 16 bytes.

    Raises:
        RepositoryMissing: there is none, or it has another format.
    """
    try:
        data = storage.get(REPOSITORY, limit=limits.IDENTITY)
    except ObjectNotFound:
        raise RepositoryMissing(
            f"there is no drkit repository at {storage.url}",
            hint="check the URL and the mount, or make one: `drkit init`",
        ) from None
    try:
        found = members.parse_object(data)
        version = members.count(found, "format")
        if version != _FORMAT:
            raise RepositoryMissing(
                f"the repository at {storage.url} has format {version}, not {_FORMAT}",
                hint="another version of drkit wrote it; use that version",
            )
        return _lineage(members.parse_plain(data))
    except (ValueError, KeyError):
        raise Corrupt(f"{REPOSITORY} at {storage.url} is malformed") from None


def _lineage(found: members.Members) -> bytes:
    lineage, created = members.hexadecimal(found, "lineage"), found["created"]
    if found["drkit"] != "repository" or len(lineage) != _LINEAGE_BYTES:
        raise ValueError("it is no repository's identity")
    if members.moment(found, "created").isoformat() != created:
        raise ValueError("its time is not written as times are")
    return lineage


def create_identity(storage: Storage, now: datetime) -> bytes:
    """Write `drkit.json` with a new lineage, or return the lineage that is there."""
    identity = {
        "drkit": "repository",
        "format": _FORMAT,
        "lineage": os.urandom(_LINEAGE_BYTES).hex(),
        "created": now.isoformat(),
    }
    with contextlib.suppress(ObjectExists):
        storage.put(REPOSITORY, json.dumps(identity).encode())
    return read_lineage(storage)


def prove_create_only(storage: Storage, name: str) -> None:
    """Prove that a second put of a name fails and leaves the first one's bytes.

    Raises:
        StorageError: the store overwrites, so nothing in it would be safe.
    """
    first, second = os.urandom(64), os.urandom(64)
    storage.put(name, first)
    try:
        storage.put(name, second)
    except ObjectExists:
        refused = True
    else:
        refused = False
    there = storage.get(name, limit=limits.PROBE)
    kept = hashlib.sha256(there).digest() == hashlib.sha256(first).digest()
    storage.delete(name)
    if not (refused and kept):
        raise StorageError(
            f"{storage.url} lets a second write replace an object",
            hint="drkit needs create-only writes (`If-None-Match: *` on S3); use a "
            "store or a gateway that honours them",
        )
