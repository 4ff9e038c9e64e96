"""Programs that are started confined: how they start, end, and fail."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from drkit.errors import DrkitError
from drkit.postgres.binaries import ServerBinaries
from drkit.postgres.process import current_account, find_account, server_account
from drkit.postgres.sandbox import namespaces, seccomp
from drkit.postgres.sandbox.confinement import Confinement, Report, own_account
from tests.storage.localtools import only_root

if TYPE_CHECKING:
    from collections.abc import Sequence

MEMORY = 1 << 30
SHELL = "/bin/sh"


def confinement(directory: Path) -> Confinement:
    binaries = ServerBinaries("/usr/bin", 0)
    return Confinement(binaries, current_account(), str(directory), (), MEMORY)


def outcome(directory: Path, argv: Sequence[str]) -> tuple[int, str, Report]:
    """Return how a program ended, what it wrote, and what was told of it."""
    path = directory / "output"
    with path.open("wb") as output:
        started = confinement(directory).start(argv, output.fileno())
        code = started.outer.wait(30)
    return code, path.read_text(), started.report


@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$; exit 0", 0)]
)
def test_a_program_ends_as_it_would_alone(
    tmp_path: Path, script: str, code: int
) -> None:
    found, _, report = outcome(tmp_path, [SHELL, "-c", script])
    # the first process of a namespace has no default for a signal
    assert found in {code, -15}
    assert report.process > 0
    assert report.ended == 0
    assert not Path(f"/proc/{report.process}").exists()


def test_a_program_is_told_by_name_where_it_fails(tmp_path: Path) -> None:
    with pytest.raises(DrkitError, match=r"^sh failed with exit code 3:\n  why$"):
        confinement(tmp_path).run([SHELL, "-c", "echo why >&2; exit 3"], 30, DrkitError)
    with pytest.raises(DrkitError, match=r"^sh did not end within"):
        confinement(tmp_path).run([SHELL, "-c", "while :; do :; done"], 1, DrkitError)


@pytest.mark.parametrize("missing", ["directory", "program"])
def test_what_is_not_there_is_an_error(tmp_path: Path, missing: str) -> None:
    directory = tmp_path / "nowhere" if missing == "directory" else tmp_path
    program = "/nowhere" if missing == "program" else f"{directory}/program"
    found = confinement(directory).run([program], 30, None)
    assert found.returncode != 0
    assert b"No such file" in found.stderr


def test_a_program_whose_parent_is_gone_does_not_start(tmp_path: Path) -> None:
    command = confinement(tmp_path)._command(["/bin/true"], None)
    order = json.loads(command[-1]) | {"parent": 1 << 21}
    argv = [*command[:-1], json.dumps(order)]
    done = subprocess.run(argv, capture_output=True, check=False)
    assert done.returncode == 1
    assert b"is gone" in done.stderr


ORPHAN = """
import os, signal, sys, time
from drkit.postgres.binaries import ServerBinaries
from drkit.postgres.process import current_account
from drkit.postgres.sandbox.confinement import Confinement
signal.signal(signal.SIGQUIT, signal.SIG_IGN)  # as of what a shell runs behind itself
found = Confinement(ServerBinaries("/usr/bin", 0), current_account(), sys.argv[1], (),
    1 << 30)
started = found.start(["/bin/sh", "-c", "while :; do :; done"], 2)
while not started.report.told:
    time.sleep(0.01)
print(started.report.process, flush=True)
os._exit(0)
"""


def test_a_program_ends_with_its_parent(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", ORPHAN, str(tmp_path)]
    done = subprocess.run(argv, capture_output=True, check=True, timeout=30)
    deadline = time.monotonic() + 15
    while running(int(done.stdout)):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def running(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"


def test_links_are_followed_as_the_kernel_does(tmp_path: Path) -> None:
    base = Path(os.path.realpath(tmp_path))
    (base / "real/deep").mkdir(parents=True)
    (base / "real/file").touch()
    (base / "one").symlink_to("real")
    (base / "two").symlink_to(base / "one/deep")
    (base / "three").symlink_to("two/../file")
    (base / "circle").symlink_to("circle")
    paths = [str(base / name) for name in ("three", "one/deep", "nowhere", "circle")]
    real, links = namespaces.resolved(paths)
    assert real == {paths[0]: f"{base}/real/file", paths[1]: f"{base}/real/deep"}
    assert links == {
        f"{base}/three": "two/../file",
        f"{base}/two": f"{base}/one/deep",
        f"{base}/one": "real",
    }


def test_the_filter_is_a_program_that_every_kernel_takes() -> None:
    lines = seccomp.code(connect=False)
    assert lines is not None
    assert len(lines) < 4096
    for place, line in enumerate(lines):
        for jump in (line.true, line.false):
            assert 0 <= jump < 256
            assert place + 1 + jump < len(lines) or line.code == 0x06


@only_root
@pytest.mark.parametrize("who", ["a user of its own", "the server's user"])
def test_programs_in_roots_own_directories_are_run_without_a_capability(
    tmp_path: Path, who: str
) -> None:
    """As where drkit and the server's programs are installed in root's home."""
    server = server_account()
    account = own_account(server) if who == "a user of its own" else server
    home = tmp_path / "home"
    (home / "bin").mkdir(parents=True)
    shutil.copy("/bin/sh", home / "bin" / "postgres")
    (home / "secret").write_text("secret")
    for path in (home, tmp_path):
        path.chmod(0o700)
    binaries, private = ServerBinaries(str(home / "bin"), 0), home / "private"
    private.mkdir()
    confined = Confinement(binaries, account, str(private), (), MEMORY)
    program = binaries.tool("postgres")
    script = f"read line <{home}/secret || echo unread; echo ran"
    done = confined.run([program, "-c", script], 30, DrkitError)
    assert done.stdout == b"unread\nran\n"


@only_root
def test_root_gives_a_user_that_nobody_has() -> None:
    fallback = server_account()
    found = {own_account(fallback) for _ in range(50)}
    assert len(found) == 50
    assert all(one.uid >= 0x60000000 and one.gid == one.uid for one in found)


def test_others_than_root_stay_who_they_are() -> None:
    code = (
        "from drkit.postgres.process import current_account\n"
        "from drkit.postgres.sandbox.confinement import own_account\n"
        "assert own_account(current_account()) == current_account()"
    )
    somebody = {} if os.geteuid() else {"user": find_account("nobody").uid}
    python = "/usr/bin/python3" if somebody else sys.executable
    root = str(Path(__file__).parents[2])
    env = {"PYTHONPATH": root, "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([python, "-c", code], check=True, env=env, cwd=root, **somebody)
