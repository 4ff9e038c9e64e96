"""A program of a restored cluster's tries every way out that the kernel could leave.

On this kernel, and on ones that lack some of its means; run by root, who has a user for
it alone or gives it the server's, and by the server's user.
"""

from __future__ import annotations

import ctypes
import json
import shutil
import socket
import subprocess
import sys
import tempfile
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from drkit.postgres.process import Account, Identity, drop_to, run, server_account
from drkit.postgres.sandbox.confinement import own_account
from tests.pg import give_to
from tests.storage.localtools import only_root

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
ATTEMPTS = str(Path(__file__).with_name("attempts.py"))

CHANGES = [
    *("write", "append", "truncate", "mkdir", "symlink"),
    *("fifo", "rename", "unlink", "rmdir"),
]
READS = ["read", "list", "lock", "run"]
CALLS = ["0700", "0750", "0666", "chown", "times", "attributes"]
SOCKETS = ["connect", "send", "sendmsg"]
INSIDE = {
    *(f"inside {name}" for name in CALLS),
    *("inside connect", "inside sendmsg", "inside run", "inside send"),
}
OF_LANDLOCK = {
    *(f"outside {name}" for name in (*CHANGES, *READS)),
    *("move out", "private write", "passwords", "proc"),
}
OF_SECCOMP = {
    *(f"{place} {name}" for name in CALLS for place in ("inside", "outside")),
    *(f"{place} {name}" for name in SOCKETS for place in ("inside", "outside")),
    *("trace", "renice", "tcp4", "tcp6", "listen", "udp", "netlink", "vsock"),
    *("abstract", "user namespace", "mount", "ring", "memory file", "bpf", "key"),
    *("shared memory", "new call"),
}
OF_LIMITS = {"root", "capabilities", "private memory", "mapped memory"}
OF_NAMESPACES = {
    *(f"outside {name}" for name in (*CHANGES, *READS, *CALLS, *SOCKETS)),
    *("outside stat", "move out", "private write", "passwords", "proc", "inside run"),
    *("signal", "renice", "trace", "tcp4", "listen", "abstract", "mount"),
    *("shared memory of others",),
}
EVERYTHING = OF_LANDLOCK | OF_SECCOMP | OF_LIMITS | OF_NAMESPACES


class Tried(NamedTuple):
    failed: set[str]
    told: dict[str, Any]


def lay_out(place: Path) -> None:
    """Make what there is to be read, changed, and talked to."""
    place.mkdir()
    for name in ("there", "away", "own", "read"):
        (place / name).write_text("content")
    script = place / "script"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    (place / "empty").mkdir()
    (place / "kept").mkdir(0o755)


@contextmanager
def listening(place: Path) -> Iterator[None]:
    with (
        closing(socket.socket(socket.AF_UNIX)) as stream,
        closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as datagrams,
    ):
        stream.bind(str(place / "socket"))
        stream.listen()
        datagrams.bind(str(place / "datagrams"))
        yield


@contextmanager
def scenery(account: Account) -> Iterator[tuple[Path, int]]:
    """Yield a place with a private directory, and a process that is somebody else's.

    The process listens at an abstract address, and has a System V segment; both are
    named by its number.
    """
    place = Path(tempfile.mkdtemp(prefix="drkit-attack-", dir="/var/tmp"))
    place.chmod(0o755)
    private = place / "private"
    private.mkdir(0o700)
    (private / "read").write_text("content")
    shutil.copy(ATTEMPTS, private / "attempts.py")
    lay_out(private / "inside")
    lay_out(place / "outside")
    with (
        listening(private / "inside"),
        listening(place / "outside"),
        closing(socket.socket(socket.AF_UNIX)) as abstract,
        somebody(account) as victim,
    ):
        give_to(account, place)
        abstract.bind(f"\0drkit-{victim.pid}")
        abstract.listen()
        segment = shared_segment(victim.pid, account)
        try:
            yield place, victim.pid
        finally:
            ctypes.CDLL(None).shmctl(segment, 0, None)
            victim.kill()
            shutil.rmtree(place)


