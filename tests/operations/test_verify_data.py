"""Every byte that is stored: what changed is found, and named to whom it hurts."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drkit.errors import Corrupt, KeyUnavailable, NotFound, StorageError
from drkit.model.damage import DamageKind, Place
from drkit.model.depth import Depth
from drkit.model.log import Abandon, ExpireIntent
from drkit.model.page import PAGE
from drkit.model.sample import Sample
from drkit.model.wal import WalFileName
from drkit.repository.findings import damaged_frames, read_findings
from tests.builders import World, back_up, begin, copy_of, replace_object
from tests.faults import FOREVER, FaultyStorage, unavailable
from tests.operations.verify_tools import (
    increment,
    look,
    only,
    pages,
    push_wal,
    segment,
)

if TYPE_CHECKING:
    from drkit.model.log import Commit
    from drkit.protocols import Storage

TABLE, OTHER = b"base/5/16384", b"base/5/16385"
FILES = {
    b"base": None,
    b"base/5": None,
    TABLE: pages(1000),
    OTHER: pages(40, seed=2),
    b"PG_VERSION": b"18\n",
}
IN_FRAME = 2 << 20 >> 13  # pages of one frame


class Site:
    """A repository with a full backup, an incremental, and WAL."""

    def __init__(self) -> None:
        self.world = World()
        repository = self.world.repository()
        self.full = back_up(repository, FILES)
        changed = {TABLE: {3 * PAGE: pages(2, 3, seed=9)}}
        self.child = increment(repository, self.full, changed)
        self.wal = push_wal(repository, 2, 3)

    def pack(self, commit: Commit, number: int = 0) -> str:
        layout = self.world.repository().layout
        return layout.pack(commit.backup.label, commit.attempt, number)


@pytest.fixture
def site() -> Site:
    return Site()


@pytest.fixture(scope="module")
def shared() -> Site:
    """One that tests copy and leave as it is."""
    return Site()


def labels(*commits: Commit) -> tuple[str, ...]:
    return tuple(commit.backup.label for commit in commits)


def flip(storage: Storage, name: str, place: int, mask: int = 1) -> None:
    data = bytearray(storage.get(name))
    data[place % len(data)] ^= mask
    replace_object(storage, name, bytes(data))


def test_a_sound_repository(site: Site) -> None:
    found = look(site.world.repository())
    assert found.exit_code == 0
    (unsigned,) = found.notes
    assert "the WAL is not signed" in unsigned
    assert (found.damage, found.findings) == ((), None)
    assert found.labels == labels(site.full, site.child)
    assert found.checked.pages == 1042
    packs = [one for one in site.world.storage.list("") if "/packs/" in one.name]
    assert found.checked.opened == len(packs) + len(site.wal)


def test_a_damaged_frame_is_named_by_its_pages(site: Site) -> None:
    name = site.pack(site.full)
    flip(site.world.storage, name, 5000)
    found = look(site.world.repository())
    damage = only(found)
    assert found.exit_code == Corrupt.exit_code
    assert (damage.name, damage.kind) == (name, DamageKind.CONTENT)
    assert damage.what == "is not what its manifest says: frame 0 can't be opened"
    assert damage.places == (Place(TABLE, "page", 0, IN_FRAME - 1),)
    assert damage.backups == labels(site.full, site.child)
    assert found.restorable is not None
    assert [one.label for one in found.restorable.unrestorable] == list(damage.backups)


def test_a_backup_that_uses_nothing_of_it_is_not_blamed(site: Site) -> None:
    repository = site.world.repository()
    healed = increment(
        repository,
        site.child,
        {path: {0: FILES[path] or b""} for path in (TABLE, OTHER, b"PG_VERSION")},
    )
    flip(site.world.storage, site.pack(site.full), 5000)
    found = look(site.world.repository())
    assert only(found).backups == labels(site.full, site.child)
    assert found.restorable is not None
    (window,) = found.restorable.windows
    assert window.labels == labels(healed)


def test_damage_of_a_child_is_not_blamed_on_its_parent(site: Site) -> None:
    flip(site.world.storage, site.pack(site.child), 5000)
    damage = only(look(site.world.repository()))
    assert damage.backups == labels(site.child)
    assert damage.places == (Place(TABLE, "page", 3, 4),)


def test_the_next_backup_is_told(site: Site) -> None:
    flip(site.world.storage, site.pack(site.full), 5000)
    found = look(site.world.repository())
    other = site.world.repository(host="host-b")
    other.backups()
    assert damaged_frames(other) == {site.full.attempt: {0, 1, 2}}
    assert [one.name for one in read_findings(other)] == [found.findings]
    again = look(other)
    assert again.findings == found.findings
    assert len(list(read_findings(other))) == 1


def test_what_was_put_right_is_not_told_any_more(site: Site) -> None:
    name = site.pack(site.full)
    right = site.world.storage.get(name)
    flip(site.world.storage, name, 5000)
    assert look(site.world.repository()).findings is not None
    replace_object(site.world.storage, name, right)
    objects = look(site.world.repository(), depth=Depth.OBJECTS)
    assert objects.exit_code == Corrupt.exit_code  # content was not looked at
    repository = site.world.repository()
    assert len(list(read_findings(repository))) == 1
    assert look(repository).exit_code == 0
    assert list(read_findings(repository)) == []


@pytest.mark.parametrize("number", [0, 1])
def test_a_missing_pack(site: Site, number: int) -> None:
    name = site.pack(site.full, number)
    site.world.storage.delete(name)
    for depth in (Depth.OBJECTS, Depth.DATA):
        found = look(site.world.repository(), depth=depth)
        damage = only(found)
        assert (damage.name, damage.kind) == (name, DamageKind.MISSING)
        assert damage.backups == labels(site.full, site.child)
        assert damage.places
        assert damage.pack is not None
        assert damage.pack.frames == damage.pack.lost
        assert damaged_frames(site.world.repository())


@pytest.mark.parametrize("left", [0, 50, 96, 97, 5000, -24, -1])
def test_a_truncated_pack(site: Site, left: int) -> None:
    name = site.pack(site.full)
    data = site.world.storage.get(name)
    replace_object(site.world.storage, name, data[:left])
    for depth in (Depth.OBJECTS, Depth.DATA):
        damage = only(look(site.world.repository(), depth=depth))
        assert (damage.name, damage.kind) == (name, DamageKind.SIZE)
        assert f"not {len(data)}" in damage.what


def test_a_longer_pack(site: Site) -> None:
    name = site.pack(site.full)
    replace_object(site.world.storage, name, site.world.storage.get(name) + b"\0")
    assert only(look(site.world.repository())).kind is DamageKind.SIZE


def test_damage_is_not_forgotten_on_the_days_of_other_samples(site: Site) -> None:
    """A share of one day finds it; all others look at it again."""
    pack, segment = site.pack(site.full), site.wal[1]
    flip(site.world.storage, pack, 5000)
    flip(site.world.storage, segment, 200)
    clock, found = site.world.clock, []
    for _ in range(20):
        verified = look(site.world.repository(), sample=Sample(1, 20))
        found.append({damage.name for damage in verified.damage})
        clock.jump(days=1)
    assert found[-1] == {pack, segment}
    assert all(before <= after for before, after in pairwise(found))
    known = look(site.world.repository(), depth=Depth.OBJECTS)
    assert known.exit_code == Corrupt.exit_code
    assert known.restorable is not None
    assert {one.label for one in known.restorable.unrestorable} == set(
        labels(site.full, site.child)
    )


def test_packs_that_changed_places(site: Site) -> None:
    """Both are whole and authentic, each under the other's name."""
    one, other = site.pack(site.full), site.pack(site.child)
    first, second = map(site.world.storage.get, (one, other))
    replace_object(site.world.storage, one, second)
    replace_object(site.world.storage, other, first)
    found = look(site.world.repository())
    assert {damage.name for damage in found.damage} == {one, other}
    assert found.exit_code == Corrupt.exit_code


