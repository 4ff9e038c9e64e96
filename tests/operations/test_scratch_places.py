"""What runs that were killed leave of scratch instances, and how it is removed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from drkit.errors import StorageError
from drkit.model.recovery import RecoveryTarget
from drkit.operations.scratch.instance import (
    ScratchOptions,
    scratch_instance,
    sweep_left_overs,
)
from drkit.operations.scratch.places import make_place
from drkit.postgres.process import current_account, drop_to, run
from drkit.postgres.running import server_processes_below
from tests.operations.scene import backup
from tests.operations.scratch_tools import CLOCK, MEMORY, fill
from tests.pg import versions_under_test
from tests.storage.localtools import only_root

if TYPE_CHECKING:
    from drkit.postgres.process import Account
    from tests.operations.scene import Scene
    from tests.protect import Protected

NEWEST = max(versions_under_test())
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def plain(scene: Scene) -> Protected:
    protected = scene.protect(NEWEST)
    backup(protected)
    return protected


def test_a_run_that_lives_is_not_swept(plain: Protected, scene: Scene) -> None:
    directory = scene.directory()
    options = ScratchOptions(
        str(directory), plain.cluster.binaries, plain.account, MEMORY
    )
    with scratch_instance(options, CLOCK) as scratch:
        assert sweep_left_overs(str(directory)) == []
        fill(scratch, plain, RecoveryTarget())
    assert sweep_left_overs(str(directory)) == []
    assert sweep_left_overs(str(directory / "nowhere")) == []


@pytest.mark.parametrize("who", ["this user", "the server's user"])
def test_what_a_killed_run_leaves_is_found_and_removed(
    plain: Protected, scene: Scene, who: str
) -> None:
    directory = scene.directory()
    account = plain.account if who == "the server's user" else current_account()
    shared_before = shared_memory()
    identity = drop_to(account, reach=(sys.executable, __file__))
    child = subprocess.Popen(
        [
            *identity.prefix,
            *(sys.executable, "-m", "tests.operations.scratch_tools"),
            *(str(plain.home), plain.cluster.data_directory, str(directory)),
        ],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        **identity.popen_options(),
    )
    with child:
        assert child.stdout is not None
        place, pid = child.stdout.readline().split()
        assert int(pid) in server_processes_below(place)
        child.send_signal(signal.SIGKILL)
        child.wait()
    deadline = time.monotonic() + 10
    while server_processes_below(place):
        assert time.monotonic() < deadline, "the server outlived its run"
        time.sleep(0.02)
    assert pid not in {creator for _, creator in shared_memory() - shared_before}
    assert sweep_as(account, directory) == [f"{place} {child.pid}"]
    assert os.listdir(directory) == []


def shared_memory() -> set[tuple[str, str]]:
    """List the machine's System V segments, each with the pid of its creator.

    Servers that were killed before have left some, and pids come again: only what
    is new tells of this test's server.
    """
    lines = Path("/proc/sysvipc/shm").read_text().splitlines()[1:]
    return {(line.split()[1], line.split()[4]) for line in lines}


SWEEP = """
import sys
from datetime import UTC, datetime, timedelta
from drkit.operations.scratch.instance import sweep_left_overs
for left in sweep_left_overs(sys.argv[1]):
    assert left.bytes > 10 << 20
    assert datetime.now(UTC) - left.since < timedelta(minutes=5)
    print(left.path, left.pid)
"""


def sweep_as(account: Account, directory: Path) -> list[str]:
    """Sweep as a user; return what was removed."""
    identity = drop_to(account, reach=(sys.executable, __file__))
    argv = [sys.executable, "-c", SWEEP, str(directory)]
    done = run(argv, identity=identity, cwd=str(ROOT))
    return done.stdout.decode().splitlines()


def test_a_server_that_outlived_its_run_is_ended(
    plain: Protected, scene: Scene
) -> None:
    directory = scene.directory()
    place = make_place(str(directory), plain.account, CLOCK)
    with scene.factory.make(NEWEST, start=False) as server:
        os.rename(server.data_directory, f"{place.directory}/data")
        server.data_directory = f"{place.directory}/data"
        server.start()
        assert sweep_left_overs(str(directory)) == []
        os.close(place.descriptor)  # as the kernel does when a run dies
        (left,) = sweep_left_overs(str(directory))
        assert left.path == place.directory
        assert server.wait_until_stopped() != -signal.SIGKILL
    assert os.listdir(directory) == []


def test_only_what_is_known_to_be_dead_is_removed(
    plain: Protected, scene: Scene
) -> None:
    directory = scene.directory()
    mark = {"host": "elsewhere", "pid": 1, "since": "2026-01-15T10:30:00+00:00"}
    for name in ("scratch-0123abcd", "scratch-precious"):
        (directory / name).mkdir()
    (directory / "scratch-0123abcd.json").write_text(json.dumps(mark))
    (directory / "scratch-precious.json").write_text("{}")
    (directory / "scratch-89abcdef.json").touch()  # died before it made a directory
    (directory / "scratch-0000ffff.json").symlink_to(directory / "elsewhere")
    assert sweep_left_overs(str(directory)) == []
    assert sorted(os.listdir(directory)) == [
        "scratch-0000ffff.json",
        "scratch-0123abcd",
        "scratch-0123abcd.json",
        "scratch-precious",
        "scratch-precious.json",
    ]


@only_root
def test_a_place_that_the_server_cannot_get_to_is_refused(
    plain: Protected, scene: Scene
) -> None:
    closed = scene.directory() / "closed"
    closed.mkdir(0o700)
    with pytest.raises(StorageError, match="can't get to") as caught:
        make_place(str(closed), plain.account, CLOCK)
    assert "chmod o+x" in str(caught.value.hint)
    assert os.listdir(closed) == []


@pytest.mark.parametrize("mode", [0o777, 0o775])
def test_a_place_that_others_can_exchange_is_refused(
    plain: Protected, scene: Scene, mode: int
) -> None:
    shared = scene.directory() / "shared"
    shared.mkdir()
    shared.chmod(mode)
    with pytest.raises(StorageError, match="others could exchange"):
        make_place(str(shared), plain.account, CLOCK)
    assert os.listdir(shared) == []
    shared.chmod(mode | 0o1000)  # sticky: what is in it stays its owner's
    make_place(str(shared), plain.account, CLOCK).remove()


@only_root
def test_a_strangers_directory_is_refused(plain: Protected, scene: Scene) -> None:
    strange = scene.directory() / "strange"
    strange.mkdir()
    os.chown(strange, 54321, 54321)
    with pytest.raises(StorageError, match="belongs to '#54321'"):
        make_place(str(strange), plain.account, CLOCK)


def test_a_new_parent_is_closed_but_can_be_passed(
    plain: Protected, scene: Scene
) -> None:
    parent = scene.directory() / "one" / "two"
    place = make_place(str(parent), plain.account, CLOCK)
    passable = plain.account.uid != os.geteuid()
    assert parent.stat().st_mode & 0o777 == (0o711 if passable else 0o700)
    assert os.stat(place.directory).st_mode & 0o777 == 0o700
    assert place.remove().proven
