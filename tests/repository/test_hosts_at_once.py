"""What two hosts can do to each other, one by one and on every driver.

Chance seldom finds these: each needs somebody to stop at one certain call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from drkit.errors import AttemptFenced
from drkit.storage.local import LocalStorage
from drkit.storage.memory import MemoryStorage
from tests.repository.hosts import FULL, INCREMENTAL
from tests.repository.hosts_scene import ONE, TO_THE_END, TWO, Scene
from tests.repository.witness import abandoned

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from drkit.model.label import BackupKind
    from drkit.model.retention import Retention
    from drkit.protocols import Storage
    from tests.repository.hosts import Process


DRIVERS = [
    "memory",
    pytest.param("local", marks=pytest.mark.long),
    pytest.param("s3", marks=pytest.mark.long),
]


@pytest.fixture(params=DRIVERS)
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    made = Scene(_storage(request, tmp_path))
    yield made
    made.kill_all()


def _storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "memory":
        return MemoryStorage()
    if request.param == "local":
        return LocalStorage.create(tmp_path / "repository")
    made: Storage = request.getfixturevalue("empty_s3")
    return made


def before_commit(scene: Scene, name: str, kind: BackupKind = FULL) -> Process:
    """Start a backup and stop it just before its commit."""
    host = scene.hosts[name]
    process = host.begin(host.backing_up(kind))
    process.until("put", "/manifest", done=True)
    process.until("put", "/log/")
    return process


def before_intent(scene: Scene, name: str, retention: Retention = ONE) -> Process:
    """Start an expiry and stop it just before its first intent."""
    host = scene.hosts[name]
    process = host.begin(host.expiring(retention))
    process.until("put", "/log/")
    return process


def expire(scene: Scene, name: str, retention: Retention = ONE) -> None:
    host = scene.hosts[name]
    host.run(host.expiring(retention))
    scene.witness.look()


def in_order(scene: Scene, first: Process, second: Process) -> None:
    """Let one go to its end, then the other."""
    for process in (first, second):
        host = next(one for one in scene.hosts.values() if one.process is process)
        scene.go_on(host, TO_THE_END)


def test_two_writers_that_saw_no_lease_both_commit(scene: Scene) -> None:
    """Each looked before the other had written its lease."""
    hosts = [scene.hosts["a"], scene.hosts["b"]]
    for host in hosts:
        host.begin(host.backing_up()).until("put", "/leases/")
    while any(host.busy for host in hosts):
        for host in hosts:
            scene.go_on(host, 1)
    assert [host.process.error for host in hosts] == [None, None]
    assert len(scene.labels()) == 2
    scene.end()


def test_two_children_of_one_parent_both_commit(scene: Scene) -> None:
    parent = scene.back_up("a")
    for name in "ab":
        host = scene.hosts[name]
        host.begin(host.backing_up(INCREMENTAL)).until("put", "/leases/")
    in_order(scene, scene.hosts["b"].process, scene.hosts["a"].process)
    children = scene.labels()[1:]
    parents = [scene.state().parent_of(label) for label in children]
    assert parents == [parent, parent]
    scene.end()


@pytest.mark.parametrize(
    "part", ["/leases/", "/log/", "/keys/", "/packs/", "/manifest"]
)
def test_a_lost_reply_changes_nothing(scene: Scene, part: str) -> None:
    host = scene.hosts["a"]
    process = host.begin(host.backing_up())
    process.until("put", part)
    host.lose_next_reply()
    process.finish()
    assert len(scene.labels()) == 1
    scene.end()


def test_a_lost_reply_while_another_host_takes_the_next_entry(scene: Scene) -> None:
    scene.back_up("b")
    process, other = before_commit(scene, "a"), scene.hosts["b"]
    scene.hosts["a"].lose_next_reply()
    process.step()  # it is stored, and is read back next
    other.run(other.pinning("latest", None))
    process.finish()
    assert len(scene.labels()) == 2
    scene.end()


def test_a_commit_whose_writer_died_before_its_reply_counts(scene: Scene) -> None:
    process = before_commit(scene, "a")
    scene.hosts["a"].lose_next_reply()
    process.step()
    scene.hosts["a"].die()
    scene.witness.look()
    assert len(scene.labels()) == 1
    scene.end()


def test_a_writer_that_wakes_after_its_parent_has_expired(scene: Scene) -> None:
    """It was given up first, or its parent could not have expired."""
    scene.back_up("a")
    process = scene.hosts["a"].begin(scene.hosts["a"].backing_up(INCREMENTAL))
    process.until("put", "/manifest")
    scene.pass_time(hours=2)
    kept = scene.back_up("b")
    expire(scene, "c")
    assert scene.labels() == [kept]
    with pytest.raises(AttemptFenced, match="is abandoned"):
        process.finish()
    assert len(abandoned(scene.state())) == 1
    scene.end()


def test_a_writer_that_is_whole_can_wake_as_late_as_it_likes(scene: Scene) -> None:
    """Nobody gives it up: it may have committed, for all that others can tell."""
    parent = scene.back_up("a")
    process = before_commit(scene, "a", INCREMENTAL)
    scene.pass_time(hours=2)
    newer = scene.back_up("b")
    expire(scene, "c")
    assert scene.labels() == [parent, newer]
    process.finish()
    assert len(scene.labels()) == 3
    scene.end()


@pytest.mark.parametrize("part", ["/keys/", "/packs/", "/manifest", "/log/"])
def test_a_parent_stays_while_a_child_is_made(scene: Scene, part: str) -> None:
    """The lease has lapsed, which lets others back up and nothing else."""
    parent = scene.back_up("a")
    process = scene.hosts["a"].begin(scene.hosts["a"].backing_up(INCREMENTAL))
    process.until("put", "/log/", done=True)
    process.until("put", part)
    scene.pass_time(minutes=15)
    newer = scene.back_up("b")
    expire(scene, "c")
    assert scene.labels() == [parent, newer]
    process.finish()
    assert len(scene.labels()) == 3
    scene.end()


@pytest.mark.parametrize("child_first", [True, False])
def test_a_child_and_its_parents_expiry_want_the_same_entry(
    scene: Scene, child_first: bool
) -> None:
    parent = scene.back_up("a")
    newer = before_commit(scene, "b")
    scene.pass_time(minutes=15)
    child = scene.hosts["a"].begin(scene.hosts["a"].backing_up(INCREMENTAL))
    child.until("put", "/log/")
    newer.finish()
    child.step()  # the entry is taken: it reads on, and comes back
    child.until("put", "/log/")
    expiry = before_intent(scene, "c")
    assert expiry.call == child.call
    if child_first:
        in_order(scene, child, expiry)
        assert (child.error, expiry.error) == (None, None)
        assert parent in scene.labels()
    else:
        in_order(scene, expiry, child)
        assert isinstance(child.error, AttemptFenced)
        assert parent not in scene.labels()
    scene.end()


@pytest.mark.parametrize("commit_first", [True, False])
def test_a_commit_and_an_abandon_want_the_same_entry(
    scene: Scene, commit_first: bool
) -> None:
    writer, other = before_commit(scene, "a"), scene.hosts["b"]
    killer = other.begin(other.giving_up(scene.running()[0]))
    killer.until("put", "/log/")
    assert killer.call == writer.call
    if commit_first:
        in_order(scene, writer, killer)
        assert len(scene.labels()) == 1
        assert isinstance(killer.error, AttemptFenced)
    else:
        in_order(scene, killer, writer)
        assert scene.labels() == []
        assert isinstance(writer.error, AttemptFenced)
    scene.end()


@pytest.mark.parametrize("retention_of_second", [ONE, TWO])
def test_two_expiries_want_the_same_entry(
    scene: Scene, retention_of_second: Retention
) -> None:
    made = [scene.back_up("a") for _ in range(3)]
    first = before_intent(scene, "b")
    second = before_intent(scene, "c", retention_of_second)
    assert first.call == second.call
    while first.call or second.call:
        for name in "bc":
            scene.go_on(scene.hosts[name], 1)
    assert (first.error, second.error) == (None, None)
    assert scene.labels() == made[2:]
    scene.end()


@pytest.mark.parametrize("kind", [FULL, INCREMENTAL])
@pytest.mark.parametrize("part", ["/manifest", "/packs/", "/keys/"])
def test_an_expirer_that_wakes_during_a_backup(
    scene: Scene, kind: BackupKind, part: str
) -> None:
    scene.back_up("a")
    kept = scene.back_up("a")
    expiry = before_intent(scene, "c")
    expiry.until("delete", part)
    writer = scene.hosts["b"].begin(scene.hosts["b"].backing_up(kind))
    writer.until("put", "/packs/", done=True)
    in_order(scene, expiry, writer)
    assert (expiry.error, writer.error) == (None, None)
    assert scene.labels()[0] == kept
    assert len(scene.labels()) == 2
    scene.end()


def test_an_expirer_that_wakes_when_another_has_done_its_work(scene: Scene) -> None:
    scene.back_up("a")
    kept = scene.back_up("a")
    sleeper = before_intent(scene, "c")
    sleeper.until("delete", "/manifest")
    expire(scene, "b")
    newer = scene.back_up("b", INCREMENTAL)
    sleeper.finish()
    assert scene.labels() == [kept, newer]
    entries = [one.entry.TYPE for one in scene.world.repository().log.entries]
    assert entries.count("expire-done") == 1
    scene.end()


@pytest.mark.parametrize("part", ["/manifest", "/packs/", "/keys/", "/log/"])
def test_an_expirer_that_dies_leaves_its_work_to_the_next(
    scene: Scene, part: str
) -> None:
    scene.back_up("a")
    kept = scene.back_up("a", FULL)
    expiry = before_intent(scene, "c")
    expiry.step()
    expiry.until("put" if part == "/log/" else "delete", part)
    scene.hosts["c"].die()
    scene.witness.look()
    expire(scene, "b")
    assert scene.labels() == [kept]
    scene.end()


def test_a_pin_that_comes_before_the_intent_holds(scene: Scene) -> None:
    made = [scene.back_up("a") for _ in range(3)]
    expiry, other = before_intent(scene, "c"), scene.hosts["b"]
    other.run(other.pinning(made[0], None))
    expiry.finish()
    assert scene.labels() == [made[0], made[2]]
    other.run(other.unpinning(made[0]))
    scene.end()


def test_a_pin_that_comes_behind_the_intent_is_refused(scene: Scene) -> None:
    made = [scene.back_up("a") for _ in range(2)]
    other = scene.hosts["b"]
    pin = other.begin(other.pinning(made[0], None))
    pin.until("put", "/log/")
    expire(scene, "c")
    with pytest.raises(AttemptFenced, match="no live backup"):
        pin.finish()
    scene.end()


def test_a_backup_longer_than_any_grace_commits_if_nobody_gave_it_up(
    scene: Scene,
) -> None:
    process = before_commit(scene, "a")
    scene.pass_time(days=400)
    process.finish()
    assert len(scene.labels()) == 1
    scene.end()


def test_a_backup_longer_than_any_grace_is_swept_if_somebody_did(scene: Scene) -> None:
    process = scene.hosts["a"].begin(scene.hosts["a"].backing_up())
    process.until("put", "/packs/")
    scene.pass_time(days=1)
    kept = scene.back_up("b")
    with pytest.raises(AttemptFenced):
        process.finish()
    assert scene.labels() == [kept]
    scene.end()


def test_one_that_was_swept_stores_more_and_dies(scene: Scene) -> None:
    """Its keys are gone by then, and it can't sweep any more."""
    process = scene.hosts["a"].begin(scene.hosts["a"].backing_up())
    process.until("put", "/packs/")
    scene.pass_time(days=1)
    scene.back_up("b")
    assert len(abandoned(scene.state())) == 1
    process.until("put", "/manifest", done=True)
    scene.hosts["a"].die()
    scene.end()


