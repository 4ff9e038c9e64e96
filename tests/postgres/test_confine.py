"""What a confined program can still do, tried for real."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from drkit.postgres import confine

ENOUGH = 1 << 30

# Tries everything and prints what failed, by name, with its error number.
TRY = """
import json, mmap, os, signal, sys
inside, outside, victim = sys.argv[1], sys.argv[2], int(sys.argv[3])
failed = {}
def attempt(name, what, *arguments):
    try:
        what(*arguments)
    except OSError as error:
        failed[name] = error.errno
def write(path, mode="w"):
    with open(path, mode) as file:
        file.write("x")
for name, place in (("inside", inside), ("outside", outside)):
    attempt(f"{name} write", write, f"{place}/new")
    attempt(f"{name} append", write, f"{place}/there", "a")
    attempt(f"{name} truncate", os.truncate, f"{place}/there", 0)
    attempt(f"{name} mkdir", os.mkdir, f"{place}/directory")
    attempt(f"{name} symlink", os.symlink, "x", f"{place}/link")
    attempt(f"{name} fifo", os.mkfifo, f"{place}/fifo")
    attempt(f"{name} rename", os.rename, f"{place}/there", f"{place}/renamed")
    attempt(f"{name} unlink", os.unlink, f"{place}/away")
    attempt(f"{name} rmdir", os.rmdir, f"{place}/empty")
    attempt(f"{name} 0700", os.chmod, f"{place}/kept", 0o700)
    attempt(f"{name} 0750", os.chmod, f"{place}/kept", 0o750)
    attempt(f"{name} 0777", os.chmod, f"{place}/own", 0o777)
    attempt(f"{name} read", lambda: open(f"{place}/read").read())
attempt("move out", os.rename, f"{inside}/own", f"{outside}/own2")
attempt("null", write, "/dev/null")
attempt("signal", os.kill, victim, signal.SIGTERM)
private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
attempt("memory", lambda: mmap.mmap(-1, 1 << 31, flags=private))
print(json.dumps(failed))
"""

CHANGES = "write append truncate mkdir symlink fifo rename unlink rmdir"
OUTSIDE = {f"outside {what}" for what in CHANGES.split()}
MODES = {
    f"{place} {mode}" for place in ("inside", "outside") for mode in ("0700", "0750")
}


def lay_out(place: Path) -> str:
    place.mkdir()
    for name in ("there", "away", "own", "read"):
        (place / name).write_text("content")
    (place / "empty").mkdir()
    (place / "kept").mkdir(0o755)
    return str(place)


def tried(tmp_path: Path, *prefix: str) -> dict[str, Any]:
    """Return what failed in a process that was started by `prefix`."""
    inside, outside = lay_out(tmp_path / "inside"), lay_out(tmp_path / "outside")
    with subprocess.Popen(["sleep", "60"]) as victim:
        argv = [*(word.format(inside=inside) for word in prefix), sys.executable, "-c"]
        done = subprocess.run(
            [*argv, TRY, inside, outside, str(victim.pid)],
            capture_output=True,
            text=True,
            check=False,
        )
        victim.kill()
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def confined(memory: int = ENOUGH, parent: int | None = None) -> list[str]:
    words = [str(parent or os.getpid()), str(memory), "{inside}"]
    return [sys.executable, "-I", "-S", confine.__file__, *words]


def only(function: str) -> list[str]:
    """Start with one of the two means alone."""
    script = (
        "import os, sys; sys.path.insert(0, os.path.dirname(sys.argv[1]))\n"
        "import confine; confine._prctl(38, 1)\n"
        f"assert confine.{function}\n"
        "os.execv(sys.argv[3], sys.argv[3:])"
    )
    return [sys.executable, "-c", script, confine.__file__, "{inside}"]


def test_nothing_outside_can_be_changed(tmp_path: Path) -> None:
    failed = tried(tmp_path, *confined())
    assert set(failed) == OUTSIDE | MODES | {"signal", "move out", "memory"}


def test_landlock_alone_keeps_the_outside_as_it_is(tmp_path: Path) -> None:
    failed = tried(tmp_path, *only("restrict_writing(sys.argv[2])"))
    assert set(failed) >= OUTSIDE | {"move out"}
    assert not [name for name in failed if name.startswith("inside")]


def test_seccomp_alone_stops_what_create_tablespace_begins_with(
    tmp_path: Path,
) -> None:
    assert set(tried(tmp_path, *only("refuse_directory_modes()"))) == MODES


def test_without_confinement_everything_works(tmp_path: Path) -> None:
    assert tried(tmp_path) == {}


def test_a_program_whose_parent_is_gone_does_not_start(tmp_path: Path) -> None:
    argv = [word.format(inside=tmp_path) for word in confined(parent=1 << 21)]
    done = subprocess.run([*argv, "/bin/true"], capture_output=True, check=False)
    assert done.returncode == 1
    assert b"is gone" in done.stderr


ORPHAN = """
import os, signal, subprocess, sys
signal.signal(signal.SIGQUIT, signal.SIG_IGN)  # as of what a shell runs behind itself
confined = [sys.executable, "-I", "-S", sys.argv[1], str(os.getpid()), "1000000000"]
sleep = "import time; print(1, flush=True); time.sleep(60)"
child = subprocess.Popen(
    [*confined, sys.argv[2], sys.executable, "-c", sleep], stdout=subprocess.PIPE
)
child.stdout.readline()
print(child.pid, flush=True)
os._exit(0)
"""


def test_a_program_ends_with_its_parent(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", ORPHAN, confine.__file__, str(tmp_path)]
    done = subprocess.run(argv, capture_output=True, check=True, timeout=30)
    deadline = time.monotonic() + 10
    while running(int(done.stdout)):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def running(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"


@pytest.mark.parametrize("missing", ["directory", "program"])
def test_what_is_not_there_is_an_error(tmp_path: Path, missing: str) -> None:
    argv = [word.format(inside=tmp_path) for word in confined()]
    if missing == "directory":
        argv[-1] = str(tmp_path / "nowhere")
    program = "/bin/true" if missing == "directory" else "/nowhere"
    done = subprocess.run([*argv, program], capture_output=True, check=False)
    assert done.returncode != 0
    assert b"No such file" in done.stderr
