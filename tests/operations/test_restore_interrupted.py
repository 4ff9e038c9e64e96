"""Restores that end in the middle: marked, not startable, and safe to run again."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from drkit import wiring
from drkit.errors import Interrupted, NoSpace, TargetNotEmpty
from drkit.model.owner import Owner
from drkit.model.recovery import RecoveryTarget
from drkit.operations.restore import RestoreRequest, execute_restore, plan_restore
from drkit.postgres.control import ClusterState, read_control
from drkit.postgres.target_checks import MARKER, is_incomplete
from tests.operations.scene import Scene, backup, drkit, refused, restore
from tests.pg import drkit_command, give_to, versions_under_test
from tests.protect import NAME
from tests.storage import seccomp
from tests.storage.localtools import mounted, only_root

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from drkit.operations.restore import RestorePlan
    from tests.protect import Protected

NEWEST = max(versions_under_test())
SPACE = "space"


@dataclass
class Source:
    """A backup of a cluster that has a tablespace and is gone."""

    scene: Scene
    protected: Protected
    place: Path

    def plan(self, target: Path, jobs: int = 2) -> RestorePlan:
        """Plan a restore of everything to `target` and to `space` beside it."""
        account = self.protected.account
        request = RestoreRequest(
            label=None,
            target=RecoveryTarget(),
            to=str(target),
            tablespaces={str(self.place): str(target.parent / SPACE)},
            jobs=jobs,
            restore_command=wiring.restore_command(self.protected.policy()),
            owner=Owner(account.uid, account.gid) if os.geteuid() == 0 else None,
        )
        return plan_restore(self.protected.repository(), request)

    def options(self, target: Path) -> list[str]:
        """Return the options of the same restore on the command line."""
        return [f"--tablespace-map={self.place}={target.parent / SPACE}"]

    def proves(self, target: Path) -> None:
        """Run the same restore again, which must succeed, and serve from it."""
        restore(self.protected, target, *self.options(target))
        assert not is_incomplete(str(target))
        restored = self.scene.start(target, NEWEST)
        assert restored.rows("SELECT count(*), sum(n) FROM t") == [(5000, 12502500)]

    def refuses_to_start(self, target: Path) -> None:
        server = self.scene.serve(target, NEWEST)
        server.launch()
        assert server.wait_until_stopped() != 0


@pytest.fixture(scope="module")
def source(scene: Scene) -> Source:
    protected = scene.protect(NEWEST)
    place = scene.directory() / "one"
    place.mkdir()
    give_to(protected.account, place)
    protected.cluster.rows(f"CREATE TABLESPACE s LOCATION '{place}'")
    table = "CREATE TABLE t TABLESPACE s AS SELECT generate_series(1, 5000) AS n"
    protected.cluster.rows(table)
    backup(protected)
    protected.archive_now()
    protected.cluster.stop()
    return Source(scene, protected, place)


class Watcher:
    """A `Progress` that calls a function at each thing it is told."""

    def __init__(self, at: Callable[[str, int], None]) -> None:
        self._at = at
        self._told = 0

    def phase(self, name: str, total: int | None = None) -> None:
        self._tell(name)

    def advance(self, count: int) -> None:
        self._tell("advance")

    def event(self, name: str, **fields: object) -> None:
        self._tell(name)

    def warning(self, message: str, **fields: object) -> None:
        self._tell(message)

    def _tell(self, name: str) -> None:
        self._told += 1
        self._at(name, self._told)


def die_in_child(
    source: Source, target: Path, at: Callable[[str, int], None], fatal: str = ""
) -> int:
    """Restore in a child process; return the signal that ended it, 0 if none did.

    Args:
        at: called in the child as `Watcher` does.
        fatal: a system call at which the kernel ends the child from the start on.
    """
    pid = os.fork()
    if pid == 0:
        try:
            plan = source.plan(target)
            if fatal:
                seccomp.kill_at(fatal)
            execute_restore(source.protected.repository(), plan, Watcher(at))
        finally:
            os._exit(0)
    return os.WTERMSIG(os.waitpid(pid, 0)[1])


def kill_at(name: str, count: int = 1) -> Callable[[str, int], None]:
    """Return a watcher that dies when it is told `name` for the count-th time."""
    left = [count]

    def at(told: str, _: int) -> None:
        left[0] -= told == name
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    return at


def nothing(_: str, __: int) -> None:
    pass


@pytest.mark.parametrize(
    ("at", "fatal"),
    [
        (kill_at("fetch"), ""),
        (kill_at("advance", 1), ""),
        (kill_at("advance", 300), ""),
        (kill_at("finish"), ""),
        (nothing, "fsync"),
    ],
    ids=["directories made", "first run", "run 300", "all but recovery", "first fsync"],
)
def test_a_killed_restore_can_only_be_run_again(
    source: Source, at: Callable[[str, int], None], fatal: str
) -> None:
    target = source.scene.target()
    assert die_in_child(source, target, at, fatal) in (signal.SIGKILL, signal.SIGSYS)
    assert not (target / "global/pg_control").exists()
    if not fatal:
        assert is_incomplete(str(target))
        source.refuses_to_start(target)
    source.proves(target)


def test_death_at_the_very_end_leaves_a_whole_directory(source: Source) -> None:
    """The last step takes the mark away: before it, everything is there."""
    target = source.scene.target()
    # Nothing but that step unlinks relative to a directory, once the plan is made.
    assert die_in_child(source, target, nothing, "unlinkat") == signal.SIGSYS
    assert is_incomplete(str(target))
    assert (target / "global/pg_control").exists()
    restored = source.scene.start(target, NEWEST)
    assert restored.sql("SELECT count(*) FROM t") == 5000
    # The server goes on writing, so what is there can't be compared before and after.
    options = (*source.options(target), "--to", target)
    said = drkit(source.protected, "restore", NAME, *options)
    assert said.code == TargetNotEmpty.exit_code
    assert restored.running
    restored.stop()
    source.proves(target)


def test_clearing_an_almost_complete_restore_begins_with_pg_control(
    source: Source,
) -> None:
    """Else a server could start on a directory that is half deleted."""
    target = source.scene.target()
    assert die_in_child(source, target, nothing, "unlinkat") == signal.SIGSYS
    assert die_in_child(source, target, kill_at("prepare"), "") == signal.SIGKILL
    assert (target / "global/pg_control").exists()
    # The first thing to be made durable is that pg_control is gone.
    assert die_in_child(source, target, nothing, "fsync") == signal.SIGSYS
    assert not (target / "global/pg_control").exists()
    assert (target / "PG_VERSION").exists()
    assert is_incomplete(str(target))
    source.proves(target)


def test_pg_control_is_not_there_before_all_else_is(source: Source) -> None:
    target = source.scene.target()
    seen: list[bool] = []

    def look(_: str, __: int) -> None:
        seen.append((target / "global/pg_control").exists())

    plan = source.plan(target)
    execute_restore(source.protected.repository(), plan, Watcher(look))
    assert len(seen) > 100
    assert not any(seen)
    control, _ = read_control(str(target / "global/pg_control"))
    assert control.state is ClusterState.IN_PRODUCTION


def test_a_copy_that_lost_its_backup_label_refuses_to_start(source: Source) -> None:
    target = source.scene.target()
    restore(source.protected, target, *source.options(target))
    (target / "backup_label").rename(target / "backup_label.lost")
    source.refuses_to_start(target)
    (target / "recovery.signal").unlink()
    source.refuses_to_start(target)


def test_two_restores_into_one_directory_do_not_mix(source: Source) -> None:
    target = source.scene.target()
    second: list[TargetNotEmpty] = []

    def race(told: str, _: int) -> None:
        if told == "fetch":
            with pytest.raises(TargetNotEmpty, match="another restore") as raised:
                execute_restore(
                    source.protected.repository(), source.plan(target), Watcher(nothing)
                )
            second.append(raised.value)

    plan = source.plan(target)
    execute_restore(source.protected.repository(), plan, Watcher(race))
    assert len(second) == 1
    assert source.scene.start(target, NEWEST).sql("SELECT count(*) FROM t") == 5000


def test_what_came_since_the_plan_is_not_overwritten(source: Source) -> None:
    target = source.scene.target()
    plan = source.plan(target)
    target.mkdir()
    (target / "keep").write_text("me")
    with pytest.raises(TargetNotEmpty):
        execute_restore(source.protected.repository(), plan, Watcher(nothing))
    assert [one.name for one in target.iterdir()] == ["keep"]


def test_sigterm_ends_with_its_own_code_and_a_mark(source: Source) -> None:
    target = source.scene.target()
    process = start(source, target)
    while not (target / MARKER).exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.002)
    process.terminate()
    _, errors = process.communicate(timeout=30)
    assert process.returncode == Interrupted.exit_code, errors
    assert "run the same command again" in errors
    assert is_incomplete(str(target))
    assert not (target / "global/pg_control").exists()
    source.proves(target)


def start(source: Source, target: Path) -> subprocess.Popen[str]:
    words = ["restore", NAME, *source.options(target), "--to", str(target)]
    words += ["--policy-dir", str(source.protected.home)]
    return subprocess.Popen(
        drkit_command(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.long
@pytest.mark.parametrize("seed", range(20))
def test_a_restore_killed_at_any_moment_can_only_be_run_again(
    source: Source, seed: int
) -> None:
    chance = random.Random(seed)
    target = source.scene.target()
    for _ in range(3):
        process = start(source, target)
        time.sleep(chance.uniform(0.2, 1.5))
        process.kill()
        process.communicate()
        if not target.exists() or not list(target.iterdir()):
            continue
        if is_incomplete(str(target)) and not (target / "global/pg_control").exists():
            source.refuses_to_start(target)
        if not is_incomplete(str(target)):
            break
    if not is_incomplete(str(target)) and target.exists() and list(target.iterdir()):
        assert source.scene.start(target, NEWEST).sql("SELECT count(*) FROM t") == 5000
    else:
        source.proves(target)


# -- disks


@only_root
def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(
    source: Source,
) -> None:
    disk = source.scene.directory() / "disk"
    with mounted(disk, "size=8m"):
        error = refused(source.protected, disk / "restored", *source.options(disk))
        assert error["exit_code"] == NoSpace.exit_code
        assert str(disk) in error["message"]
        assert list(disk.iterdir()) == []


@only_root
def test_a_disk_that_fills_up_leaves_a_mark_and_the_same_command_goes_on(
    source: Source,
) -> None:
    """What the first attempt wrote counts as free for the second one."""
    disk = source.scene.directory() / "disk"
    target = disk / "restored"
    options = [f"--tablespace-map={source.place}={disk / SPACE}"]
    with mounted(disk, "size=32m,nr_inodes=700"):
        said = drkit(source.protected, "restore", NAME, *options, "--to", target)
        assert said.code == NoSpace.exit_code, said.err
        assert "No space left on device" in said.err
        assert "bytes and 0 files are free" in said.err
        assert "run the same command again" in said.err
        assert is_incomplete(str(target))
        assert not (target / "global/pg_control").exists()
        used = disk_usage(disk)
        assert used > 2 << 20
        subprocess.run(["mount", "-o", "remount,nr_inodes=5000", str(disk)], check=True)
        content = source.plan(source.scene.target()).write_bytes
        size = content + (4 << 20)
        assert size - used < content
        subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)
        restore(source.protected, target, *options)
        assert not is_incomplete(str(target))


def disk_usage(path: Path) -> int:
    status = os.statvfs(path)
    return (status.f_blocks - status.f_bfree) * status.f_frsize