@pytest.mark.parametrize("part", ["/packs/", "/backups/", "/keys/", "/leases/"])
def test_a_sweep_that_lists_only_some_is_made_good(scene: Scene, part: str) -> None:
    process = scene.hosts["a"].begin(scene.hosts["a"].backing_up())
    process.until("put", "/manifest")
    scene.hosts["a"].die()
    scene.pass_time(days=1)
    scene.hosts["b"].hide(part)
    scene.back_up("b")
    assert len(abandoned(scene.state())) == 1
    scene.end()


def test_wal_of_a_backup_that_began_late_stays(scene: Scene) -> None:
    """It began on the server first, then slept; others judged WAL without it."""
    writer, expirer = scene.hosts["a"], scene.hosts["c"]
    process = writer.begin(writer.backing_up())
    process.until("put", "/log/")
    scene.pass_time(minutes=15)
    kept = scene.back_up("b")
    expiry = expirer.begin(expirer.expiring(ONE))
    expiry.until("delete", "/wal/")
    in_order(scene, process, expiry)
    assert isinstance(process.error, AttemptFenced)
    assert scene.labels() == [kept]
    scene.end()


def before_wal(scene: Scene, name: str, retention: Retention = ONE) -> Process:
    """Start an expiry and stop it just before it deletes the first WAL."""
    host = scene.hosts[name]
    process = host.begin(host.expiring(retention))
    process.until("delete", "/wal/")
    return process


