"""A program of a restored cluster's wants to outlive it: it becomes a daemon."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from drkit.postgres.binaries import ServerBinaries
from drkit.postgres.process import Account, drop_to, server_account
from drkit.postgres.sandbox.confinement import Confinement, Report, own_account
from tests.attacks.lacking import __file__ as lacking_script
from tests.pg import give_to
from tests.storage.localtools import only_root

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
PYTHON = "/usr/bin/python3"

# Leaves its session, its parent, and a trail of children; says so in a file.
DAEMON = """
import os, signal, sys, time
for number in range(1, 32):
    if number not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(number, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.chdir("/")
        for _ in range(5):
            if os.fork() == 0:
                os.setsid()
        open(f"{sys.argv[1]}/{os.getpid()}", "w").close()
        time.sleep(600)
    os._exit(0)
deadline = time.monotonic() + 20
while len(os.listdir(sys.argv[1])) < 32 and time.monotonic() < deadline:
    time.sleep(0.01)
if sys.argv[2:]:
    time.sleep(600)
"""

# Starts it confined, and says what was told; with "die" it is killed before the end.
RUN = f"""
import json, os, sys
from drkit.postgres.binaries import ServerBinaries
from drkit.postgres.process import Account
from drkit.postgres.sandbox.confinement import Confinement
private, uid, gid, *stay = sys.argv[1:]
confinement = Confinement(ServerBinaries("/usr/bin", 0),
    Account(uid, int(uid), int(gid)), private, (f"{{private}}/seen",), 1 << 30)
argv = [{PYTHON!r}, "-S", "-c", {DAEMON!r}, f"{{private}}/seen", *stay]
started = confinement.start(argv, 2)
if stay:
    sys.stdin.read()
started.outer.wait()
left = confinement.what_is_left(started.report)
print(json.dumps([started.report.ended, started.report.sealed, left]))
"""


@pytest.fixture(params=["a user of its own", "the server's user", "without root"])
def who(request: pytest.FixtureRequest) -> tuple[Account, Account | None]:
    """Whom the program runs as, and whom drkit runs as if not who tests."""
    server = server_account()
    if request.param == "a user of its own":
        return own_account(server), None
    return server, server if request.param == "without root" else None


@pytest.fixture
def private(who: tuple[Account, object]) -> Iterator[Path]:
    place = Path(tempfile.mkdtemp(prefix="drkit-attack-", dir="/var/tmp"))
    (place / "seen").mkdir()
    give_to(who[0], place)
    yield place
    shutil.rmtree(place)


def command(
    private: Path, who: tuple[Account, Account | None], lacking: str, *words: str
) -> subprocess.Popen[str]:
    account, runner = who
    identity = drop_to(runner or account, (sys.executable, __file__))
    run = [*identity.prefix] if runner else []
    run += [sys.executable, lacking_script, lacking, sys.executable, "-c", RUN]
    run += [str(private), str(account.uid), str(account.gid), *words]
    options = identity.popen_options() if runner else {}
    return subprocess.Popen(
        run,
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        **options,
    )


def daemons(private: Path) -> list[int]:
    """Return the processes that run the daemon's program, by their arguments."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if words[0] == PYTHON.encode() and f"{private}/seen".encode() in words:
            found.append(int(name))
    return found


@only_root
@pytest.mark.parametrize("lacking", ["", "namespaces"])
def test_no_daemon_is_left(
    private: Path, who: tuple[Account, Account | None], lacking: str
) -> None:
    with command(private, who, lacking) as started:
        out, _ = started.communicate(timeout=60)
    ended, sealed, left = json.loads(out)
    assert len(os.listdir(private / "seen")) == 32, "the attack did not take place"
    assert daemons(private) == []
    assert left == ""
    assert sealed == (not lacking)
    assert ended == (32 if lacking else 0)


@only_root
@pytest.mark.parametrize("lacking", ["", "namespaces"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_daemon_is_left_by_a_run_that_is_killed(
    private: Path,
    who: tuple[Account, Account | None],
    lacking: str,
    number: signal.Signals,
) -> None:
    with command(private, who, lacking, "stay") as started:
        deadline = time.monotonic() + 30
        while len(os.listdir(private / "seen")) < 32:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert len(daemons(private)) >= 32
        started.send_signal(number)
        started.communicate(timeout=30)
    deadline = time.monotonic() + 15
    while daemons(private):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_only_what_was_seen_is_told() -> None:
    """A launcher that was killed has seen nothing."""
    account = server_account()
    confinement = Confinement(ServerBinaries("/usr/bin", 0), account, "/", (), 1)
    gone = 1 << 22  # above every number of a process
    seen = Report(process=gone, ended=0)
    assert confinement.what_is_left(seen) == ""
    assert "may be left" in confinement.what_is_left(Report(process=gone))
    sealed = Report(process=gone, namespaces=("PID",))
    assert confinement.what_is_left(sealed) == ""
    running = sealed._replace(process=os.getpid())
    assert "still runs" in confinement.what_is_left(running)
