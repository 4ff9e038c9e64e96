"""Expiries that die at any call of storage: run again, they finish."""

from __future__ import annotations

import os
import shutil
import signal
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from drkit.operations.expire import execute_expire, plan_expire
from drkit.operations.pins import pin_backup
from drkit.repository.manifests import read_manifest
from drkit.storage.local import LocalStorage
from tests.builders import FakeClock, World
from tests.catalogs import NOW, start
from tests.faults import FaultyStorage
from tests.operations.backup_tools import Listener
from tests.operations.test_expire import (
    TWO,
    archived,
    chains,
    difference,
    live,
    put_wal,
    segments,
)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def template(tmp_path: Path) -> World:
    """A repository with an expired chain, a pin that has lapsed, and left-overs."""
    world = World(LocalStorage.create(tmp_path / "template"), clock=FakeClock(NOW))
    made = chains(world, 3, incrementals=1, files=2)
    put_wal(world, *segments(15, 34))
    repository = world.repository()
    pin_backup(repository, made[1], "for a day", NOW + timedelta(days=7))
    world.clock.time = NOW + timedelta(days=8)
    start(
        repository,
        start=90,
        keys=[("backup", repository.keyring.create("backup").key_id.hex())],
    )
    world.clock.jump(days=1)
    return world


def copied(template: World, tmp_path: Path, number: int) -> World:
    root = tmp_path / f"copy-{number}"
    shutil.copytree(tmp_path / "template", root)
    return World(LocalStorage(root), template.keys, template.clock)


def killed(world: World, at: int, *, after: bool) -> bool:
    """Expire in a child that dies at a call of storage; say whether it did."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            storage = FaultyStorage(world.storage)
            repository = world.repository(storage=storage)
            storage.kill(at=at + len(storage.names), after=after)
            planned = plan_expire(repository, TWO, world.clock.now())
            execute_expire(repository, planned, "host-a", Listener())
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    ended = os.waitstatus_to_exitcode(status)
    assert ended in (0, -signal.SIGKILL)
    return ended != 0


def check_listed(world: World) -> None:
    """Every backup that is listed has its manifest, its packs and its keys."""
    repository = world.repository()
    for commit in repository.backups():
        count = len(read_manifest(repository, commit.manifest).packs)
        for number in range(count):
            where = (commit.backup.label, commit.attempt)
            assert world.storage.size(repository.layout.pack(*where, number)) > 0
        begin = repository.log.state.attempts[commit.attempt].begin
        for purpose, key in begin.keys:
            repository.keyring.get(purpose, bytes.fromhex(key))


def calls_of(world: World) -> int:
    """Count the calls of an expiry that nobody kills."""
    storage = FaultyStorage(world.storage)
    repository = world.repository(storage=storage)
    before = len(storage.names)
    planned = plan_expire(repository, TWO, world.clock.now())
    execute_expire(repository, planned, "host-a", Listener())
    return len(storage.names) - before


def run(template: World, tmp_path: Path, every: int, *, after: bool) -> None:
    kept = live(template)[2:]
    calls = calls_of(copied(template, tmp_path, 0))
    deaths = 0
    for number in range(1, calls + 1, every):
        world = copied(template, tmp_path, number)
        deaths += killed(world, number, after=after)
        check_listed(world)
        assert live(world)[-len(kept) :] == kept
        assert not killed(world, 1 << 30, after=False)
        assert live(world) == kept
        assert difference(world) == (set(), set())
        # The oldest full that stays begins in segment 30.
        assert archived(world) == segments(30, 34)
        assert world.repository().log.read().expiring == set()
        shutil.rmtree(tmp_path / f"copy-{number}")
    assert calls > 80
    assert deaths >= (calls // every) * (0.5 if after else 1)  # of those that failed


def test_kill_at_some_storage_calls(template: World, tmp_path: Path) -> None:
    run(template, tmp_path, every=9, after=False)


@pytest.mark.long
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_kill_at_every_storage_call(
    template: World, tmp_path: Path, after: bool
) -> None:
    run(template, tmp_path, every=1, after=after)