def somebody(account: Account) -> subprocess.Popen[bytes]:
    identity = Identity(account=account)
    return subprocess.Popen(["sleep", "600"], **identity.popen_options())


def shared_segment(key: int, account: Account) -> int:
    """Make a System V segment that a user may use, and return its number."""
    script = f"import ctypes; print(ctypes.CDLL(None).shmget({key}, 4096, 0o1600))"
    identity = drop_to(account)
    done = run(["/usr/bin/python3", "-c", script], identity=identity)
    return int(done.stdout)


def tried(account: Account, runner: Account | None = None, lacking: str = "") -> Tried:
    """Return what failed; `runner` is whom drkit runs as, if not who tests."""
    identity = drop_to(runner, (sys.executable, __file__)) if runner else Identity()
    with scenery(account) as (place, victim):
        words = (lacking, str(place), *map(str, (account.uid, account.gid, victim)))
        command = [sys.executable, "-m", "tests.attacks.confined_attempts", *words]
        done = run(command, identity=identity, cwd=str(ROOT))
    told = json.loads(done.stdout)
    assert told["code"] == 0, told["failed"]
    return Tried(set(json.loads(told["failed"])), told)


def who(name: str) -> tuple[Account, Account | None]:
    """Return whom a program runs as, and whom drkit runs as."""
    server = server_account()
    return {
        "a user of its own": (own_account(server), None),
        "the server's user": (server, None),
        "without root": (server, server),
    }[name]


WHO = ["a user of its own", "the server's user", "without root"]


@only_root
@pytest.mark.parametrize("name", WHO)
def test_there_is_no_way_out(name: str) -> None:
    failed, told = tried(*who(name))
    assert failed >= EVERYTHING
    assert not failed - EVERYTHING
    assert told["report"]["ended"] == 0
    own = name == "a user of its own"
    assert len(told["lacking"]) == (0 if own else 1)


@only_root
@pytest.mark.parametrize("name", WHO)
def test_without_namespaces_the_others_hold(name: str) -> None:
    failed, told = tried(*who(name), "namespaces")
    assert failed >= OF_LANDLOCK | OF_SECCOMP | OF_LIMITS | {"signal"}
    said = " ".join(told["lacking"])
    for word in ("file system of its own", "namespace of processes", "IPC namespace"):
        assert word in said


@only_root
@pytest.mark.parametrize("name", WHO)
def test_without_landlock_the_others_hold(name: str) -> None:
    failed, told = tried(*who(name), "landlock")
    assert failed >= EVERYTHING
    assert "no Landlock" in " ".join(told["lacking"])


@only_root
@pytest.mark.parametrize("name", WHO)
def test_without_seccomp_the_others_hold(name: str) -> None:
    failed, told = tried(*who(name), "seccomp")
    assert failed >= OF_LANDLOCK | OF_NAMESPACES | OF_LIMITS
    assert "no seccomp filter" in " ".join(told["lacking"])


@only_root
def test_without_anything_nothing_is_run() -> None:
    for name in WHO:
        with pytest.raises(AssertionError, match="be run safely"):
            tried(*who(name), "landlock,namespaces,seccomp")


def test_without_confinement_everything_works() -> None:
    """So that what fails above fails for no other reason."""
    account = server_account()
    with scenery(account) as (place, victim):
        words = (place / "private/inside", place / "outside", place / "private", victim)
        command = ["/usr/bin/python3", ATTEMPTS, *map(str, words)]
        done = run(command, identity=drop_to(account), cwd="/")
    failed = json.loads(done.stdout)
    # what no ordinary user may do anywhere
    refused = {"root", "mount", "bpf", "capabilities", "tcp4", "new call", "trace"}
    assert set(failed) <= refused | {"user namespace", "tcp6", "vsock", "ring"}