def test_a_pack_of_the_same_size_under_another_name() -> None:
    """Sizes and keys fit: only the name that it was sealed under tells."""
    world = World()
    repository = world.repository()
    made = back_up(
        repository, {b"a": bytes(7_000_000), b"b": bytes(7_000_000)}, writers=2
    )
    layout = repository.layout
    one, other = (layout.pack(made.backup.label, made.attempt, n) for n in (0, 1))
    first, second = world.storage.get(one), world.storage.get(other)
    assert len(first) == len(second)
    replace_object(world.storage, one, second)
    damage = only(look(world.repository()))
    assert damage.name == one
    assert "not sealed under this name" in damage.what


@settings(max_examples=60)
@given(data=st.data())
def test_a_flipped_bit_in_any_object_is_found(
    shared: Site, data: st.DataObject
) -> None:
    flip_anything(shared, data)


@pytest.mark.long
@settings(max_examples=3000)
@given(data=st.data())
def test_flipped_bits_in_all_objects_are_found(
    shared: Site, data: st.DataObject
) -> None:
    flip_anything(shared, data)


ENDS = ("/log/", "/wal/")


def flip_anything(shared: Site, data: st.DataObject) -> None:
    """Flip a bit of some object of a copy: a verification must name that object."""
    names = [info.name for info in shared.world.storage.list("alpha/")]
    kinds = sorted({re.sub("[0-9a-fA-F]{8,}", "*", name) for name in names})
    kind = data.draw(st.sampled_from(kinds))
    same = [name for name in names if re.sub("[0-9a-fA-F]{8,}", "*", name) == kind]
    name = data.draw(st.sampled_from(same))
    storage = copy_of(shared.world.storage)
    size = storage.size(name)
    place = data.draw(st.integers(0, size - 1) | st.sampled_from([0, 10, size - 1]))
    flip(storage, name, place, 1 << data.draw(st.integers(0, 7)))
    try:
        found = look(shared.world.repository(storage=storage))
    except (Corrupt, KeyUnavailable):
        assert "/log/" in name or "/keys/catalog/" in name  # the log's own
        return
    if found.exit_code == 0:  # what can't be told from somebody's without a key
        newest = {max(one for one in names if part in one) for part in ENDS}
        assert name in newest or "/wal-days/" in name
        assert any(name in note for note in (*found.notes, *found.log.notes))
        return
    assert any(
        name.startswith(damage.name) or damage.name in name or name in damage.what
        for damage in found.damage
    )


