"""Objects that somebody without any key stored must not stop anything.

Whoever can create objects can put what he likes at any name that is free. He must not
stop backups, restores or archiving, nor make two hosts believe two different logs.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from drkit.errors import Corrupt, KeyUnavailable, ObjectExists
from drkit.storage.memory import MemoryStorage
from tests.builders import CLUSTER, World, back_up, begin, replace_object
from tests.repository.hosts_scene import TO_THE_END, Scene
from tests.repository.logs import entry_name, refused, two_backups
from tests.vectors.log import read_log
from tests.vectors.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Callable

    from drkit.repository.repository import Repository
    from tests.repository.hosts import Host

HEAD = 4  # of the log of `world`


@pytest.fixture
def world() -> World:
    return two_backups()


def forged_header(world: World) -> bytes:
    """Name a data key that is not there, in a header that is well made."""
    header = world.storage.get(entry_name(0))[:16] + os.urandom(80)
    return header + os.urandom(300)


def key_that_does_not_unwrap(world: World) -> bytes:
    """Name a data key that is there, wrapped for nobody."""
    stranger = World()
    repository = stranger.repository()
    name = next(iter(stranger.storage.list(f"{CLUSTER}/keys/catalog/"))).name
    data = stranger.storage.get(name)
    world.storage.put(name, data)
    return stranger.storage.get(repository.layout.log_entry(0))


GARBAGE: dict[str, Callable[[World], bytes]] = {
    "nothing": lambda _: b"",
    "text": lambda _: b"no entry",
    "random": lambda _: os.urandom(2000),
    "an unknown key": forged_header,
    "a key for others": key_that_does_not_unwrap,
    "the entry before": lambda world: world.storage.get(entry_name(HEAD)),
    "entry 0": lambda world: world.storage.get(entry_name(0)),
    "a header alone": lambda world: world.storage.get(entry_name(HEAD))[:96],
    "a key object": lambda world: world.storage.get(
        next(iter(world.storage.list(f"{CLUSTER}/keys/catalog/"))).name
    ),
    "another version": lambda world: (
        b"drkitobj\2\0" + world.storage.get(entry_name(0))[10:]
    ),
}


def second_reader(world: World) -> list[int]:
    """Read the log as the document says it; return the numbers of its entries."""
    objects = {one.name: world.storage.get(one.name) for one in world.storage.list("")}
    trusted = {world.keys.signer.public}
    reader = Reader(objects, CLUSTER, world.keys.keks, trusted)
    return [entry["sequence"] for entry in read_log(reader)]


def numbers(repository: Repository) -> list[int]:
    repository.log.read()
    return [one.sequence for one in repository.log.entries]


# -- names below `log/`


@pytest.mark.parametrize(
    "stray", ["Thumbs.db", "0000000001.orig", "99999999999", "x/y"]
)
def test_stray_names_below_the_log_are_passed_over(world: World, stray: str) -> None:
    name = f"{CLUSTER}/log/{stray}"
    world.storage.put(name, b"no entry")
    repository = world.repository(opened=False)
    assert numbers(repository) == list(range(HEAD + 1))
    assert repository.log.strays == (name,)
    begin(repository)
    assert numbers(world.repository()) == list(range(HEAD + 2))


@pytest.mark.parametrize("kind", GARBAGE)
@pytest.mark.parametrize("ahead", [1, 2, 5])
def test_garbage_at_a_free_log_name_stops_nobody(
    world: World, kind: str, ahead: int
) -> None:
    remembering = world.repository()
    world.storage.put(entry_name(HEAD + ahead), GARBAGE[kind](world))
    fresh = world.repository(opened=False)
    assert numbers(fresh) == list(range(HEAD + 1))
    assert [one.sequence for one in fresh.log.void] == [HEAD + ahead]
    for repository in (remembering, fresh, world.repository(host="host-b")):
        back_up(repository, {b"PG_VERSION": b"18\n"})
    used = [n for n in range(HEAD + 8) if n != HEAD + ahead][: HEAD + 7]
    assert numbers(world.repository()) == used
    assert numbers(remembering) == used
    assert second_reader(world) == used
    assert not world.repository().log.void


def test_many_void_names_in_a_row_are_one_step(world: World) -> None:
    for number in range(HEAD + 1, HEAD + 301):
        world.storage.put(entry_name(number), b"%d" % number)
    begin(world.repository())
    begin(world.repository(host="host-b"))
    used = [*range(HEAD + 1), HEAD + 301, HEAD + 302]
    assert numbers(world.repository()) == second_reader(world) == used


def test_blocks_that_hold_void_names_are_read_and_written(world: World) -> None:
    """The last name of one block and the first of the next are void, for instance."""
    for number in (7, 8, 255, 256, 300, 511):
        world.storage.put(entry_name(number), b"no entry")
    writer = world.repository()
    while writer.log.head < 600:
        begin(writer)
    blocks = [one.name for one in world.storage.list(f"{CLUSTER}/log-blocks/")]
    assert [name[-3:] for name in blocks] == ["000", "256"]
    by_blocks = world.repository(opened=False)
    assert numbers(by_blocks) == numbers(writer) == second_reader(world)
    for name in blocks:
        world.storage.delete(name)
    one_by_one = world.repository(opened=False)
    assert numbers(one_by_one) == numbers(writer)
    assert one_by_one.log.state == by_blocks.log.state


# -- deleted or changed afterwards


@pytest.mark.parametrize("count", [1, 3])
def test_void_names_that_are_deleted_are_no_hole(world: World, count: int) -> None:
    remembering, late = world.repository(), world.repository()
    for number in range(HEAD + 1, HEAD + 1 + count):
        world.storage.put(entry_name(number), b"no entry")
    begin(remembering)
    for number in range(HEAD + 1, HEAD + 1 + count):
        world.storage.delete(entry_name(number))
    used = [*range(HEAD + 1), HEAD + 1 + count]
    assert numbers(world.repository()) == second_reader(world) == used
    if count == 1:  # it listed the log before
        assert numbers(late) == used
    begin(world.repository())
    assert numbers(remembering) == [*used, HEAD + 2 + count]


def test_an_entry_that_was_called_void_and_comes_back_is_refused(world: World) -> None:
    """Somebody hid garbage from one host and showed it to another."""
    garbage, late = entry_name(HEAD + 1), world.repository()
    world.storage.put(garbage, b"no entry")
    begin(world.repository(host="host-b"))
    written = world.storage.get(entry_name(HEAD + 2))
    world.storage.delete(garbage)
    world.storage.delete(entry_name(HEAD + 2))
    begin(late)
    world.storage.put(entry_name(HEAD + 2), written)
    refused(world, HEAD + 2, "holds none, and it does")
    with pytest.raises(Corrupt):
        begin(late)


def test_an_entry_that_is_replaced_by_garbage_is_missed(world: World) -> None:
    replace_object(world.storage, entry_name(HEAD - 1), b"no entry")
    refused(world, HEAD - 1, "was replaced")
    with pytest.raises(Corrupt):
        begin(world.repository(opened=False))


def test_an_entry_that_is_damaged_is_not_void(world: World) -> None:
    """Its header could be made with the log's key alone: it was an entry."""
    data = bytearray(world.storage.get(entry_name(HEAD)))
    data[200] ^= 1
    replace_object(world.storage, entry_name(HEAD), bytes(data))
    refused(world, HEAD, "does not authenticate")


