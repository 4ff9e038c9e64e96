"""Blocks of the log save requests; one that is wrong changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from drkit.errors import Corrupt, StorageError
from drkit.model.log import Abandon
from drkit.repository.log_blocks import ENTRIES, LogBlocks
from drkit.repository.log_entries import EntryCopy
from tests.builders import CLUSTER, World, begin, copy_of, replace_object
from tests.faults import FOREVER, FaultyStorage
from tests.repository.logs import entry_name, plain_of, put_signed
from tests.vectors.forge import signed_entry

if TYPE_CHECKING:
    from drkit.repository.repository import Repository

COUNT = 2 * ENTRIES + 10


def block_name(first: int) -> str:
    return f"{CLUSTER}/log-blocks/{first:010d}"


def blocks_of(repository: Repository) -> LogBlocks:
    parts = (repository.storage, repository.layout, repository.lineage)
    return LogBlocks(*parts, repository.keyring)


def grow(repository: Repository, count: int) -> None:
    """Append begun and abandoned attempts until the log has `count` entries."""
    while len(repository.log.entries) < count:
        begun = begin(repository)
        if len(repository.log.entries) < count:
            entry = Abandon(begun.attempt, "why")
            repository.log.append(lambda _, entry=entry: entry)  # type: ignore[misc]


@pytest.fixture(scope="module")
def long_log() -> World:
    world = World()
    grow(world.repository(), COUNT)
    return world


@pytest.fixture
def world(long_log: World) -> World:
    return World(copy_of(long_log.storage), long_log.keys, long_log.clock)


def read(world: World) -> Repository:
    repository = world.repository(opened=False)
    repository.log.read()
    return repository


def calls(world: World) -> int:
    """Read the log with a new reader; return how many objects it asked for."""
    storage = FaultyStorage(world.storage)
    repository = world.repository(opened=False, storage=storage)
    before = storage.calls["get"]
    repository.log.read()
    assert len(repository.log.entries) == COUNT
    return storage.calls["get"] - before


def same(one: Repository, other: Repository) -> bool:
    return (one.log.entries, one.log.state, one.log.key_ids) == (
        other.log.entries,
        other.log.state,
        other.log.key_ids,
    )


def without_blocks(world: World) -> World:
    copy = copy_of(world.storage)
    for first in (0, ENTRIES):
        copy.delete(block_name(first))
    return World(copy, world.keys, world.clock)


def test_a_log_is_read_by_its_blocks(world: World) -> None:
    bare = without_blocks(world)
    assert same(read(world), read(bare))
    # A block and the entry that ends it, each; the rest; the one that is not there.
    assert calls(world) <= 2 * 2 + 10 + 1 + 1
    assert calls(bare) > COUNT
    grow(read(world), COUNT + 1)
    assert len(read(world).log.entries) == COUNT + 1


def test_whoever_appends_stores_the_blocks_that_are_missing(world: World) -> None:
    bare = without_blocks(world)
    other = bare.repository(host="host-b")
    assert not list(bare.storage.list(f"{CLUSTER}/log-blocks/"))
    other.log.read()
    assert not list(bare.storage.list(f"{CLUSTER}/log-blocks/"))
    grow(other, COUNT + 1)
    stored = [info.name for info in bare.storage.list(f"{CLUSTER}/log-blocks/")]
    assert stored == [block_name(0), block_name(ENTRIES)]
    assert same(read(bare), other)


def test_a_block_in_the_middle_that_is_missing_is_stored_again(world: World) -> None:
    world.storage.delete(block_name(0))
    appending = read(world)
    grow(appending, 3 * ENTRIES + 1)
    stored = [info.name for info in world.storage.list(f"{CLUSTER}/log-blocks/")]
    assert stored == [block_name(first * ENTRIES) for first in range(3)]
    assert same(read(world), appending)


@pytest.mark.parametrize("first", [0, ENTRIES])
@pytest.mark.parametrize("damage", ["flip", "cut", "swap", "empty"])
def test_a_damaged_block_is_passed_over(world: World, first: int, damage: str) -> None:
    expected = read(world)
    name = block_name(first)
    data = world.storage.get(name)
    changed = {
        "flip": data[:200] + bytes([data[200] ^ 1]) + data[201:],
        "cut": data[:-1],
        "swap": world.storage.get(block_name(ENTRIES - first)),
        "empty": b"",
    }[damage]
    replace_object(world.storage, name, changed)
    assert same(read(world), expected)


def forge(world: World, first: int, place: int, plain: bytes) -> None:
    """Put another entry into a block, as whoever has the log's key could."""
    repository = read(world)
    blocks = blocks_of(repository)
    copies = blocks.get(first)
    assert copies is not None
    copies[place] = EntryCopy(copies[place].key_id, plain)
    world.storage.delete(block_name(first))
    blocks.put(first, copies, repository.log.dek())
    assert blocks.get(first) == copies


@pytest.mark.parametrize("place", [0, 1, 100, ENTRIES - 1])
def test_an_entry_that_only_a_block_has_is_never_believed(
    world: World, place: int
) -> None:
    """Signed by the right key or another, in the chain's place or not."""
    expected = read(world)
    sequence = ENTRIES + place
    real = plain_of(world, sequence)
    forge(world, ENTRIES, place, real[:96] + real[96:].replace(b"why", b"not"))
    assert same(read(world), expected)
    forge(world, ENTRIES, place, plain_of(world, sequence - 2))
    assert same(read(world), expected)
    name, lineage = entry_name(sequence), expected.lineage
    entry = {"drkit": "log", "format": 1, "sequence": sequence, "type": "forget"}
    forge(world, ENTRIES, place, signed_entry(world.keys.seed, lineage, name, entry))
    assert same(read(world), expected)
    forge(world, ENTRIES, place, b"short")
    assert same(read(world), expected)


def test_a_block_that_ends_elsewhere_than_the_log_is_not_believed(
    world: World,
) -> None:
    """The entry that ends it was replaced: the log is forked."""
    put_signed(world, ENTRIES - 1, host="another")
    with pytest.raises(Corrupt, match="does not follow") as caught:
        read(world)
    assert entry_name(ENTRIES) in str(caught.value)


def test_a_signer_who_is_no_longer_trusted_is_refused_through_blocks(
    long_log: World,
) -> None:
    world = World(clock=long_log.clock)
    old = world.repository()
    grow(old, 3)
    new_keys = type(world.keys)(world.keys.keks)
    trusted = [world.keys.signer.public, new_keys.signer.public]
    new = world.repository(keys=new_keys, trusted=trusted, opened=False)
    new.log.read()
    grow(new, ENTRIES + 1)
    assert world.storage.size(block_name(0)) > 0
    reader = world.repository(keys=new_keys, trusted=trusted[1:], opened=False)
    with pytest.raises(Corrupt, match="not signed by a key that the policy trusts"):
        reader.log.read()


def test_a_block_that_cannot_be_stored_hurts_nobody(world: World) -> None:
    storage = FaultyStorage(world.storage)
    name = block_name(2 * ENTRIES)
    storage.fail("put", StorageError("EIO"), times=FOREVER, name=name)
    repository = world.repository(storage=storage, opened=False)
    grow(repository, 3 * ENTRIES + 5)
    assert same(read(world), repository)
    with pytest.raises(StorageError):
        world.storage.size(name)


def test_a_listing_that_lacks_entries_costs_requests_only(world: World) -> None:
    expected = read(world)
    storage = FaultyStorage(world.storage)
    storage.hide(lambda name: "/log/" in name)
    repository = world.repository(storage=storage, opened=False)
    repository.log.read()
    assert same(repository, expected)
