"""Everything that a backup refers to is there; what is not is asked for by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from drkit.errors import Corrupt, KeyUnavailable, WalMissing
from drkit.model.damage import DamageKind
from drkit.model.depth import Depth
from tests.builders import SEGMENT, World, back_up, begin, replace_object
from tests.faults import FaultyStorage
from tests.operations.verify_tools import (
    increment,
    look,
    only,
    pages,
    push_wal,
)

if TYPE_CHECKING:
    from drkit.model.log import Commit
    from drkit.operations.verifying.repository import Verification
    from drkit.repository.repository import Repository

TABLE = b"base/5/16384"
FILES = {b"base": None, b"base/5": None, TABLE: pages(20)}


@pytest.fixture
def world() -> World:
    return World()


def chain(world: World) -> tuple[Commit, Commit]:
    repository = world.repository()
    full = back_up(repository, FILES)
    child = increment(repository, full, {TABLE: {0: pages(1, seed=5)}})
    push_wal(repository, 2)
    return full, child


def objects(repository: Repository, label: str | None = None) -> Verification:
    return look(repository, label, Depth.OBJECTS)


def labels(*commits: Commit) -> tuple[str, ...]:
    return tuple(commit.backup.label for commit in commits)


def key_name(repository: Repository, purpose: str, commit: Commit) -> str:
    keys = dict(repository.log.read().attempts[commit.attempt].begin.keys)
    return repository.layout.dek(purpose, bytes.fromhex(keys[purpose])).rstrip("/")


def test_content_is_not_read(world: World) -> None:
    full, child = chain(world)
    storage = FaultyStorage(world.storage)
    found = objects(world.repository(storage=storage))
    assert found.exit_code == 0
    assert found.labels == labels(full, child)
    assert found.checked.objects >= 8
    assert found.checked.opened == 0
    assert not any(
        "/packs/" in name for method, name in storage.names if method == "get"
    )


@pytest.mark.parametrize("hidden", ["/packs/", "/keys/", "/wal/", "/backups/", "/"])
def test_a_listing_that_omits_names_is_no_damage(world: World, hidden: str) -> None:
    chain(world)
    storage = FaultyStorage(world.storage)
    repository = world.repository(storage=storage)
    storage.hide(lambda name: hidden in name and "/log/" not in name)
    found = objects(repository)
    assert found.exit_code == 0
    assert found.restorable is not None
    (window,) = found.restorable.windows
    assert window.end_lsn == 3 * SEGMENT


def test_a_missing_manifest(world: World) -> None:
    full, child = chain(world)
    other = back_up(world.repository(), FILES)
    world.storage.delete(full.manifest.name)
    for depth in (Depth.OBJECTS, Depth.DATA):
        found = look(world.repository(), depth=depth)
        damage = only(found)
        assert (damage.name, damage.kind) == (full.manifest.name, DamageKind.MISSING)
        assert damage.backups == labels(full, child)
        assert found.exit_code == Corrupt.exit_code
        assert found.restorable is not None
        assert [one.labels for one in found.restorable.windows] == [labels(other)]


def test_a_manifest_of_another_backup(world: World) -> None:
    full, child = chain(world)
    data = world.storage.get(full.manifest.name)
    replace_object(world.storage, child.manifest.name, data)
    damage = only(objects(world.repository()))
    assert damage.name == child.manifest.name
    assert damage.backups == labels(child)


def test_a_child_over_another_parent(world: World) -> None:
    """Each manifest is as it was committed, and they don't belong together."""
    full, _ = chain(world)
    repository = world.repository()
    changed = {TABLE: {0: pages(1, seed=6)}}
    child = increment(repository, full, changed, parent_sha256="0" * 64)
    damage = only(objects(world.repository()))
    assert damage.name == child.manifest.name
    assert "names another parent" in damage.what
    assert damage.backups == labels(child)


@pytest.mark.parametrize("purpose", ["backup", "catalog"])
def test_a_missing_key(world: World, purpose: str) -> None:
    full, child = chain(world)
    name = key_name(world.repository(), purpose, full)
    world.storage.delete(f"{name}/0001")
    for depth in (Depth.OBJECTS, Depth.DATA):
        found = look(world.repository(), depth=depth)
        assert found.exit_code == KeyUnavailable.exit_code
        damage = only(found)
        assert (damage.name, damage.kind) == (name, DamageKind.KEY)
        assert damage.backups == labels(full, child)


def test_a_missing_key_of_wal(world: World) -> None:
    chain(world)
    (name,) = (info.name for info in world.storage.list("alpha/keys/wal/"))
    world.storage.delete(name)
    found = objects(world.repository())
    assert only(found).name == "alpha/wal-days/20260115"
    assert found.exit_code == KeyUnavailable.exit_code


def test_the_pointer_to_a_key_of_wal_that_nobody_needs_any_more(world: World) -> None:
    chain(world)
    world.storage.put("alpha/wal-days/20250101", b"0" * 32)
    assert objects(world.repository()).exit_code == 0


def test_holes_in_wal(world: World) -> None:
    repository = world.repository()
    first = back_up(repository, FILES)
    push_wal(repository, 2, 3, 5, 6)
    found = objects(repository)
    assert found.exit_code == WalMissing.exit_code
    assert found.damage == ()
    assert found.restorable is not None
    (window,) = found.restorable.windows
    assert window.labels == labels(first)
    assert (window.missing, window.damaged) == ("000000010000000000000004", False)


def test_what_lies_between_two_windows(world: World) -> None:
    repository = world.repository()
    first = back_up(repository, FILES)
    second = back_up(repository, FILES, start_lsn=6 * SEGMENT + 0x28)
    push_wal(repository, 2, 3, 5, 6, 7)
    found = objects(world.repository())
    assert found.restorable is not None
    (hole,) = found.restorable.holes
    assert (hole.after_lsn, hole.after_time) == (4 * SEGMENT, first.backup.stop_time)
    assert hole.until_lsn == second.backup.stop_lsn
    assert hole.missing == "000000010000000000000004"
    assert found.restorable.newest_moment == second.backup.stop_time


def test_wal_without_which_a_backup_is_nothing(world: World) -> None:
    repository = world.repository()
    commit = back_up(repository, FILES)
    found = objects(repository)
    assert found.exit_code == WalMissing.exit_code
    assert found.restorable is not None
    assert found.restorable.windows == ()
    (one,) = found.restorable.unrestorable
    assert (one.label, one.missing) == (commit.backup.label, "000000010000000000000002")


def test_objects_that_nothing_refers_to_are_told_and_left(world: World) -> None:
    full, _ = chain(world)
    repository = world.repository()
    layout = repository.layout
    strange = [
        layout.pack(full.backup.label, full.attempt, 77),
        layout.pack("20200101-000000-full", "e" * 32, 0),
        "alpha/odd",
        "alpha/wal/1/00000001/00000000/000000010000000000000002",
    ]
    for name in strange:
        world.storage.put(name, b"?")
    running = begin(repository)
    world.storage.put(layout.pack(running.label, running.attempt, 0), b"not yet")
    found = objects(world.repository())
    assert found.exit_code == 0
    assert len(found.notes) == 4
    told = "\n".join(found.notes)
    assert all(name in told for name in strange[:3])
    assert "2 objects of names that drkit does not use" in told
    assert running.attempt not in told
    assert all(world.storage.size(name) for name in strange)


def test_wal_of_a_timeline_without_its_history_is_told(world: World) -> None:
    chain(world)
    push_wal(world.repository(), 4, timeline=3)
    note, unsigned = objects(world.repository()).notes
    assert "00000003.history" in note
    assert "the WAL is not signed" in unsigned