def test_a_log_whose_key_is_not_here_is_not_void(world: World) -> None:
    other = World(world.storage, clock=world.clock)
    with pytest.raises(KeyUnavailable):
        other.repository(opened=False).log.read()


# -- what is proven in front of an entry that can't be believed


def test_what_is_in_front_of_a_bad_entry_is_read_and_nothing_written(
    world: World,
) -> None:
    replace_object(world.storage, entry_name(3), b"no entry")
    repository = world.repository(opened=False)
    state = repository.log.read_proven()
    assert len(state.backups) == 1
    assert repository.log.head == 2
    assert entry_name(3) in str(repository.log.broken)
    assert repository.log.read() is state
    with pytest.raises(Corrupt, match=entry_name(3)):
        begin(repository)


def test_a_log_is_read_up_to_an_entry(world: World) -> None:
    replace_object(world.storage, entry_name(HEAD), b"no entry")
    repository = world.repository(opened=False)
    repository.log.stop_at(2)
    assert len(repository.backups()) == 1
    assert repository.log.head == 2
    with pytest.raises(Corrupt, match="up to entry 2 only"):
        begin(repository)


# -- two hosts, and somebody who deletes what he stored


def outcome(before: int, between: int, *, back: bool) -> tuple[bool, bool]:
    """Let him delete garbage while one host goes past it, and another comes.

    Args:
        before: calls that the first host has made when the garbage goes.
        between: calls that the second one makes then, before the first ends.
        back: whether the garbage comes back once the second one has gone so far.

    Returns:
        For each whether it took its entry for written; the log agrees with both.
    """
    scene = Scene(MemoryStorage())
    inner = scene.world.storage._inner  # type: ignore[attr-defined]  as its owner
    free = scene.world.repository().log.head + 1
    inner.put(entry_name(free), b"no entry")
    first, second = scene.hosts["a"], scene.hosts["b"]
    try:
        for host, calls in ((first, before), (second, between)):
            host.begin(lambda host=host: begin(host.repository))
            go_on(host, calls)
            inner.delete(entry_name(free)) if host is first else None
        if back:
            with suppress(ObjectExists):
                inner.put(entry_name(free), b"no entry")
        for host in (first, second):
            go_on(host, TO_THE_END)
        return judged(scene, [first, second])
    finally:
        scene.kill_all()


def go_on(host: Host, calls: int) -> None:
    for _ in range(calls):
        if host.busy:
            host.process.step()


def judged(scene: Scene, hosts: list[Host]) -> tuple[bool, bool]:
    wrote = [host.process.error is None for host in hosts]
    assert all(isinstance(h.process.error, Corrupt | None) for h in hosts)
    proven = scene.world.repository(opened=False).log
    proven.read_proven()
    attempts = proven.state.attempts
    there = [
        getattr(host.process.result, "attempt", None) in attempts for host in hosts
    ]
    if all(wrote):
        assert there == [True, True]
        assert proven.broken is None
    else:
        assert proven.broken is not None
    return wrote[0], wrote[1]


@pytest.mark.parametrize("back", [False, True])
def test_hosts_between_which_garbage_goes_fork_nothing(back: bool) -> None:
    seen = {
        outcome(before, between, back=back)
        for before in range(12)
        for between in range(12)
    }
    assert seen <= {(True, True), (True, False), (False, True), (False, False)}
    assert (True, True) in seen
    assert back or len(seen) > 1, "no order shows the race"
