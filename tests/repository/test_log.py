"""The log as its writers and readers use it."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import pytest

from drkit.errors import (
    AttemptFenced,
    Corrupt,
    KeyUnavailable,
    NotFound,
    RepositoryMissing,
    StorageError,
)
from drkit.model.log import Abandon, Commit, ExpireIntent, Open
from drkit.repository.objects import unseal
from drkit.storage.retry import RetryingStorage
from tests.builders import (
    CLUSTER,
    Keys,
    World,
    back_up,
    begin,
    commit_entry,
    replace_object,
)
from tests.faults import FaultyStorage, unavailable
from tests.repository.logs import entry_name, plain_of, read, two_backups


@pytest.fixture
def world() -> World:
    return two_backups()


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


# -- what the repository makes of it


def test_backups_are_found_by_label_prefix_and_latest(world: World) -> None:
    repository = read(world)
    first, second = (commit.backup.label for commit in repository.backups())
    assert repository.find("latest").backup.label == second
    assert repository.find(first).backup.label == first
    assert repository.find(second[:15]).backup.label == second
    for label in ("2026", "2025", "", "LATEST"):
        with pytest.raises(NotFound) as caught:
            repository.find(label)
        assert first in f"{caught.value.message} {caught.value.hint}"


def test_a_manifest_that_is_not_the_committed_one_is_refused() -> None:
    from drkit.repository.manifests import read_manifest

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