@pytest.mark.parametrize("which", ["header", "frame", "index", "footer"])
def test_every_part_of_a_pack_is_looked_at(site: Site, which: str) -> None:
    name = site.pack(site.full)
    size = site.world.storage.size(name)
    flip(
        site.world.storage,
        name,
        {"header": 20, "frame": 300, "index": size - 40, "footer": size - 4}[which],
    )
    damage = only(look(site.world.repository()))
    assert damage.name == name
    assert damage.pack is not None
    assert damage.pack.lost == ((0, 2),)
    assert damage.places


# -- pages


def taken(content: dict[bytes, bytes]) -> World:
    world = World()
    back_up(world.repository(), {b"base": None, b"base/5": None, **content})
    push_wal(world.repository(), 2)
    return world


def spoiled(content: bytes, *blocks: int) -> bytes:
    """Pages with a wrong byte that was there when they were read."""
    changed = bytearray(content)
    for block in blocks:
        changed[block * PAGE + 4000] ^= 1
    return bytes(changed)


def test_pages_that_were_wrong_when_they_were_stored() -> None:
    world = taken({TABLE: spoiled(pages(20), 3, 4, 17)})
    found = look(world.repository())
    damage = only(found)
    assert damage.kind is DamageKind.PAGES
    assert damage.places == (Place(TABLE, "page", 3, 4), Place(TABLE, "page", 17, 17))
    assert found.exit_code == Corrupt.exit_code
    assert damage.pack is not None
    assert damaged_frames(world.repository()) == {damage.pack.attempt: {0}}


def test_pages_that_wal_replay_writes_anew_may_be_torn() -> None:
    """Backups of these tests run from 0/2000028 to 0/2000128."""
    inside, behind = 0x2000080, 0x2000129
    content = pages(10, lsn=lambda page: behind if page == 5 else inside)
    world = taken({TABLE: spoiled(content, 2, 5)})
    assert only(look(world.repository())).places == (Place(TABLE, "page", 5, 5),)


def test_maps_may_be_torn_and_segments_are_counted_on() -> None:
    second = pages(4, 131072)
    world = taken({TABLE + b"_fsm": spoiled(pages(3), 1), TABLE + b".1": second})
    found = look(world.repository())
    assert found.exit_code == 0
    assert found.checked.pages == 4
    wrong = taken({TABLE + b".1": pages(4)})  # numbered as if they were of the first
    assert only(look(wrong.repository())).places == (
        Place(TABLE + b".1", "page", 0, 3),
    )


# -- WAL


def test_damaged_wal_cuts_what_can_be_restored(site: Site) -> None:
    push_wal(site.world.repository(), 4, 5)
    flip(site.world.storage, site.wal[1], 200)
    found = look(site.world.repository())
    damage = only(found)
    assert damage.name == site.wal[1]
    assert damage.backups == ()
    assert found.exit_code == Corrupt.exit_code
    assert found.restorable is not None
    (window,) = found.restorable.windows
    assert str(window.end_lsn) == "0/3000000"
    assert (window.missing, window.damaged) == ("000000010000000000000003", True)


