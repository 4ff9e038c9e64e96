from __future__ import annotations

import json

import pytest

from drkit.errors import Corrupt, RepositoryMissing, StorageError
from drkit.repository.identity import (
    create_identity,
    prove_create_only,
    read_lineage,
)
from drkit.storage.memory import MemoryStorage
from tests.builders import EPOCH

GOOD = {"drkit": "repository", "format": 1, "lineage": "ab" * 16}


def test_an_identity_is_made_once() -> None:
    storage = MemoryStorage()
    lineage = create_identity(storage, EPOCH)
    assert len(lineage) == 16
    assert create_identity(storage, EPOCH) == read_lineage(storage) == lineage
    assert create_identity(MemoryStorage(), EPOCH) != lineage


def test_no_repository_says_so() -> None:
    with pytest.raises(RepositoryMissing, match="memory://"):
        read_lineage(MemoryStorage())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"null",
        b"\xff",
        b"[" * 100_000,
        json.dumps(GOOD | {"lineage": "ab"}).encode(),
        json.dumps(GOOD | {"lineage": None}).encode(),
        json.dumps(GOOD | {"drkit": "key"}).encode(),
        json.dumps({"drkit": "repository", "format": 1}).encode(),
    ],
    ids=range(9),
)
def test_a_malformed_identity_is_corrupt(data: bytes) -> None:
    storage = MemoryStorage()
    storage.put("drkit.json", data)
    with pytest.raises(Corrupt, match=r"drkit\.json"):
        read_lineage(storage)


def test_another_format_says_which() -> None:
    storage = MemoryStorage()
    storage.put("drkit.json", json.dumps(GOOD | {"format": 2}).encode())
    with pytest.raises(RepositoryMissing, match="format 2, not 1"):
        read_lineage(storage)


class Overwriting(MemoryStorage):
    """A store that ignores conditional writes, as some gateways do."""

    def put(self, name: str, data: bytes) -> None:
        self.delete(name)
        super().put(name, data)


class Lying(MemoryStorage):
    """A store that refuses the second write, and has done it."""

    def put(self, name: str, data: bytes) -> None:
        try:
            super().put(name, data)
        except StorageError:
            self.delete(name)
            super().put(name, data)
            raise


@pytest.mark.parametrize("storage", [Overwriting(), Lying()], ids=["silent", "lying"])
def test_a_store_that_overwrites_is_refused(storage: MemoryStorage) -> None:
    with pytest.raises(StorageError, match="replace an object"):
        prove_create_only(storage, "alpha/probes/00")
    assert not list(storage.list(""))


def test_a_good_store_is_proven_and_left_clean() -> None:
    storage = MemoryStorage()
    prove_create_only(storage, "alpha/probes/00")
    assert not list(storage.list(""))
