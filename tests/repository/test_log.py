"""The log: written, read, and every way in which somebody may have changed it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drkit.errors import (
    AttemptFenced,
    Corrupt,
    KeyUnavailable,
    RepositoryMissing,
    StorageError,
)
from drkit.model.log import Abandon, Commit, ExpireIntent, Open
from drkit.repository.objects import Sealing, seal, unseal
from drkit.storage.retry import RetryingStorage
from tests.builders import (
    CLUSTER,
    Keys,
    World,
    back_up,
    begin,
    commit_entry,
    copy_of,
    replace_object,
)
from tests.faults import FaultyStorage, unavailable
from tests.vectors.forge import signed_entry

if TYPE_CHECKING:
    from drkit.repository.repository import Repository


@pytest.fixture
def world() -> World:
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


def test_another_host_reads_what_was_written(world: World) -> None:
    log = read(world).log
    types = [one.entry.TYPE for one in log.entries]
    assert types == ["open", "begin", "commit", "begin", "commit"]
    assert [one.sequence for one in log.entries] == list(range(5))
    assert all(one.host == "host-a" for one in log.entries)
    for number, one in enumerate(log.entries):
        assert one.digest == hashlib.sha256(plain_of(world, number)).hexdigest()


def test_a_log_without_entries_was_never_set_up() -> None:
    repository = World().repository(opened=False)
    assert repository.log.read().opened is None
    with pytest.raises(RepositoryMissing, match=CLUSTER):
        repository.backups()
    with pytest.raises(AttemptFenced, match="not been opened"):
        begin(repository)


def test_a_reader_needs_no_signing_key(world: World) -> None:
    readers = Keys(world.keys.keks, b"")
    repository = world.repository(opened=False, keys=readers)
    assert len(repository.backups()) == 2
    with pytest.raises(ValueError, match="32"):
        begin(repository)


def test_what_decide_raises_goes_through_and_nothing_is_written(world: World) -> None:
    repository = read(world)

    def decide(_: object) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        repository.log.append(decide)
    assert len(read(world).log.entries) == 5


def test_a_writer_that_lost_the_race_decides_again(world: World) -> None:
    faulty = FaultyStorage(world.storage)
    slow = world.repository(host="slow", opened=False, storage=faulty)
    slow.log.read()
    fast = world.repository(host="fast", opened=False)
    faulty.call("put", lambda: begin(fast), at=faulty.calls["put"] + 1)
    mine = begin(slow)
    hosts = [one.host for one in slow.log.entries]
    assert hosts[-2:] == ["fast", "slow"]
    labels = [entry.label for entry in read(world).log.state.running()]
    assert labels == sorted(set(labels))
    assert labels[-1] == mine.label


def test_an_attempt_that_was_abandoned_meanwhile_can_not_commit(world: World) -> None:
    faulty = FaultyStorage(world.storage)
    slow = world.repository(host="slow", opened=False, storage=faulty)
    begun = begin(slow)
    fast = world.repository(host="fast", opened=False)
    faulty.call(
        "put",
        lambda: fast.log.append(lambda _: Abandon(begun.attempt, "thought dead")),
        at=faulty.calls["put"] + 1,
    )
    with pytest.raises(AttemptFenced, match="abandoned"):
        slow.log.append(lambda _: commit_entry(begun))
    assert begun.label not in read(world).log.state.backups


def test_a_lost_reply_writes_one_entry(world: World) -> None:
    faulty = FaultyStorage(world.storage)
    retrying = RetryingStorage(faulty, world.clock)
    repository = world.repository(opened=False, storage=retrying)
    faulty.lose_reply("put", unavailable(), at=1)
    begun = begin(repository)
    assert len(read(world).log.entries) == 6
    assert begun.attempt in read(world).log.state.attempts


def test_a_store_that_fails_is_no_end_of_the_log(world: World) -> None:
    faulty = FaultyStorage(world.storage)
    repository = world.repository(opened=False, storage=faulty)
    faulty.fail("get", StorageError("timed out"), name=entry_name(2), times=1 << 30)
    with pytest.raises(StorageError, match="timed out"):
        repository.log.read()
    faulty.heal()
    assert len(repository.log.read().backups) == 2


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
        ({"type": "forget"}, "malformed"),
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


# -- what the repository makes of it


def test_backups_are_found_by_label_prefix_and_latest(world: World) -> None:
    repository = read(world)
    first, second = (commit.backup.label for commit in repository.backups())
    assert repository.find("latest").backup.label == second
    assert repository.find(first).backup.label == first
    assert repository.find(second[:15]).backup.label == second
    for label in ("2026", "2025", "", "LATEST"):
        with pytest.raises(Exception, match="match") as caught:
            repository.find(label)
        assert first in (caught.value.hint or "")  # type: ignore[attr-defined]


def test_a_manifest_that_is_not_the_committed_one_is_refused() -> None:
    from drkit.repository.repository import read_manifest

    world = World()
    repository = world.repository()
    commit = back_up(repository, {b"a": b"content"})
    other = back_up(repository, {b"a": b"content"})
    name = commit.manifest.name
    good = world.storage.get(name)
    for bad in (good[:-1], good + b"\0", world.storage.get(other.manifest.name), b""):
        replace_object(world.storage, name, bad)
        with pytest.raises(Corrupt, match=name):
            read_manifest(repository, commit.manifest)
    world.storage.delete(name)
    with pytest.raises(Corrupt, match=f"{name} is missing"):
        read_manifest(repository, commit.manifest)


def test_every_bit_of_a_manifest_counts_even_without_its_digest() -> None:
    world = World()
    repository = world.repository()
    commit = back_up(repository, {b"a": b"content"})
    name = commit.manifest.name
    good = world.storage.get(name)
    find = repository.keyring.finder("catalog")
    for bit in range(len(good) * 8):
        changed = bytearray(good)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises((Corrupt, KeyUnavailable), match=name):
            unseal(find, repository.lineage, name, "catalog", bytes(changed))


def test_an_expired_backup_is_not_listed_and_no_parent(world: World) -> None:
    repository = read(world)
    first, second = (commit.backup.label for commit in repository.backups())
    repository.log.append(lambda _: ExpireIntent((first,)))
    assert [one.backup.label for one in read(world).backups()] == [second]
    with pytest.raises(AttemptFenced, match="no live backup"):
        begin(repository, parent=first)
    child = begin(repository, parent=second)
    with pytest.raises(AttemptFenced, match="child that stays"):
        repository.log.append(lambda _: ExpireIntent((second,)))
    repository.log.append(lambda _: Abandon(child.attempt, "given up"))
    repository.log.append(lambda _: ExpireIntent((second,)))
    assert not read(world).backups()


def test_opening_twice_is_fenced(world: World) -> None:
    with pytest.raises(AttemptFenced, match="open already"):
        read(world).log.append(lambda _: Open(CLUSTER, "1", 16 << 20))


def test_a_commit_under_another_label_is_fenced(world: World) -> None:
    repository = read(world)
    begun = begin(repository)
    entry = commit_entry(replace(begun, label="20990101-000000-full"))
    with pytest.raises(AttemptFenced, match="began as"):
        repository.log.append(lambda _: entry)
    assert isinstance(commit_entry(begun), Commit)