@pytest.mark.parametrize("dies", [False, True])
@pytest.mark.parametrize("lag", [4, 6])
def test_a_lagging_backup_while_an_expirer_sleeps_over_wal(
    scene: Scene, lag: int, dies: bool
) -> None:
    """It starts where WAL is about to go, though all of it is there still."""
    scene.back_up("a")
    kept = scene.back_up("a")
    expiry, writer = before_wal(scene, "c"), scene.hosts["b"]
    if dies:
        expiry.step()
        scene.hosts["c"].die()
    lagging = writer.begin(writer.backing_up(lag=lag))
    scene.go_on(writer, TO_THE_END)
    scene.go_on(scene.hosts["c"], TO_THE_END)
    expire(scene, "c")
    assert isinstance(lagging.error, AttemptFenced)
    assert scene.labels() == [kept]
    scene.end()


def test_an_expirer_that_has_not_said_so_keeps_the_wal_of_a_lagging_backup(
    scene: Scene,
) -> None:
    """It judged without the backup, and sees it as it writes what will go."""
    scene.back_up("a")
    kept = scene.back_up("a")
    expirer, writer = scene.hosts["c"], scene.hosts["b"]
    expiry = expirer.begin(expirer.expiring(ONE))
    expiry.until("list", "/wal/", done=True)
    lagging = writer.begin(writer.backing_up(lag=4))
    lagging.until("put", "/packs/")
    in_order(scene, expiry, lagging)
    assert (expiry.error, lagging.error) == (None, None)
    assert scene.labels()[-1] != kept
    scene.end()


