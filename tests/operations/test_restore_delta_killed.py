"""Restores over a data directory that end in the middle: marked, and safe to finish."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from drkit import wiring
from drkit.errors import Interrupted, TargetNotEmpty
from drkit.model.owner import Owner
from drkit.model.recovery import RecoveryTarget
from drkit.operations.restore import RestoreRequest, execute_restore, plan_restore
from drkit.postgres.target_checks import MARKER, is_incomplete
from tests.operations.backup_tools import content
from tests.operations.scene import refused, restore
from tests.operations.test_restore_delta import (
    IMMEDIATE,
    MAJORS,
    Source,
    assert_like_fresh,
    make,
)
from tests.operations.test_restore_interrupted import Watcher, kill_at, nothing
from tests.pg import drkit_command
from tests.protect import NAME
from tests.storage import seccomp

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from drkit.operations.restore import RestorePlan
    from tests.operations.scene import Scene


@pytest.fixture(scope="module")
def source(scene: Scene) -> Source:
    return make(scene, MAJORS[-1])


def plan(source: Source, target: Path, space: Path) -> RestorePlan:
    account = source.protected.account
    request = RestoreRequest(
        label=None,
        target=RecoveryTarget(),
        to=str(target),
        tablespaces={str(source.place): str(space)},
        jobs=2,
        restore_command=wiring.restore_command(source.protected.policy()),
        owner=Owner(account.uid, account.gid) if os.geteuid() == 0 else None,
        delta=True,
    )
    return plan_restore(source.protected.repository(), request)


def die(
    source: Source,
    target: Path,
    space: Path,
    at: Callable[[str, int], None],
    fatal: str = "",
) -> int:
    """Restore in a child process; return the signal that ended it, 0 if none did."""
    pid = os.fork()
    if pid == 0:
        try:
            made = plan(source, target, space)
            if fatal:
                seccomp.kill_at(fatal)
            execute_restore(source.protected.repository(), made, Watcher(at))
        finally:
            os._exit(0)
    return os.WTERMSIG(os.waitpid(pid, 0)[1])


def refuses_to_start(source: Source, target: Path) -> None:
    server = source.scene.serve(target, source.major)
    server.launch()
    assert server.wait_until_stopped() != 0


@pytest.mark.parametrize(
    "at",
    [
        kill_at("compare"),
        kill_at("advance", 200),
        pytest.param(kill_at("fetch"), marks=pytest.mark.long),
        kill_at("finish"),
    ],
    ids=["surplus deleted", "comparing", "all compared", "all but recovery"],
)
def test_a_killed_restore_can_only_be_finished(
    source: Source, at: Callable[[str, int], None]
) -> None:
    target, space = source.copy()
    assert die(source, target, space, at) == signal.SIGKILL
    assert is_incomplete(str(target))
    assert not (target / "global/pg_control").exists()
    refuses_to_start(source, target)
    done = source.delta(target, space, IMMEDIATE)
    assert done["delta"]["kept_bytes"] > done["delta"]["written_bytes"]
    assert_like_fresh(source, target, space)


def test_death_before_the_first_deletion_leaves_the_cluster_whole(
    source: Source,
) -> None:
    target, space = source.copy()
    before = {path: path.stat().st_size for path in target.rglob("*")}
    assert die(source, target, space, nothing, "unlinkat") == signal.SIGSYS
    assert before == {path: path.stat().st_size for path in before}
    assert source.delta(target, space, IMMEDIATE)["delta"]["deleted_files"] > 300
    assert_like_fresh(source, target, space)


def test_without_delta_an_unfinished_one_begins_again(source: Source) -> None:
    target, space = source.copy()
    assert die(source, target, space, kill_at("fetch")) == signal.SIGKILL
    mapped = f"--tablespace-map={source.place}={space}"
    restore(source.protected, target, mapped, IMMEDIATE)
    assert_like_fresh(source, target, space)


def test_but_never_over_what_others_have_in_a_shared_tablespace(
    source: Source,
) -> None:
    target, space = source.copy()
    (space / "PG_9_200001011").mkdir()
    (space / "PG_9_200001011" / "precious").write_text("another server's")
    assert die(source, target, space, kill_at("fetch")) == signal.SIGKILL
    mapped = f"--tablespace-map={source.place}={space}"
    error = refused(source.protected, target, mapped, IMMEDIATE)
    assert error["exit_code"] == TargetNotEmpty.exit_code
    source.delta(target, space, IMMEDIATE)
    assert (space / "PG_9_200001011" / "precious").read_text() == "another server's"


def test_a_mark_does_not_open_another_cluster_s_directory(source: Source) -> None:
    other = source.scene.factory.make(source.major, start=False)
    source.scene.clusters.append(other)
    target = source.scene.directory() / "data"
    os.rename(other.data_directory, target)
    (target / MARKER).write_text("{}")
    space = source.scene.directory() / "space"
    error = refused(source.protected, target, *source.options(space))
    assert "another cluster's" in error["message"]


def test_sigterm_ends_with_its_own_code_and_a_mark(source: Source) -> None:
    target, space = source.copy()
    process = start(source, target, space)
    while not (target / MARKER).exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.002)
    process.terminate()
    _, errors = process.communicate(timeout=30)
    assert process.returncode == Interrupted.exit_code, errors
    assert "run the same command again" in errors
    assert is_incomplete(str(target))
    source.delta(target, space, IMMEDIATE)
    assert_like_fresh(source, target, space)


def start(source: Source, target: Path, space: Path) -> subprocess.Popen[str]:
    words = ["restore", NAME, *source.options(space), IMMEDIATE, "--to", str(target)]
    words += ["--policy-dir", str(source.protected.home)]
    return subprocess.Popen(
        drkit_command(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.long
@pytest.mark.parametrize("seed", range(20))
def test_a_restore_killed_at_any_moment_can_be_finished(
    source: Source, seed: int
) -> None:
    chance = random.Random(seed)
    target, space = source.copy()
    for _ in range(3):
        process = start(source, target, space)
        time.sleep(chance.uniform(0.3, 1.5))
        process.kill()
        process.communicate()
        if is_incomplete(str(target)) and not (target / "global/pg_control").exists():
            refuses_to_start(source, target)
    source.delta(target, space, IMMEDIATE)
    assert_like_fresh(source, target, space)
    restored = source.serve(target)
    assert content(restored) == source.contents
    restored.stop()
