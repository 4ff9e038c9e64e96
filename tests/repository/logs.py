"""A log to change, and ways to change it, with the keys or without."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from drkit.errors import (
    Corrupt,
)
from drkit.repository.objects import Sealing, seal, unseal
from tests.builders import (
    CLUSTER,
    World,
    begin,
    commit_entry,
    replace_object,
)
from tests.vectors.forge import signed_entry

if TYPE_CHECKING:
    from drkit.repository.repository import Repository


def two_backups() -> World:
    """A log of five entries: open, and two committed backups."""
    world = World()
    repository = world.repository()
    for _ in range(2):
        begun = begin(repository)
        repository.log.append(lambda _, begun=begun: commit_entry(begun))
    return world


OPEN = {"cluster": CLUSTER, "system_identifier": "1", "segment_size": 16 << 20}


def entry_name(sequence: int) -> str:
    return f"{CLUSTER}/log/{sequence:010d}"


def plain_of(world: World, sequence: int) -> bytes:
    repository = world.repository(opened=False)
    name = entry_name(sequence)
    return unseal(
        repository.keyring.finder("catalog"),
        repository.lineage,
        name,
        "catalog",
        world.storage.get(name),
    )


def put_plain(world: World, sequence: int, plain: bytes) -> None:
    """Give an entry another plaintext, sealed as the right writer would."""
    repository = world.repository(opened=False)
    name = entry_name(sequence)
    key_id = world.storage.get(entry_name(0))[16:32]
    dek = repository.keyring.get("catalog", key_id)
    sealed = bytes(seal(Sealing(dek, repository.lineage, name), plain))
    replace_object(world.storage, name, sealed)


def put_signed(
    world: World, at: int, /, seed: bytes | None = None, **members: Any
) -> None:
    """Give an entry other members, signed by its right signer or another."""
    lineage = world.repository(opened=False).lineage
    found = json.loads(plain_of(world, at)[96:]) | members
    name = entry_name(at)
    plain = signed_entry(seed or world.keys.seed, lineage, name, found)
    put_plain(world, at, plain)


def read(world: World) -> Repository:
    repository = world.repository(opened=False)
    repository.log.read()
    return repository


def refused(world: World, sequence: int, why: str) -> None:
    with pytest.raises(Corrupt, match=why) as caught:
        read(world)
    assert entry_name(sequence) in str(caught.value)
