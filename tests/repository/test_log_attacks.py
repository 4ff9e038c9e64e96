"""Every way in which somebody may have changed the log, with keys or without."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drkit.errors import (
    Corrupt,
    KeyUnavailable,
)
from tests.builders import (
    CLUSTER,
    Keys,
    World,
    begin,
    copy_of,
    replace_object,
)
from tests.faults import FaultyStorage
from tests.repository.logs import (
    OPEN,
    entry_name,
    plain_of,
    put_plain,
    put_signed,
    read,
    refused,
    two_backups,
)
from tests.vectors.forge import signed_entry


@pytest.fixture
def world() -> World:
    return two_backups()


# -- changed by somebody without keys


def test_every_bit_of_an_entry_counts(world: World) -> None:
    name = entry_name(1)
    good = world.storage.get(name)
    for bit in range(0, len(good) * 8, 3):
        changed = bytearray(good)
        changed[bit // 8] ^= 1 << bit % 8
        replace_object(world.storage, name, bytes(changed))
        with pytest.raises((Corrupt, KeyUnavailable), match=name):
            read(world)


@pytest.mark.parametrize("sequence", range(4))
def test_a_deleted_entry_is_missed(world: World, sequence: int) -> None:
    world.storage.delete(entry_name(sequence))
    refused(world, sequence, "is missing, though later ones are there")
    with pytest.raises(Corrupt):
        begin(world.repository(opened=False))
    assert not list(world.storage.list(entry_name(sequence)))


def test_a_thinned_log_is_missed(world: World) -> None:
    for sequence in (1, 3):
        world.storage.delete(entry_name(sequence))
    refused(world, 1, "is missing")


def test_entries_that_come_while_the_listing_is_made_are_no_hole(world: World) -> None:
    faulty = FaultyStorage(world.storage)
    repository = world.repository(opened=False, storage=faulty)
    other = world.repository(opened=False)
    faulty.call("list", lambda: [begin(other) for _ in range(3)], at=1)
    repository.log.read()
    assert len(repository.log.read().running()) == 3


def test_a_listing_that_shows_nothing_ends_no_log(world: World) -> None:
    faulty = FaultyStorage(world.storage)
    faulty.hide(lambda _: True)
    repository = world.repository(opened=False, storage=faulty)
    assert len(repository.log.read().backups) == 2


def test_swapped_entries_are_refused(world: World) -> None:
    first, second = (world.storage.get(entry_name(n)) for n in (1, 3))
    replace_object(world.storage, entry_name(1), second)
    replace_object(world.storage, entry_name(3), first)
    refused(world, 1, "not sealed under this name")


def test_an_entry_of_another_cluster_or_repository_is_refused(world: World) -> None:
    beta = World(world.storage, world.keys, world.clock, cluster="beta")
    begin(beta.repository())
    twin = World(keys=world.keys)
    begin(twin.repository())
    for foreign in (
        world.storage.get("beta/log/0000000001"),
        twin.storage.get(entry_name(1)),
    ):
        replace_object(world.storage, entry_name(1), foreign)
        with pytest.raises((Corrupt, KeyUnavailable), match=entry_name(1)):
            read(world)


def test_a_log_rolled_back_and_continued_is_refused_by_who_remembers(
    world: World,
) -> None:
    witness = read(world)
    older = copy_of(world.storage)
    for sequence in (3, 4):
        older.delete(entry_name(sequence))
    rolled_back = World(older, world.keys, world.clock)
    fork = rolled_back.repository(host="fork")
    for _ in range(3):
        begin(fork)
    for sequence in range(3, 6):
        data = older.get(entry_name(sequence))
        replace_object(world.storage, entry_name(sequence), data)
    with pytest.raises(Corrupt, match="does not follow") as caught:
        witness.log.read()
    assert "rolled back" in (caught.value.hint or "")


def test_two_forks_put_together_are_refused(world: World) -> None:
    fork = World(copy_of(world.storage), world.keys, world.clock)
    begin(fork.repository(host="fork"))
    begin(world.repository())
    begin(world.repository())
    data = fork.storage.get(entry_name(5))
    for info in fork.storage.list(f"{CLUSTER}/keys/"):
        if info.name not in {one.name for one in world.storage.list("")}:
            world.storage.put(info.name, fork.storage.get(info.name))
    replace_object(world.storage, entry_name(5), data)
    refused(world, 6, "does not follow")


# -- signed by somebody with keys


def test_a_stranger_is_not_believed(world: World) -> None:
    put_signed(world, 4, seed=bytes(32))
    refused(world, 4, "not signed by a key that the policy trusts")


def test_a_reader_that_pins_nobody_believes_nobody(world: World) -> None:
    with pytest.raises(Corrupt, match="not signed") as caught:
        world.repository(opened=False, trusted=()).log.read()
    public = world.keys.signer.public.hex()
    assert public in (caught.value.hint or "")


def test_an_added_signer_is_believed(world: World) -> None:
    other = Keys(world.keys.keks)
    trusted = [world.keys.signer.public, other.signer.public]
    begin(world.repository(keys=other, trusted=trusted))
    with pytest.raises(Corrupt, match=entry_name(5)):
        read(world)
    assert world.repository(trusted=trusted).log.state.running()


@pytest.mark.parametrize(
    ("members", "why"),
    [
        ({"previous": "0" * 64}, "does not follow"),
        ({"previous": None}, "does not follow"),
        ({"sequence": 3}, "another entry"),
        ({"sequence": True}, "another entry"),
        ({"format": 2}, "another format"),
        ({"drkit": "manifest"}, "another format"),
        ({"type": "begin"}, "malformed"),
        ({"type": ["begin"]}, "malformed"),
        ({"type": "forget"}, "are not known"),
        ({"time": "yesterday"}, "malformed"),
        ({"time": "2026-01-15T10:30:00"}, "malformed"),
        ({"host": None}, "malformed"),
        ({"type": "open", "cluster": CLUSTER, "system_identifier": "1"}, "malformed"),
        ({"type": "open"} | OPEN, "may not stand there"),
        ({"type": "abandon", "reason": ""}, "may not stand there"),
        ({"type": "expire-intent", "labels": ["x"]}, "may not stand there"),
        ({"type": "expire-intent", "labels": [["x"]]}, "malformed"),
        ({"type": "expire-intent", "labels": "x"}, "malformed"),
        ({"type": "expire-done", "labels": ["x"]}, "may not stand there"),
        ({"attempt": "f" * 32}, "may not stand there"),
        ({"attempt": "../../x"}, "malformed"),
        ({"manifest": {}}, "malformed"),
    ],
)
def test_a_signed_entry_that_no_writer_makes_is_refused(
    world: World, members: dict[str, Any], why: str
) -> None:
    if members.get("type") == "abandon":
        members = members | {"attempt": "f" * 32}
    put_signed(world, 4, **members)
    refused(world, 4, why)


def test_a_log_of_another_cluster_under_this_name_is_refused(world: World) -> None:
    put_signed(world, 0, cluster="beta")
    refused(world, 0, "belongs to cluster beta")


@pytest.mark.parametrize(
    "payload", [b"", b"[]", b"[" * 300_000, b"\xff", b"{}", b'"x"', b"1e999"]
)
def test_a_payload_that_is_no_entry_is_refused(world: World, payload: bytes) -> None:
    lineage = world.repository(opened=False).lineage
    plain = signed_entry(world.keys.seed, lineage, entry_name(4), payload)
    put_plain(world, 4, plain)
    refused(world, 4, "malformed|too short")


@pytest.mark.parametrize("length", [0, 1, 95, 96])
def test_an_entry_too_short_for_a_signature_is_refused(
    world: World, length: int
) -> None:
    put_plain(world, 4, bytes(length))
    refused(world, 4, "too short")


def test_an_entry_of_more_than_a_mebibyte_is_refused(world: World) -> None:
    put_plain(world, 4, bytes((1 << 20) + 1))
    refused(world, 4, "expands to more than")


@given(data=st.data())
@settings(max_examples=100)
def test_a_signed_entry_with_changed_bytes_is_good_or_corrupt(
    data: st.DataObject,
) -> None:
    world = World()
    begin(world.repository())
    payload = bytearray(plain_of(world, 1)[96:])
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(payload) - 1))
        payload[place] = data.draw(st.integers(0, 255))
    lineage = world.repository(opened=False).lineage
    name = entry_name(1)
    put_plain(world, 1, signed_entry(world.keys.seed, lineage, name, bytes(payload)))
    try:
        read(world)
    except Corrupt as error:
        assert name in str(error)  # noqa: PT017  both outcomes are right