def test_damaged_wal_that_a_backup_needs_itself(site: Site) -> None:
    flip(site.world.storage, site.wal[0], 200)
    found = look(site.world.repository())
    assert only(found).backups == labels(site.full, site.child)
    assert found.restorable is not None
    assert found.restorable.windows == ()


def test_wal_that_is_authentic_and_yet_no_wal(site: Site) -> None:
    repository = site.world.repository()
    file = WalFileName.parse("000000010000000000000004")
    repository.wal.push(file, bytes(16 << 20), repository.clock.now())
    assert "nothing but zeros" in only(look(repository)).what


def test_wal_of_another_segment_size(site: Site) -> None:
    repository = site.world.repository()
    file = WalFileName.parse("000000010000000000000004")
    other = segment(4, size=1 << 20)
    repository.wal.push(file, other, repository.clock.now())
    assert "segments of 1048576 bytes" in only(look(repository)).what


# -- the log


def test_log_entries_are_looked_at_behind_their_blocks() -> None:
    """A reader takes them from a copy, and would not notice for years."""
    world = taken({TABLE: pages(2)})
    repository = world.repository()
    while len(repository.log.entries) <= 258:
        attempt = begin(repository).attempt
        repository.log.append(lambda _, one=attempt: Abandon(one, "a test"))
    world.repository().log.read()
    assert look(world.repository()).exit_code == 0
    flipped, gone = (repository.layout.log_entry(number) for number in (7, 20))
    flip(world.storage, flipped, 120)
    world.storage.delete(gone)
    found = look(world.repository())
    assert [(one.name, one.kind) for one in found.damage] == [
        (flipped, DamageKind.CONTENT),
        (gone, DamageKind.MISSING),
    ]


# -- how


def test_an_unknown_label(site: Site) -> None:
    with pytest.raises(NotFound, match="no backup"):
        look(site.world.repository(), "20260101-000000-full")


def test_no_backup_at_all() -> None:
    with pytest.raises(NotFound, match="no backup"):
        look(World().repository())


def test_one_label_looks_at_its_chain_and_no_more(site: Site) -> None:
    other = back_up(site.world.repository(), FILES)
    flip(site.world.storage, site.pack(other), 5000)
    assert look(site.world.repository(), site.child.backup.label).exit_code == 0
    flip(site.world.storage, site.pack(site.full), 5000)
    found = look(site.world.repository(), site.child.backup.label)
    assert found.labels == labels(site.full, site.child)
    assert only(found).backups == labels(site.full, site.child)


def test_an_object_that_the_disk_can_not_read(site: Site) -> None:
    storage = FaultyStorage(site.world.storage)
    name = site.pack(site.full, 1)
    storage.fail("get", StorageError("Input/output error"), name=name, times=FOREVER)
    found = look(site.world.repository(storage=storage))
    damage = only(found)
    assert (damage.name, damage.kind) == (name, DamageKind.UNREADABLE)
    assert found.exit_code == StorageError.exit_code
    assert damage.backups == labels(site.full, site.child)


def test_a_store_that_fails_for_a_while_ends_the_run(site: Site) -> None:
    """Nothing is known then: that is no damage, and no success."""
    storage = FaultyStorage(site.world.storage)
    name = site.pack(site.full, 1)
    storage.fail("get", unavailable(), name=name, times=FOREVER)
    with pytest.raises(StorageError, match="503"):
        look(site.world.repository(storage=storage))
    assert list(read_findings(site.world.repository())) == []


def test_a_repository_that_can_not_be_written(site: Site) -> None:
    flip(site.world.storage, site.pack(site.full), 5000)
    storage = FaultyStorage(site.world.storage)
    repository = site.world.repository(storage=storage)
    storage.fail("put", StorageError("Read-only file system"), times=FOREVER)
    found = look(repository)
    assert found.exit_code == Corrupt.exit_code
    assert found.findings is None
    assert any("Read-only" in note for note in found.notes)


def test_a_backup_that_expires_meanwhile_is_not_damaged(site: Site) -> None:
    other = back_up(site.world.repository(), FILES)
    label, name = other.backup.label, site.pack(other)
    storage = FaultyStorage(site.world.storage)

    def expire() -> None:
        repository = site.world.repository(host="host-b")
        if label in repository.log.read().backups:
            repository.log.append(lambda _: ExpireIntent((label,)))
            site.world.storage.delete(name)

    storage.call("get", expire, name=name, times=FOREVER)
    found = look(site.world.repository(storage=storage))
    assert found.damage == ()
    assert found.exit_code == 0
    assert f"{label} expired while it was verified" in found.notes
