"""Expiry: what a plan says, what its execution deletes, and in which order."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from drkit.errors import (
    AttemptFenced,
    ClockImplausible,
    NotFound,
    ObjectNotFound,
    RepositoryMissing,
    Retained,
    StorageError,
    UsageError,
)
from drkit.model.label import label_time
from drkit.model.log import Abandon, ExpireDone, Proven
from drkit.model.retention import Retention
from drkit.model.wal import Segment, WalFileName
from drkit.operations.expire import Expired, ExpirePlan, execute_expire, plan_expire
from drkit.operations.pins import pin_backup, unpin_backup
from drkit.repository.manifests import read_manifest
from tests.builders import SEGMENT, FakeClock, World, commit_entry, copy_of
from tests.catalogs import DUMP, INCR, NOW, start, store
from tests.faults import FOREVER, FaultyStorage
from tests.operations.backup_tools import Listener

if TYPE_CHECKING:
    from drkit.model.log import Entry, LogState
    from drkit.protocols import Storage

DAY = timedelta(days=1)
TWO = Retention(full=2)


@pytest.fixture
def world() -> World:
    return World(clock=FakeClock(NOW))


def _says(entry: Entry, _: LogState) -> Entry:
    return entry


def labels_of(*commits: object) -> list[str]:
    return [one.backup.label for one in commits]  # type: ignore[attr-defined]


def chains(world: World, count: int, incrementals: int = 2, **more: Any) -> list[str]:
    """Back up once a day: fulls, each followed by incrementals in one line."""
    repository, made = world.repository(), []
    for _ in range(count):
        parent = None
        for _ in range(incrementals + 1):
            kind: dict[str, Any] = {}
            if parent is not None:
                kind = {"kind": INCR, "parent": parent}
            place = 10 * (len(repository.log.state.attempts) + 1)
            commit = store(repository, start=place, **kind, **more)
            parent = commit.backup.label
            made.append(parent)
            world.clock.jump(days=1)
    return made


def put_wal(world: World, *names: str, size: int = 7) -> None:
    repository = world.repository()
    for name in names:
        object_name = repository.wal.name(WalFileName.parse(name))
        world.storage.put(object_name, bytes(size))


def segments(first: int, last: int, timeline: int = 1) -> list[str]:
    return [
        Segment(timeline, number).name(SEGMENT) for number in range(first, last + 1)
    ]


def archived(world: World) -> list[str]:
    return [stored.file.name for stored in world.repository().wal.list()]


def plan(world: World, retention: Retention = TWO, **options: Any) -> ExpirePlan:
    repository = world.repository()
    return plan_expire(repository, retention, world.clock.now(), **options)


def expire(
    world: World,
    retention: Retention = TWO,
    *,
    storage: Storage | None = None,
    listener: Listener | None = None,
    **options: Any,
) -> Expired:
    repository = world.repository(storage=storage)
    planned = plan_expire(repository, retention, world.clock.now(), **options)
    return execute_expire(repository, planned, "host-a", listener or Listener())


def live(world: World) -> list[str]:
    return list(world.repository().log.read().backups)


def difference(world: World) -> tuple[set[str], set[str]]:
    """Return objects that no live backup accounts for, and those that are missing."""
    repository = world.repository()
    layout, state = repository.layout, repository.log.read()
    expected = {"drkit.json"}
    expected |= {layout.log_entry(n) for n in range(len(repository.log.entries))}
    keys = {("catalog", key.hex()) for key in repository.log.key_ids}
    for commit in state.backups.values():
        expected.add(commit.manifest.name)
        where = (commit.backup.label, commit.attempt)
        count = len(read_manifest(repository, commit.manifest).packs)
        expected |= {layout.pack(*where, number) for number in range(count)}
        keys |= set(state.attempts[commit.attempt].begin.keys)
    expected |= {
        layout.dek_generation(purpose, bytes.fromhex(key), 1) for purpose, key in keys
    }
    there = {info.name for info in world.storage.list("") if "/wal/" not in info.name}
    return there - expected, expected - there


def test_a_plan_changes_nothing(world: World) -> None:
    made = chains(world, 3)
    put_wal(world, *segments(0, 99))
    before = list(world.storage.list(""))
    planned = plan(world)
    assert list(world.storage.list("")) == before
    assert [fate.label for fate in planned.fates] == made
    assert planned.chains == (tuple(reversed(made[:3])),)
    assert planned.deferred == planned.unfinished == ()
    # The oldest full that stays is the fourth backup and begins in segment 40.
    assert [stored.file.name for stored in planned.wal] == segments(0, 39)
    assert planned.wal_bytes == 40 * 7
    assert planned.notes == ()


def test_what_expires_is_deleted_and_nothing_else(world: World) -> None:
    made = chains(world, 4)
    put_wal(world, *segments(0, 99), "00000002.history")
    listener = Listener()
    done = expire(world, listener=listener)
    assert done.labels == [*reversed(made[:3]), *reversed(made[3:6])]
    assert (done.kept, done.retained, done.wal_retained) == ([], [], 0)
    assert (done.wal_files, done.wal_bytes) == (70, 70 * 7)
    assert live(world) == made[6:]
    assert difference(world) == (set(), set())
    assert archived(world) == segments(70, 99)
    assert world.repository().log.read().expiring == set()
    assert expire(world) == Expired()
    assert listener.warnings == []


def test_objects_go_in_the_order_that_leaves_no_backup_half_there(
    world: World,
) -> None:
    made = chains(world, 3, incrementals=1)
    storage = FaultyStorage(world.storage)
    expire(world, storage=storage)
    acts = [
        name.removeprefix("alpha/")
        for method, name in storage.names
        if method in ("put", "delete") and name.startswith("alpha/")
    ]
    intent = next(place for place, name in enumerate(acts) if name.startswith("log/"))
    assert intent == 0
    done = max(place for place, name in enumerate(acts) if name.startswith("log/"))
    kinds = [name.split("/")[0] for name in acts[1:done]]
    assert kinds == ["backups"] * 4 + ["keys"] * 2 + ["backups"] * 4 + ["keys"] * 2
    deleted = acts[1:done]
    for part, label in ((deleted[:4], made[1]), (deleted[6:10], made[0])):
        assert all(label in name for name in part)
        assert part[0].endswith("/manifest")
        assert all("/packs/" in name for name in part[1:])


def test_without_anything_to_do_the_log_stays_as_it_is(world: World) -> None:
    chains(world, 2)
    before = len(world.repository().log.entries)
    assert expire(world) == Expired()
    assert len(world.repository().log.entries) == before


def test_an_empty_cluster_and_one_that_was_never_set_up(world: World) -> None:
    with pytest.raises(RepositoryMissing):
        plan_expire(world.repository(opened=False), TWO, NOW)
    put_wal(world, *segments(0, 3))
    assert expire(world) == Expired()
    assert archived(world) == segments(0, 3)


def test_a_run_deletes_no_more_than_its_limit(world: World) -> None:
    made = chains(world, 5)
    put_wal(world, *segments(0, 99))
    planned = plan(world, most=4)
    assert planned.chains == (tuple(reversed(made[:3])), (made[5],))
    assert planned.deferred == tuple(made[3:5] + made[6:9])
    assert expire(world, most=4).labels == [*reversed(made[:3]), made[5]]
    # What is left to a later run can still be restored.
    assert archived(world)[0] == segments(40, 40)[0]
    assert difference(world) == (set(), set())
    capped = Retention(full=2, max_deletions=2)
    assert expire(world, capped).labels == [made[4], made[3]]
    assert expire(world, capped, most=99).labels == made[6:9][::-1]
    assert live(world) == made[9:]


def test_pins_hold_until_their_end(world: World) -> None:
    made = chains(world, 3, incrementals=1)
    end = world.clock.now() + 3 * DAY
    pin_backup(world.repository(), made[1], "before  the\nmigration", end)
    assert expire(world).labels == []
    (pinned,) = [fate for fate in plan(world).fates if fate.label == made[1]]
    assert [reason.text for reason in pinned.reasons] == [
        f"pinned until {end.isoformat(sep=' ')}: before the migration"
    ]
    world.clock.jump(days=3)
    assert expire(world).labels == [made[1], made[0]]
    assert world.repository().log.read().pins == {}
    assert difference(world) == (set(), set())


def test_pins_are_lifted_by_hand(world: World) -> None:
    made = chains(world, 3, incrementals=0)
    pin_backup(world.repository(), made[0][:8], "audit", None)
    pin_backup(world.repository(), "latest", "audit", None)
    assert list(world.repository().log.read().pins) == [made[0], made[2]]
    world.clock.jump(days=30)
    assert expire(world).labels == []
    assert unpin_backup(world.repository(), made[0]).reason == "audit"
    assert expire(world).labels == [made[0]]
    with pytest.raises(NotFound, match="not pinned") as caught:
        unpin_backup(world.repository(), made[1])
    assert caught.value.hint == f"pinned are: {made[2]}"


@pytest.mark.parametrize("reason", ["", "  ", "a\x1b[2Jb", "x" * 501])
def test_a_pin_needs_a_reason(world: World, reason: str) -> None:
    chains(world, 1)
    with pytest.raises(UsageError, match="reason"):
        pin_backup(world.repository(), "latest", reason, None)


def test_a_pin_needs_a_backup_and_an_end_that_is_to_come(world: World) -> None:
    chains(world, 1)
    with pytest.raises(NotFound):
        pin_backup(world.repository(), "1999", "why", None)
    with pytest.raises(UsageError, match="before it begins"):
        pin_backup(world.repository(), "latest", "why", world.clock.now())


def test_the_last_proven_backup_and_its_chain_stay(world: World) -> None:
    made = chains(world, 4)
    repository = world.repository()
    for proof in (Proven(made[1], NOW, "ab" * 32), Proven(made[4], NOW, "cd" * 32)):
        repository.log.append(partial(_says, proof))
    assert expire(world).labels == [*reversed(made[:3]), made[5]]
    assert live(world) == [made[3], made[4], *made[6:]]


def test_a_running_backup_keeps_its_parent_and_its_wal(world: World) -> None:
    made = chains(world, 4, incrementals=0)
    put_wal(world, *segments(0, 99))
    repository = world.repository()
    begun = start(repository, INCR, parent=made[0], start=5)
    assert expire(world).labels == [made[1]]
    assert archived(world)[0] == segments(5, 5)[0]
    repository.log.append(lambda _: Abandon(begun.attempt, "given up"))
    assert expire(world).labels == [made[0]]
    assert archived(world)[0] == segments(30, 30)[0]


def test_dumps_have_no_wal_and_no_part_in_chains(world: World) -> None:
    made = chains(world, 2, incrementals=0)
    put_wal(world, *segments(0, 30))
    dumps = labels_of(*(store(world.repository(), DUMP, start=0) for _ in range(3)))
    assert expire(world, Retention(full=1)).labels == [made[0], *dumps[:2]]
    assert archived(world)[0] == segments(20, 20)[0]


def test_what_abandoned_attempts_left_is_swept(world: World) -> None:
    chains(world, 1)
    repository = world.repository()
    key = repository.keyring.create("backup")
    begun = start(repository, keys=[("backup", key.key_id.hex())])
    world.storage.put(repository.layout.pack(begun.label, begun.attempt, 0), b"")
    repository.log.append(lambda _: Abandon(begun.attempt, "failed"))
    assert len(difference(world)[0]) == 2
    expire(world)
    assert difference(world) == (set(), set())


# -- the clock


@pytest.mark.parametrize("years", [-10, 10, 0.15])
def test_a_clock_that_jumped_expires_nothing(world: World, years: float) -> None:
    made = chains(world, 4)
    before = copy_of(world.storage)
    world.clock.jump(days=365 * years)
    retention = Retention(window=2 * DAY)
    with pytest.raises(ClockImplausible, match="nothing of alpha is expired") as caught:
        plan(world, retention)
    assert caught.value.hint is not None
    assert "--accept-clock" in caught.value.hint
    assert list(before.list("")) == list(world.storage.list(""))
    if years > 0:
        assert expire(world, retention, accept_clock=True).labels != []
    else:  # every backup lies in the future now
        assert expire(world, retention, accept_clock=True).labels == []
    assert set(live(world)) <= set(made)


def test_a_backup_under_a_wrong_clock_proves_no_time(world: World) -> None:
    """The clock jumps, a backup runs, and then the expiry."""
    made = chains(world, 3, incrementals=0)
    world.clock.jump(days=3650)
    made.append(store(world.repository(), start=90).backup.label)
    with pytest.raises(ClockImplausible):
        plan(world, Retention(window=DAY))
    world.clock.time = NOW + 4 * DAY  # set right
    with pytest.raises(ClockImplausible):
        plan(world, Retention(window=DAY))
    for _ in range(9):
        made.append(store(world.repository(), start=100).backup.label)
        world.clock.jump(days=1)
    assert label_time(made[-1]) > NOW + 3650 * DAY
    kept = {fate.label: fate for fate in plan(world, Retention(window=DAY)).fates}
    assert [reason.rule for reason in kept[made[3]].reasons] == ["future"]
    assert expire(world, Retention(window=DAY)).labels == [*made[:3], *made[4:-1]]


# -- other hosts


def test_a_pin_that_came_after_the_plan_counts(world: World) -> None:
    made = chains(world, 4, incrementals=1)
    here, there = world.repository(), world.repository(host="host-b")
    planned = plan_expire(here, TWO, world.clock.now())
    pin_backup(there, made[0], "wait", None)
    listener = Listener()
    done = execute_expire(here, planned, "host-a", listener)
    assert done.labels == [made[1], made[3], made[2]]
    assert done.kept == [made[0]]
    assert live(world) == [made[0], *made[4:]]


@pytest.mark.parametrize("committed", [False, True])
def test_a_child_that_came_after_the_plan_keeps_its_chain(
    world: World, committed: bool
) -> None:
    made = chains(world, 4, incrementals=1)
    put_wal(world, *segments(0, 99))
    here, there = world.repository(), world.repository(host="host-b")
    planned = plan_expire(here, TWO, world.clock.now())
    act = store if committed else start
    act(there, INCR, parent=made[1], start=90)
    done = execute_expire(here, planned, "host-a", Listener())
    assert done.labels == [made[3], made[2]]
    assert done.kept == [made[1], made[0]]
    assert archived(world)[0] == segments(10, 10)[0]


@pytest.mark.parametrize("moment", ["intent", "delete", "done"])
def test_two_hosts_expire_at_once(world: World, moment: str) -> None:
    made = chains(world, 4)
    put_wal(world, *segments(0, 99))
    storage = FaultyStorage(world.storage)
    method, at = {"intent": ("put", 1), "delete": ("delete", 5), "done": ("put", 2)}[
        moment
    ]
    others: list[Expired] = []
    storage.call(method, lambda: others.append(expire(world)), at=at)  # type: ignore[arg-type]
    done = expire(world, storage=storage)
    (other,) = others
    assert set(done.labels) | set(other.labels) == set(made[:6])
    assert live(world) == made[6:]
    assert difference(world) == (set(), set())
    assert archived(world) == segments(70, 99)
    named = [
        entry.entry.labels
        for entry in world.repository().log.entries
        if isinstance(entry.entry, ExpireDone)
    ]
    assert sorted(label for labels in named for label in labels) == made[:6]


def test_a_backup_that_begins_low_while_an_expirer_sleeps_over_wal(
    world: World,
) -> None:
    """It has told what goes; a standby that lags comes between that and the deed."""
    made = chains(world, 3, incrementals=0)
    put_wal(world, *segments(0, 99))
    storage, there = FaultyStorage(world.storage), world.repository(host="host-b")
    wal = world.repository().wal.name(WalFileName.parse(segments(7, 7)[0]))

    begun: list[str] = []

    def begin_low() -> None:
        with pytest.raises(AttemptFenced, match="needs WAL from 0/13000028"):
            start(there, start=19)
        begun.append(start(there, start=20).label)

    storage.call("delete", begin_low, name=wal, times=FOREVER)
    expire(world, storage=storage)
    assert [one.label for one in world.repository().log.read().running()] == begun
    assert len(begun) == 1
    assert live(world) == made[1:]
    assert archived(world) == segments(20, 99)
    assert world.repository().log.read().wal_bounds == {1: 20 * SEGMENT}


def test_an_expirer_that_died_over_wal_binds_those_that_begin_then(
    world: World,
) -> None:
    made = chains(world, 3, incrementals=0)
    put_wal(world, *segments(0, 99))
    storage = FaultyStorage(world.storage)
    wal = world.repository().wal.name(WalFileName.parse(segments(0, 0)[0]))
    storage.fail("delete", StorageError("EIO"), name=wal, times=FOREVER)
    with pytest.raises(StorageError, match="EIO"):
        expire(world, storage=storage)
    with pytest.raises(AttemptFenced):
        start(world.repository(host="host-b"), start=3)
    assert live(world) == made[1:]
    entries = len(world.repository().log.entries)
    assert expire(world).wal_files > 0
    assert len(world.repository().log.entries) == entries  # the first one says it all
    assert archived(world) == segments(20, 99)


def test_a_branch_from_before_what_has_expired_can_be_backed_up(world: World) -> None:
    """A cluster that was recovered to an old moment goes on from there."""
    made = chains(world, 3, incrementals=0)
    put_wal(world, *segments(0, 99))
    expire(world)
    made.append(store(world.repository(), start=12, timeline=2).backup.label)
    put_wal(world, *segments(12, 30, timeline=2))
    expire(world, Retention(full=3))
    assert live(world) == made[1:]
    assert archived(world) == [*segments(20, 99), *segments(12, 30, timeline=2)]


def test_a_writer_that_slept_through_its_expiry_is_fenced(world: World) -> None:
    """Its parent goes once it is abandoned; when it wakes, nothing live is hurt."""
    made = chains(world, 3, incrementals=0)
    sleeper = world.repository(host="host-b")
    begun = start(sleeper, INCR, parent=made[0], start=90)
    world.clock.jump(days=1)
    assert expire(world).labels == []  # it runs, by the log, and is then declared dead
    assert expire(world).labels == [made[0]]
    with pytest.raises(AttemptFenced):
        sleeper.log.append(lambda _: commit_entry(begun))
    assert live(world) == made[1:]
    assert difference(world) == (set(), set())


# -- the store


def test_what_an_object_lock_keeps_is_tried_again(world: World) -> None:
    made = chains(world, 4, incrementals=0)
    put_wal(world, *segments(0, 99))
    repository = world.repository()
    attempt = repository.log.state.backups[made[0]].attempt
    locked = repository.layout.pack(made[0], attempt, 1)
    wal = repository.wal.name(WalFileName.parse(segments(7, 7)[0]))
    storage = FaultyStorage(world.storage)
    for name in (locked, wal):
        storage.fail("delete", Retained(f"{name} is locked"), times=FOREVER, name=name)
    listener = Listener()
    done = expire(world, storage=storage, listener=listener)
    assert (done.labels, done.retained) == ([made[1]], [made[0]])
    assert (done.wal_files, done.wal_retained) == (29, 1)
    assert len(listener.warnings) == 2
    assert live(world) == made[2:]
    assert world.repository().log.read().expiring == {made[0]}
    keys = repository.log.state.attempts[attempt].begin.keys
    assert all(repository.keyring.get(p, bytes.fromhex(k)) for p, k in keys)
    assert plan(world).unfinished == (made[0],)

    again = expire(world, storage=storage)
    assert (again.labels, again.retained, again.wal_files) == ([], [made[0]], 0)
    storage.heal()
    last = expire(world, storage=storage)
    assert (last.labels, last.wal_files) == ([made[0]], 1)
    assert difference(world) == (set(), set())
    assert archived(world) == segments(30, 99)


def test_a_store_that_fails_stops_the_run_and_the_next_goes_on(world: World) -> None:
    made = chains(world, 4)
    storage = FaultyStorage(world.storage)
    storage.fail("delete", StorageError("EIO"), at=4)
    with pytest.raises(StorageError, match="EIO"):
        expire(world, storage=storage)
    assert live(world) == made[3:]
    storage.heal()
    assert plan(world).unfinished == tuple(made[:3])
    assert expire(world, storage=storage).labels == [*made[:3][::-1], *made[3:6][::-1]]
    assert difference(world) == (set(), set())


@pytest.mark.parametrize("hidden", ["packs", "manifest", "keys", "log", "leases"])
def test_a_listing_that_lacks_objects_leaves_none_behind(
    world: World, hidden: str
) -> None:
    made = chains(world, 3)
    storage = FaultyStorage(world.storage)
    storage.hide(lambda name: f"/{hidden}" in name)
    assert expire(world, storage=storage).labels == made[:3][::-1]
    assert live(world) == made[3:]
    assert difference(world) == (set(), set())


def test_wal_that_a_listing_lacks_waits_for_another(world: World) -> None:
    chains(world, 3, incrementals=0)
    put_wal(world, *segments(0, 99), "00000002.history")
    storage = FaultyStorage(world.storage)
    storage.hide(lambda name: name.endswith(("0", "history")))
    assert expire(world, storage=storage).wal_files == 18
    assert archived(world)[:3] == [
        segments(0, 0)[0],
        segments(16, 16)[0],
        segments(20, 20)[0],
    ]
    assert expire(world).wal_files == 2
    assert archived(world) == segments(20, 99)


def test_a_history_that_cannot_be_read_is_told(world: World) -> None:
    chains(world, 1)
    put_wal(world, "00000002.history")
    (note,) = plan(world).notes
    assert "1 timeline histories can't be read" in note


def test_keys_that_a_live_backup_names_are_never_deleted(world: World) -> None:
    """No writer shares keys; if one did, its children would still be readable."""
    repository = world.repository()
    key = repository.keyring.create("backup")
    shared = [("backup", key.key_id.hex())]
    for _ in range(3):
        entry = commit_entry(start(repository, keys=shared))
        repository.log.append(partial(_says, entry))
    expire(world, Retention(full=1))
    first = repository.layout.dek_generation("backup", key.key_id, 1)
    assert world.storage.size(first) > 0


def test_every_generation_of_a_key_goes(world: World) -> None:
    made = chains(world, 3, incrementals=0)
    repository = world.repository()
    attempt = repository.log.state.backups[made[0]].attempt
    (_, key), *_ = repository.log.state.attempts[attempt].begin.keys
    name = repository.layout.dek_generation("backup", bytes.fromhex(key), 2)
    world.storage.put(name, b"rotated")
    storage = FaultyStorage(world.storage)
    storage.hide(lambda hidden: hidden == name)
    expire(world, storage=storage)
    with pytest.raises(ObjectNotFound):
        world.storage.size(name)