@pytest.mark.parametrize("backup_first", [True, False])
def test_a_lagging_backup_and_an_expiry_of_wal_want_the_same_entry(
    scene: Scene, backup_first: bool
) -> None:
    """There is nothing else to expire: no intent shows the expiry to the backup."""
    scene.back_up("a")
    expirer, writer = scene.hosts["c"], scene.hosts["b"]
    lagging = writer.begin(writer.backing_up(lag=3))
    lagging.until("put", "/log/")
    expiry = before_intent(scene, "c")
    assert expiry.call == lagging.call
    begun = (lagging, expiry) if backup_first else (expiry, lagging)
    in_order(scene, *begun)
    assert expiry.error is None
    assert isinstance(lagging.error, AttemptFenced) is not backup_first
    assert len(scene.labels()) == 1 + backup_first
    assert bool(scene.state().wal_bounds) is not backup_first
    assert not expirer.busy
    scene.end()


def test_an_expirer_whose_entry_another_has_written_deletes_without_one(
    scene: Scene,
) -> None:
    """Both saw the same; what the first one wrote speaks for both."""
    scene.back_up("a")
    kept = scene.back_up("a")
    sleeper = scene.hosts["b"].begin(scene.hosts["b"].expiring(ONE))
    sleeper.until("list", "/wal/", done=True)
    before_wal(scene, "c")
    scene.hosts["c"].die()
    in_order(scene, sleeper, scene.hosts["c"].process)
    entries = [one.entry.TYPE for one in scene.world.repository().log.entries]
    assert entries.count("expire-wal") == 1
    assert sleeper.error is None
    assert scene.labels() == [kept]
    scene.end()


def test_expiries_of_different_policies_sleep_over_wal(scene: Scene) -> None:
    """The one that keeps more says less, and takes nothing back."""
    for _ in range(3):
        scene.back_up("a")
    strict = before_wal(scene, "b", ONE)
    bound = scene.state().wal_bound(1)
    expire(scene, "c", TWO)
    assert scene.state().wal_bound(1) == bound
    writer = scene.hosts["a"]
    lagging = writer.begin(writer.backing_up(lag=4))
    scene.go_on(writer, TO_THE_END)
    assert isinstance(lagging.error, AttemptFenced)
    in_order(scene, strict, lagging)
    assert strict.error is None
    scene.end()


def test_what_a_standby_may_begin_with_when_wal_has_expired(scene: Scene) -> None:
    scene.back_up("a")
    expire(scene, "c")
    bound = scene.state().wal_bound(1)
    writer = scene.hosts["b"]
    refused = writer.begin(writer.backing_up(lag=(scene.server.segment + 1) - 1))
    scene.go_on(writer, TO_THE_END)
    assert isinstance(refused.error, AttemptFenced)
    assert str(bound) in str(refused.error)
    assert "catch up" in (refused.error.hint or "")
    writer.run(writer.backing_up(lag=1))
    assert len(scene.labels()) == 2
    scene.end()
