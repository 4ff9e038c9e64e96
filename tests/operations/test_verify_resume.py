"""Verifications that are interrupted, gone on with, or spread over days."""

from __future__ import annotations

import os
import signal
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from drkit.errors import Locked
from drkit.model.depth import Depth
from drkit.model.sample import Sample
from drkit.operations.journal import Journal, open_journal
from drkit.operations.verifying.repository import Request, verify
from tests.builders import EPOCH, World, back_up, replace_object
from tests.faults import FaultyStorage
from tests.operations.verify_tools import Quiet, look, only, pages, push_wal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SCOPE = {"lineage": "ab", "label": None}


def packs(world: World) -> list[str]:
    return [one.name for one in world.storage.list("") if "/packs/" in one.name]


def opened(storage: FaultyStorage) -> set[str]:
    """The packs and WAL files whose content was fetched."""
    fetched = {name for method, name in storage.names if method == "get"}
    return {name for name in fetched if "/packs/" in name or "/wal/" in name}


@pytest.fixture(scope="module")
def world() -> World:
    """Seven packs and three WAL files; nobody changes it."""
    world = World()
    repository = world.repository()
    for seed in range(7):
        back_up(
            repository,
            {b"base": None, b"base/5": None, b"base/5/16384": pages(4, seed=seed)},
        )
    push_wal(repository, 2, 3, 4)
    return world


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "cache" / "verify.journal")


def begin(path: str, now: datetime = EPOCH, *, resume: bool = True) -> Journal:
    return open_journal(path, SCOPE, now, resume=resume)


def kill_in_the_middle(world: World, path: str, packs_before: int) -> None:
    """Verify in a child that SIGKILL ends at the fetch of a pack."""
    child = os.fork()
    if child == 0:
        storage = FaultyStorage(world.storage)
        repository = world.repository(storage=storage)
        storage.kill("get", at=_get_of_pack(world, packs_before))
        journal = begin(path, resume=False)
        verify(repository, Request(None, Depth.DATA, None, 1), journal, Quiet())
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL


def _get_of_pack(world: World, packs_before: int) -> int:
    """How many gets there are up to the one of the pack behind so many others."""
    storage = FaultyStorage(world.storage)
    repository = world.repository(storage=storage)
    before = storage.calls["get"]
    verify(repository, Request(None, Depth.DATA, None, 1), None, Quiet())
    gets = [name for method, name in storage.names if method == "get"]
    places = [place for place, name in enumerate(gets, 1) if "/packs/" in name]
    assert before < places[packs_before]
    return places[packs_before]


def test_a_killed_verification_is_gone_on_with(world: World, path: str) -> None:
    kill_in_the_middle(world, path, 4)
    storage = FaultyStorage(world.storage)
    journal = begin(path)
    assert len(journal.done) == 4
    found = look(world.repository(storage=storage), journal=journal)
    journal.close()
    assert found.exit_code == 0
    assert found.resumed is not None
    assert (found.resumed.since, found.resumed.objects) == (EPOCH, 4)
    left = {*packs(world), *(one.name for one in world.storage.list("alpha/wal/"))}
    assert opened(storage) >= left - journal.done
    assert opened(storage).isdisjoint(journal.done)
    assert not os.path.exists(path)


def test_damage_is_told_again_after_an_interruption(path: str) -> None:
    world = World()
    for seed in range(3):
        back_up(world.repository(), {b"a": pages(2, seed=seed)})
    push_wal(world.repository(), 2)
    first = packs(world)[0]
    replace_object(world.storage, first, world.storage.get(first)[:-1] + b"\0")
    kill_in_the_middle(world, path, 2)
    journal = begin(path)
    assert journal.done == {packs(world)[1]}
    found = look(world.repository(), journal=journal)
    journal.close()
    assert only(found).name == first


def test_a_line_that_was_cut_off_counts_for_nothing(path: str) -> None:
    journal = begin(path)
    journal.sound("alpha/one")
    journal.close()
    with open(path, "ab") as file:
        file.write(b"alpha/tw")
    journal = begin(path)
    assert journal.done == {"alpha/one"}
    journal.sound("alpha/three")
    journal.close()
    journal = begin(path)
    assert journal.done == {"alpha/one", "alpha/three"}
    journal.close()


@pytest.mark.parametrize("age", [timedelta(days=8), timedelta(minutes=-1)])
def test_an_old_journal_is_not_believed(path: str, age: timedelta) -> None:
    old = begin(path, EPOCH)
    old.sound("alpha/one")
    old.close()
    journal = begin(path, EPOCH + age)
    assert (journal.done, journal.begun) == (frozenset(), EPOCH + age)
    journal.close()


def test_a_journal_of_another_scope_is_not_believed(path: str) -> None:
    old = open_journal(path, SCOPE | {"lineage": "cd"}, EPOCH, resume=True)
    old.sound("alpha/one")
    old.close()
    journal = begin(path)
    assert journal.done == frozenset()
    journal.close()


def test_a_journal_that_others_could_have_written_is_not_believed(path: str) -> None:
    old = begin(path)
    old.sound("alpha/one")
    old.close()
    os.chmod(path, 0o666)
    journal = begin(path)
    assert journal.done == frozenset()
    journal.close()


@pytest.mark.parametrize("content", [b"", b"\0\n", b"[]\n", b'{"format": 1}\n', b"x"])
def test_a_journal_that_is_none(path: str, content: bytes) -> None:
    os.makedirs(os.path.dirname(path))
    with open(path, "wb") as file:
        file.write(content)
    os.chmod(path, 0o600)
    journal = begin(path)
    assert journal.done == frozenset()
    journal.close()


def test_without_resume_everything_is_looked_at(path: str) -> None:
    old = begin(path)
    old.sound("alpha/one")
    old.close()
    journal = begin(path, resume=False)
    assert journal.done == frozenset()
    journal.close()


def test_the_same_verification_runs_once(path: str) -> None:
    journal = begin(path)
    with pytest.raises(Locked, match="running on this host"):
        begin(path)
    journal.close()
    begin(path).close()


def days() -> Iterator[datetime]:
    day = datetime(2026, 1, 15, 3, 0, tzinfo=UTC)
    for number in range(7):
        yield day + timedelta(days=number)


def test_a_seventh_a_day_covers_everything_in_a_week(world: World) -> None:
    everything = set(packs(world)) | {
        one.name for one in world.storage.list("alpha/wal/")
    }
    seen: list[str] = []
    clock = world.clock
    try:
        for day in days():
            clock.time = day
            storage = FaultyStorage(world.storage)
            found = look(world.repository(storage=storage), sample=Sample(1, 7))
            assert found.exit_code == 0
            share = {one for one in opened(storage) if "/packs/" in one}
            seen += share
    finally:
        clock.time = EPOCH
    assert sorted(seen) == sorted(one for one in everything if "/packs/" in one)


def test_a_sample_stays_the_one_that_it_was_begun_as(world: World, path: str) -> None:
    """Gone on with behind midnight, it does not leave out what was left."""
    sample = Sample(1, 2)
    day = EPOCH.toordinal()
    expected = {name for name in packs(world) if sample.holds(name, day)}
    begin(path).close()
    world.clock.time = EPOCH + timedelta(days=1)
    try:
        journal = begin(path, world.clock.time)
        storage = FaultyStorage(world.storage)
        look(world.repository(storage=storage), journal=journal, sample=sample)
        journal.close()
    finally:
        world.clock.time = EPOCH
    assert {one for one in opened(storage) if "/packs/" in one} == expected
