"""Verifying what expires meanwhile, WAL that has expired, and evidence that is gone."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import pytest

from drkit.errors import BackupExpired, Corrupt, WalMissing
from drkit.model.depth import Depth
from drkit.model.lsn import Lsn
from drkit.model.retention import Retention
from drkit.operations.expire import execute_expire, plan_expire
from drkit.operations.verifying.repository import Request, verify
from drkit.operations.wal_status import wal_status
from tests.builders import SEGMENT, FakeClock, World, back_up
from tests.evidence import add, name_of
from tests.faults import FOREVER, FaultyStorage
from tests.operations.verify_tools import Quiet, increment, pages, push_wal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from drkit.model.log import Commit
    from drkit.operations.verifying.repository import Verification

TABLE = b"base/1/16384"
FILES = {TABLE: pages(40), b"PG_VERSION": b"18\n"}
ONE = Retention(full=1)
SHORT = Retention(full=9, wal_window=timedelta(hours=1))


def expire(world: World, retention: Retention = ONE) -> None:
    repository = world.repository(host="host-b")
    now = world.clock.now()
    planned = plan_expire(repository, retention, now, accept_clock=True)
    execute_expire(repository, planned, "host-b", Quiet())


def look(
    world: World,
    storage: FaultyStorage | None = None,
    label: str | None = None,
    depth: Depth = Depth.DATA,
) -> tuple[Verification, list[str]]:
    """Verify on two threads; return what was found, and the warnings."""
    quiet = Quiet()
    repository = world.repository(storage=storage)
    return verify(repository, Request(label, depth), None, quiet), quiet.warnings


@pytest.fixture
def world() -> World:
    """A chain that can expire, a newer backup, and their WAL."""
    world = World(clock=FakeClock())
    repository = world.repository()
    old = back_up(repository, FILES)
    increment(repository, old, {TABLE: {0: pages(2, seed=3)}})
    back_up(repository, FILES, start_lsn=6 * SEGMENT + 0x28)
    push_wal(repository, *range(2, 8))
    return world


def commits(world: World) -> list[Commit]:
    return world.repository().backups()


def packs(world: World, of: Sequence[Commit]) -> list[str]:
    layout = world.repository().layout
    where = [layout.backup(one.backup.label, one.attempt) for one in of]
    return [info.name for one in where for info in world.storage.list(f"{one}packs/")]


@pytest.mark.parametrize("depth", [Depth.OBJECTS, Depth.DATA])
@pytest.mark.parametrize("part", ["manifest", "packs", "wal", "keys"])
def test_a_chain_that_expires_while_all_is_verified(
    world: World, part: str, depth: Depth
) -> None:
    storage = FaultyStorage(world.storage)
    names = [one.name for one in world.storage.list("") if f"/{part}" in one.name]
    for name in names:
        storage.call("any", partial(expire, world), name=name, times=FOREVER)
    found, warnings = look(world, storage, depth=depth)
    assert found.damage == ()
    assert found.exit_code == 0
    assert warnings == []
    assert found.restorable is not None
    assert len(found.restorable.windows) == 1


@pytest.mark.parametrize("which", [0, 1])
def test_one_backup_that_expires_while_it_is_verified(world: World, which: int) -> None:
    storage = FaultyStorage(world.storage)
    chosen = commits(world)[which].backup.label
    nearest = commits(world)[2].backup.label
    for name in packs(world, commits(world)[:1]):
        storage.call("any", partial(expire, world), name=name, times=FOREVER)
    with pytest.raises(
        BackupExpired, match=f"{chosen} was expired by host-b"
    ) as raised:
        look(world, storage, chosen)
    assert f"take {nearest} instead" in (raised.value.hint or "")


def spread(world: World) -> None:
    """A backup with WAL of its own far before another, and all between archived."""
    repository = world.repository()
    back_up(repository, FILES)
    world.clock.jump(days=1)
    back_up(repository, FILES, start_lsn=20 * SEGMENT + 0x28)
    push_wal(repository, *range(2, 23))


@pytest.fixture
def far() -> World:
    world = World(clock=FakeClock())
    spread(world)
    return world


def test_wal_that_expires_while_it_is_verified_is_not_missing(far: World) -> None:
    """Both backups stay: the older one keeps the WAL that makes it consistent."""
    storage = FaultyStorage(far.storage)
    first = next(one.file for one in far.repository().wal.list())
    name = far.repository().wal.name(first)
    act = partial(expire, far, SHORT)
    storage.call("get", act, name=name, times=FOREVER)
    found, warnings = look(far, storage)
    assert (found.damage, found.exit_code, warnings) == ((), 0, [])
    assert found.checked.opened > 17  # those that were listed, and are gone
    assert len(list(far.repository().wal.list())) == 4


def test_what_has_expired_is_neither_lost_nor_a_gap(far: World) -> None:
    expire(far, SHORT)
    repository = far.repository()
    assert repository.log.read().wal_bounds == {1: Lsn(20 * SEGMENT)}
    left = [one.file.name[-2:] for one in repository.wal.list()]
    assert left == ["02", "14", "15", "16"]
    found, _ = look(far)
    assert (found.damage, found.exit_code) == ((), 0)
    assert found.restorable is not None
    (hole,) = found.restorable.holes
    assert (hole.expired, hole.damaged) == (True, False)
    assert not wal_status(repository).has_gaps


def test_what_is_missing_behind_the_bound_is_lost(far: World) -> None:
    expire(far, SHORT)
    repository = far.repository()
    lost = list(repository.wal.list())[2]
    far.storage.delete(repository.wal.name(lost.file))
    found, _ = look(far)
    assert found.exit_code == WalMissing.exit_code
    assert found.restorable is not None
    assert [one.expired for one in found.restorable.windows] == [True, False]
    (gap,) = wal_status(repository).timelines[0].gaps
    assert gap.first.number == gap.last.number == 21


def test_own_wal_that_is_missing_before_the_bound_is_lost(far: World) -> None:
    expire(far, SHORT)
    repository = far.repository()
    own = next(iter(repository.wal.list()))
    far.storage.delete(repository.wal.name(own.file))
    found, _ = look(far)
    assert found.exit_code == WalMissing.exit_code
    assert found.restorable is not None
    (lost,) = found.restorable.unrestorable
    assert lost.label == repository.backups()[0].backup.label


@pytest.mark.parametrize("depth", [Depth.OBJECTS, Depth.DATA])
def test_a_broken_chain_of_evidence_is_damage(world: World, depth: Depth) -> None:
    add(world.repository(), 3)
    assert look(world, depth=depth)[0].damage == ()
    world.storage.delete(name_of(1))
    found, _ = look(world, depth=depth)
    (damage,) = found.damage
    assert damage.name == "alpha/evidence"
    assert f"record {name_of(1)} is missing" in damage.what
    assert damage.backups == ()
    assert found.exit_code == Corrupt.exit_code
    label = commits(world)[0].backup.label
    assert look(world, label=label, depth=depth)[0].damage == ()


def test_the_gap_of_before_there_were_bounds_is_told(far: World) -> None:
    """An older drkit deleted WAL without a word: nobody can tell it from a loss."""
    repository = far.repository()
    for stored in list(repository.wal.list())[1:18]:
        far.storage.delete(repository.wal.name(stored.file))
    found, _ = look(far)
    assert found.exit_code == WalMissing.exit_code
    assert wal_status(repository).has_gaps
