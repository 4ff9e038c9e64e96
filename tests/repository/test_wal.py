from __future__ import annotations

import os
from datetime import timedelta

import pytest

from drkit.errors import Corrupt, NotFound, StorageError, WalRefused
from drkit.model.wal import WalFileName
from drkit.storage.retry import RetryingStorage
from tests.builders import SYSTEM, World, replace_object
from tests.faults import FaultyStorage, unavailable

SEGMENT = WalFileName.parse("000000010000000000000002")
KINDS = [
    SEGMENT,
    WalFileName.parse("0000000A00000002000000FF"),
    WalFileName.parse("000000010000000000000003.partial"),
    WalFileName.parse("000000010000000000000002.00000028.backup"),
    WalFileName.parse("00000002.history"),
]


def object_of(file: WalFileName) -> str:
    return World().repository(opened=False).layout.wal_file(SYSTEM, file)


@pytest.mark.parametrize("file", KINDS, ids=lambda file: file.name)
@pytest.mark.parametrize("content", [b"", b"x", os.urandom(1 << 20), bytes(1 << 20)])
def test_a_file_comes_back(file: WalFileName, content: bytes) -> None:
    world = World()
    wal = world.repository().wal
    assert not wal.has(file)
    assert wal.push(file, content, world.clock.now())
    assert world.repository().wal.get(file) == content
    assert wal.has(file)


def test_the_same_content_again_is_success_also_another_day() -> None:
    world = World()
    wal = world.repository().wal
    assert wal.push(SEGMENT, b"content", world.clock.now())
    assert not wal.push(SEGMENT, b"content", world.clock.now())
    world.clock.jump(days=3)
    assert not world.repository().wal.push(SEGMENT, b"content", world.clock.now())
    assert world.repository().wal.get(SEGMENT) == b"content"


@pytest.mark.parametrize("other", [b"", b"Content", b"content\0", b"conten"])
def test_another_content_is_refused_and_the_first_one_kept(other: bytes) -> None:
    world = World()
    wal = world.repository().wal
    wal.push(SEGMENT, b"content", world.clock.now())
    with pytest.raises(WalRefused, match=SEGMENT.name):
        wal.push(SEGMENT, other, world.clock.now())
    assert wal.get(SEGMENT) == b"content"


def test_another_system_identifier_has_its_own_names() -> None:
    world = World()
    repository = world.repository()
    repository.wal.push(SEGMENT, b"content", world.clock.now())
    other = type(repository.wal)(
        world.storage, repository.layout, repository.lineage, repository.keyring, "99"
    )
    assert not other.has(SEGMENT)
    assert not list(other.list())


def test_a_reply_that_was_lost_is_settled_by_reading_back() -> None:
    world = World()
    faulty = FaultyStorage(world.storage)
    retrying = RetryingStorage(faulty, world.clock)
    wal = world.repository(storage=retrying).wal
    faulty.lose_reply("put", unavailable(), name=object_of(SEGMENT), times=1 << 30)
    assert wal.push(SEGMENT, b"content", world.clock.now())
    assert wal.get(SEGMENT) == b"content"


def test_a_missing_file_is_not_found_and_a_failing_store_is_not_missing() -> None:
    world = World()
    faulty = FaultyStorage(world.storage)
    wal = world.repository(storage=faulty).wal
    with pytest.raises(NotFound, match=SEGMENT.name):
        wal.get(SEGMENT)
    faulty.fail("get", StorageError("timed out"), at=1, times=1 << 30)
    with pytest.raises(StorageError, match="timed out"):
        wal.get(SEGMENT)


def test_files_are_listed_by_kind_and_in_order() -> None:
    world = World()
    wal = world.repository().wal
    for file in reversed(KINDS):
        wal.push(file, b"content", world.clock.now())
    assert [one.file for one in wal.histories()] == [KINDS[-1]]
    listed = [one.file for one in wal.list()]
    assert listed == [SEGMENT, KINDS[3], KINDS[2], KINDS[1]]
    assert all(one.size > 7 for one in wal.list())


@pytest.mark.parametrize(
    "name",
    [
        f"alpha/wal/{SYSTEM}/junk",
        f"alpha/wal/{SYSTEM}/00000001/00000000/RECOVERYXLOG",
        f"alpha/wal/{SYSTEM}/00000001/00000000/.DS_Store",
        f"alpha/wal/{SYSTEM}/00000002/00000000/000000010000000000000009",
        f"alpha/wal/{SYSTEM}/000000010000000000000009",
        f"alpha/wal/{SYSTEM}/history/000000010000000000000009",
        f"alpha/wal/{SYSTEM}/history/junk",
    ],
)
def test_what_is_no_wal_file_in_its_place_is_not_listed(name: str) -> None:
    world = World()
    wal = world.repository().wal
    wal.push(SEGMENT, b"content", world.clock.now())
    world.storage.put(name, b"anything")
    assert [one.file for one in wal.list()] == [SEGMENT]
    assert not list(wal.histories())


def test_a_damaged_file_is_corrupt_until_it_is_pushed_again() -> None:
    world = World()
    wal = world.repository().wal
    wal.push(SEGMENT, b"content", world.clock.now())
    name = object_of(SEGMENT)
    data = bytearray(world.storage.get(name))
    data[100] ^= 1
    replace_object(world.storage, name, bytes(data))
    with pytest.raises(Corrupt, match=name):
        wal.get(SEGMENT)
    assert wal.push(SEGMENT, b"content", world.clock.now())
    assert wal.get(SEGMENT) == b"content"


def test_a_segment_of_another_cluster_or_repository_is_refused() -> None:
    world = World()
    wal = world.repository().wal
    wal.push(SEGMENT, b"content", world.clock.now())
    wal.push(WalFileName.parse(f"{SEGMENT.name[:-2]}FF"), b"", world.clock.now())
    name = object_of(SEGMENT)
    for other in (
        World(storage=world.storage, keys=world.keys, cluster="beta"),
        World(keys=world.keys),
    ):
        there = other.repository()
        there.wal.push(SEGMENT, b"content", world.clock.now())
        foreign = other.storage.get(there.layout.wal_file(SYSTEM, SEGMENT))
        for info in list(other.storage.list(f"{other.cluster}/keys/wal/")):
            copied = info.name.replace(other.cluster, "alpha", 1)
            if other.storage is not world.storage or copied != info.name:
                world.storage.put(copied, other.storage.get(info.name))
        replace_object(world.storage, name, foreign)
        with pytest.raises(Exception, match=name) as caught:
            world.repository().wal.get(SEGMENT)
        assert type(caught.value).__name__ in {"Corrupt", "KeyUnavailable"}


def test_each_day_has_its_own_key() -> None:
    world = World()
    wal = world.repository().wal
    wal.push(SEGMENT, b"content", world.clock.now())
    wal.push(KINDS[1], b"content", world.clock.now() + timedelta(days=1))
    ids = {world.storage.get(object_of(file))[16:32] for file in KINDS[:2]}
    assert len(ids) == 2
