"""The chain of evidence: what is in it can't go, change or trade places unseen."""

from __future__ import annotations

import itertools
import threading
import time
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drkit.errors import Corrupt, RepositoryMissing, StorageError
from drkit.model.log import Evidence, Proven
from drkit.repository.attestation import sign_record
from drkit.repository.evidence import append, head_digest, read_all, read_chain
from drkit.repository.objects import Sealing, seal
from drkit.storage.local import LocalStorage
from drkit.storage.memory import MemoryStorage
from tests.builders import (
    EPOCH,
    Keys,
    World,
    begin,
    commit_entry,
    copy_of,
    replace_object,
)
from tests.evidence import NOTHING, add, bare, name_of, record, recorded
from tests.faults import FaultyStorage, unavailable

if TYPE_CHECKING:
    from pathlib import Path

    from drkit.model.evidence import Record
    from drkit.protocols import Storage
    from drkit.repository.evidence import Chain
    from drkit.repository.repository import Repository


@pytest.fixture(params=["memory", "local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """An empty store of each kind."""
    if request.param == "memory":
        return MemoryStorage()
    if request.param == "local":
        return LocalStorage.create(tmp_path / "repository")
    empty: Storage = request.getfixturevalue("empty_s3")
    return empty


def fresh(world: World) -> Repository:
    return world.repository(host="reader")


def refused(world: World, *words: str) -> Chain:
    """The chain tells every word, and nobody gets records from it."""
    chain = read_chain(fresh(world))
    told = "\n".join(chain.problems)
    for word in words:
        assert word in told
    with pytest.raises(Corrupt, match="is not whole"):
        read_all(fresh(world))
    return chain


def put_record(world: World, at: int, one: Record, keys: Keys | None = None) -> None:
    """Give a place another record, signed and sealed as a writer with keys would."""
    repository = fresh(world)
    envelope = sign_record(one, (keys or world.keys).signer)
    sealing = Sealing(repository.log.dek(), repository.lineage, name_of(at))
    world.storage.delete(name_of(at))
    world.storage.put(name_of(at), seal(sealing, envelope))


# -- what is written is read


def test_records_are_read_from_every_store(store: Storage) -> None:
    world = World(store)
    places = add(world.repository(), 3)
    assert [place.sequence for place in places] == [0, 1, 2]
    chain = read_chain(fresh(world))
    assert chain.problems == ()
    assert [one.digest for one in chain.records] == [one.digest for one in places]
    previous = [NOTHING, places[0].digest, places[1].digest]
    expected = [record(n, digest) for n, digest in enumerate(previous)]
    assert read_all(fresh(world)) == expected
    assert chain.head == head_digest(fresh(world)) == places[2].digest
    state = fresh(world).log.state
    assert state.evidence == [place.digest for place in places]


def test_no_evidence_is_an_empty_chain() -> None:
    repository = World().repository()
    assert read_chain(repository) == ((), (), (), ())
    assert read_all(repository) == []
    assert head_digest(repository) == ""


def test_a_cluster_that_was_never_set_up_has_no_chain() -> None:
    world = World()
    for act in (lambda one: append(one, record), read_chain, head_digest):
        with pytest.raises(RepositoryMissing):
            act(world.repository(opened=False))
    assert not list(world.storage.list(name_of(0)))


def test_a_record_is_for_its_place_only() -> None:
    repository = World().repository()
    for other in (
        record(1, NOTHING),
        record(0, "ab" * 32),
        record(0, cluster="beta"),
        replace(record(0), system_identifier="7"),
    ):
        with pytest.raises(ValueError, match="the record"):
            append(repository, lambda *_, other=other: other)


def test_what_is_stored_is_sealed() -> None:
    world = recorded(1)
    assert b"payload" not in world.storage.get(name_of(0))


def test_records_are_fetched_together_and_once() -> None:
    """Ten years of days on a store that takes its time."""
    world = recorded(40)
    slow = FaultyStorage(world.storage)
    repository = world.repository(storage=slow)
    before = slow.calls["get"]
    slow.delay("get", 0.05)
    began = time.monotonic()
    assert len(read_all(repository)) == 40
    # And that nothing is behind them, nor behind the log's newest entry, nor at the
    # name that each would have if something else had been there and were deleted.
    assert slow.calls["get"] - before == 40 + 2 + 2
    assert time.monotonic() - began < 40 * 0.05 / 2


# -- what was taken away or changed


@pytest.mark.parametrize("sequence", range(4))
def test_a_deleted_record_shows(store: Storage, sequence: int) -> None:
    world = recorded(4, store)
    world.storage.delete(name_of(sequence))
    chain = refused(world, f"record {name_of(sequence)} is missing")
    assert len(chain.records) == 3


def test_all_records_deleted_show() -> None:
    world = recorded(2)
    for sequence in range(2):
        world.storage.delete(name_of(sequence))
    refused(world, name_of(0), name_of(1))


def test_a_listing_that_hides_records_hides_nothing() -> None:
    world = recorded(3)
    faulty = FaultyStorage(world.storage)
    faulty.hide(lambda name: "/evidence/" in name)
    assert len(read_all(world.repository(storage=faulty))) == 3


def test_a_record_behind_a_hole_shows_though_the_log_names_none() -> None:
    world = recorded(1)
    put_record(world, 7, bare(7, "ab" * 32))
    refused(world, "records 1 to 6 are missing, though later ones were listed")


def test_a_listing_can_not_make_a_reader_look_for_ever() -> None:
    world = recorded(1)
    put_record(world, 9_999_999_999, bare(9_999_999_999, "ab" * 32))
    world.storage.put("alpha/evidence/readme", b"")
    refused(world, "records 1 to 9999999998 are missing")


def test_swapped_records_show() -> None:
    world = recorded(3)
    first, second = (world.storage.get(name_of(n)) for n in (0, 1))
    replace_object(world.storage, name_of(0), second)
    replace_object(world.storage, name_of(1), first)
    refused(world, f"object {name_of(0)}", f"object {name_of(1)}")


def test_swapped_records_show_to_who_has_the_keys() -> None:
    world = recorded(3)
    first, second = read_all(fresh(world))[:2]
    put_record(world, 0, replace(second, sequence=0, previous=NOTHING))
    put_record(world, 1, replace(first, sequence=1))
    words = "is another one than the log names"
    refused(world, f"{name_of(0)} {words}", f"{name_of(1)} {words}", "does not follow")


def test_every_bit_of_a_record_counts() -> None:
    world = recorded(2)
    good = world.storage.get(name_of(1))
    for bit in range(0, len(good) * 8, 97):
        changed = bytearray(good)
        changed[bit // 8] ^= 1 << bit % 8
        replace_object(world.storage, name_of(1), bytes(changed))
        refused(world, name_of(1))


def test_a_record_changed_with_the_keys_shows_by_the_log() -> None:
    world = recorded(2)
    newest = read_all(fresh(world))[1]
    put_record(world, 1, replace(newest, failure=""))
    refused(world, f"record {name_of(1)} is another one than the log names")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"cluster": "beta"}, "is of cluster beta"),
        ({"system_identifier": "7"}, "is of the system 7"),
        ({"sequence": 2}, "says that it is record 2"),
        ({"previous": "ab" * 32}, "does not follow"),
    ],
)
def test_a_record_of_another_place_shows(change: dict[str, str], why: str) -> None:
    world = recorded(2)
    newest = read_all(fresh(world))[1]
    put_record(world, 1, replace(newest, **change))  # type: ignore[arg-type]
    refused(world, why)


def test_a_first_record_that_follows_another_shows() -> None:
    world = recorded(1)
    put_record(world, 0, record(0, "ab" * 32))
    refused(world, "so it is not the first")


def test_a_stranger_is_not_believed() -> None:
    world = recorded(2)
    stranger = Keys(world.keys.keks)
    put_record(world, 1, read_all(fresh(world))[1], stranger)
    refused(world, f"record {name_of(1)} is not signed by a key that is trusted")


def test_a_record_of_another_repository_shows() -> None:
    world, other = recorded(2), recorded(2)
    replace_object(world.storage, name_of(1), other.storage.get(name_of(1)))
    refused(world, f"object {name_of(1)} ", "names another key")


@pytest.mark.parametrize("plain", [b"", b"{}", b"[" * 300_000, b"\xff", b"1e999"])
def test_what_is_no_envelope_shows(plain: bytes) -> None:
    world = recorded(1)
    repository = fresh(world)
    sealing = Sealing(repository.log.dek(), repository.lineage, name_of(0))
    replace_object(world.storage, name_of(0), bytes(seal(sealing, plain)))
    refused(world, f"record {name_of(0)} is no signed record of evidence")


def test_a_proof_without_its_record_shows() -> None:
    world = World()
    repository = world.repository()
    begun = begin(repository)
    repository.log.append(lambda _: commit_entry(begun))
    (place,) = add(repository)
    repository.log.append(lambda _: Proven(begun.label, EPOCH, place.digest))
    assert read_chain(fresh(world)).problems == ()
    repository.log.append(lambda _: Proven(begun.label, EPOCH, "ab" * 32))
    refused(world, f"record {'ab' * 32} proved backup {begun.label}")


@given(st.data())
@settings(max_examples=30, deadline=None)
def test_any_change_to_the_objects_shows(data: st.DataObject) -> None:
    """Delete, copy and swap at will: a whole chain is the one that was written."""
    world = recorded(5)
    written = [world.storage.get(name_of(n)) for n in range(5)]
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, 6))
        world.storage.delete(name_of(at))
        if data.draw(st.booleans()):
            world.storage.put(name_of(at), written[data.draw(st.integers(0, 4))])
    now = [info.name for info in world.storage.list("alpha/evidence/")]
    same = now == [name_of(n) for n in range(5)] and written == [
        world.storage.get(name) for name in now
    ]
    chain = read_chain(fresh(world))
    assert bool(chain.problems or chain.passed) != same
    places = [name_of(n) for n in range(5)]
    whole = now[:5] == places and [world.storage.get(one) for one in places] == written
    assert bool(chain.problems) != whole


# -- a chain goes on behind a loss, and never heals it


@pytest.mark.parametrize("sequence", [0, 1, 2])
def test_evidence_goes_on_behind_a_loss(sequence: int) -> None:
    world = recorded(3)
    world.storage.delete(name_of(sequence))
    assert append(fresh(world), bare).sequence == 3
    chain = refused(world, f"record {name_of(sequence)} is missing")
    assert len(chain.problems) == 1
    assert not list(world.storage.list(name_of(sequence)))


def test_a_damaged_record_that_the_log_does_not_name_stops_writers() -> None:
    world = recorded(1)
    put_record(world, 1, bare(1, "ab" * 32))
    data = bytearray(world.storage.get(name_of(1)))
    data[-30] ^= 1
    replace_object(world.storage, name_of(1), bytes(data))
    with pytest.raises(Corrupt, match=name_of(1)):
        add(fresh(world))


def test_a_fork_is_refused_by_who_writes() -> None:
    """Somebody rolled the log back, and left a record of the other branch."""
    world = recorded(1)
    fork = World(copy_of(world.storage), world.keys, world.clock)
    add(world.repository(), 2)
    append(fork.repository(), bare)
    replace_object(fork.storage, name_of(2), world.storage.get(name_of(2)))
    with pytest.raises(Corrupt, match="does not follow") as caught:
        add(fork.repository())
    assert "rolled back" in (caught.value.hint or "")


# -- runs that die, and writers that meet


def test_a_run_that_died_before_the_log_named_its_record() -> None:
    world = recorded(1)
    faulty = FaultyStorage(world.storage)
    repository = world.repository(storage=faulty)
    faulty.fail("put", unavailable(), at=faulty.calls["put"] + 2, times=99)
    with pytest.raises(StorageError):
        append(repository, bare)
    assert len(fresh(world).log.state.evidence) == 1
    assert len(read_all(fresh(world))) == 2
    assert head_digest(fresh(world)) == read_chain(fresh(world)).head
    assert append(fresh(world), record).sequence == 2
    assert len(fresh(world).log.state.evidence) == 3
    world.storage.delete(name_of(1))
    refused(world, name_of(1))


def test_a_record_that_came_first_is_taken_in() -> None:
    """Another writer stores the next record while this one is being made."""
    world = recorded(1)
    other = world.repository(host="other")
    asked: list[int] = []

    def build(sequence: int, previous: str) -> Record:
        asked.append(sequence)
        if len(asked) == 1:
            add(other)
        return record(sequence, previous)

    assert append(world.repository(), build).sequence == 2
    assert asked == [1, 2]
    assert len(read_all(fresh(world))) == 3


@given(st.lists(st.integers(0, 2), max_size=12), st.integers(0, 60))
@settings(max_examples=30, deadline=None)
def test_writers_in_any_order_and_lost_replies(turns: list[int], lost: int) -> None:
    world = World()
    faulty = FaultyStorage(world.storage)
    writers = [world.repository(host=f"w{n}", storage=faulty) for n in range(3)]
    faulty.fail("put", unavailable(), at=faulty.calls["put"] + 1 + lost)
    failed = 0
    for turn in turns:
        try:
            append(writers[turn], bare)
        except StorageError:
            failed += 1
    records = read_all(fresh(world))
    assert len(turns) - failed <= len(records) <= len(turns)
    assert [one.sequence for one in records] == list(range(len(records)))


def test_threads_make_one_chain() -> None:
    world = World()
    errors: list[BaseException] = []
    sequences: list[int] = []

    def write(repository: Repository) -> None:
        try:
            sequences.extend(place.sequence for place in add(repository, 5))
        except BaseException as error:
            errors.append(error)

    repositories = [world.repository(host=f"w{n}") for n in range(4)]
    threads = [threading.Thread(target=write, args=(one,)) for one in repositories]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert sorted(sequences) == list(range(20))
    assert len(read_all(fresh(world))) == 20


def test_a_reader_meets_a_writer_at_any_point() -> None:
    """Records that come while a chain is read are no problem of it."""
    for at in itertools.count(1):
        world = recorded(2)
        faulty = FaultyStorage(world.storage)
        repository = world.repository(storage=faulty)
        writer = partial(add, world.repository(host="writer"), 2)
        first = sum(faulty.calls.values())
        faulty.call("any", writer, at=first + at)
        assert read_chain(repository).problems == ()
        if sum(faulty.calls.values()) < first + at:
            break
    assert at > 5  # calls, each of which was met


# -- keys


def test_a_retired_signer_is_believed_while_the_policy_trusts_it() -> None:
    world = recorded(1)
    newer = Keys(world.keys.keks)
    both = [world.keys.signer.public, newer.signer.public]
    add(world.repository(keys=newer, trusted=both))
    assert len(read_all(world.repository(trusted=both))) == 2
    with pytest.raises(Corrupt):
        read_all(fresh(world))


def test_the_log_refuses_another_record_of_a_number() -> None:
    repository = recorded(2).repository()
    state = repository.log.state
    assert state.refusal(Evidence(2, "ab" * 32)) is None
    assert state.refusal(Evidence(1, state.evidence[1])) is None
    assert "another one" in (state.refusal(Evidence(1, "ab" * 32)) or "")
    assert "names no record" in (state.refusal(Evidence(3, "ab" * 32)) or "")


def test_times_of_records_need_not_ascend() -> None:
    """Hosts' clocks differ; the chain decides order."""
    world = recorded(1)

    def earlier(sequence: int, previous: str) -> Record:
        return replace(record(sequence, previous), started=EPOCH - timedelta(days=9))

    append(world.repository(), earlier)
    assert len(read_all(fresh(world))) == 2
