"""Fingerprints in the repository: stored sealed, and read only as they were stored."""

from __future__ import annotations

import hashlib

import pytest

from drkit.crypto.keys import new_dek
from drkit.errors import Corrupt
from drkit.repository.fingerprint import read_fingerprint, write_fingerprint
from drkit.repository.objects import Sealing, seal
from tests.builders import World, new_attempt, replace_object
from tests.model.test_fingerprint import FINGERPRINT

LABEL = "20260115-103000-full"


def test_what_is_stored_is_read_by_another_host_and_is_sealed() -> None:
    world = World()
    repository = world.repository()
    dek = new_dek("catalog")
    repository.keyring.store(dek)
    name = repository.layout.fingerprint(LABEL, new_attempt())
    reference = write_fingerprint(repository, name, FINGERPRINT, dek)
    assert reference.name.startswith(f"alpha/backups/{LABEL}-")
    assert read_fingerprint(world.repository(host="host-b"), reference) == FINGERPRINT
    assert b"superuser" not in bytes(repository.storage.get(name))


@pytest.mark.parametrize("fault", ["missing", "bit", "other", "foreign"])
def test_anything_else_is_refused(fault: str) -> None:
    world = World()
    repository = world.repository()
    dek = new_dek("catalog")
    repository.keyring.store(dek)
    name = repository.layout.fingerprint(LABEL, new_attempt())
    reference = write_fingerprint(repository, name, FINGERPRINT, dek)
    data = bytes(repository.storage.get(name))
    if fault == "missing":
        repository.storage.delete(name)
    elif fault == "bit":
        replace_object(repository.storage, name, data[:-1] + bytes([data[-1] ^ 1]))
    elif fault == "other":
        sealed = seal(Sealing(dek, repository.lineage, name), b"{}")
        replace_object(repository.storage, name, bytes(sealed))
    else:
        other = repository.layout.fingerprint(LABEL, new_attempt())
        repository.storage.put(other, b"no object")
        reference = reference._replace(name=other)
    with pytest.raises(Corrupt, match="fingerprint alpha/backups/"):
        read_fingerprint(repository, reference)


def test_a_malformed_one_under_its_own_digest_is_refused() -> None:
    repository = World().repository()
    dek = new_dek("catalog")
    repository.keyring.store(dek)
    name = repository.layout.fingerprint(LABEL, new_attempt())
    sealed = bytes(seal(Sealing(dek, repository.lineage, name), b'{"drkit": 1}'))
    repository.storage.put(name, sealed)
    reference = write_fingerprint(repository, f"{name}-2", FINGERPRINT, dek)._replace(
        name=name, sha256=hashlib.sha256(sealed).hexdigest()
    )
    with pytest.raises(Corrupt, match="malformed"):
        read_fingerprint(repository, reference)
