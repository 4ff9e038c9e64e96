"""What a backup does while the server makes the checkpoint that it starts from."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.operations.backup_tools import assert_not_in_backup, assert_tidy, site
from tests.pg import drkit_command
from tests.protect import NAME

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.operations.scene import Scene
    from tests.pg import Cluster
    from tests.protect import Protected

_WAITING = """
    SELECT pid FROM pg_stat_activity
    WHERE application_name = 'drkit backup' AND state = 'active'
        AND query LIKE '%backup_start%' AND wait_event_type IS NOT NULL
"""
_CHECKPOINTER = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'"
_NO_FORK = """
import os, sys

def fail():
    raise BlockingIOError(11, "Resource temporarily unavailable")

os.fork = fail
sys.argv[0] = "drkit"
from drkit.__main__ import main
main()
"""
_TOLD = """
import sys
from drkit.postgres.session import BackupSession
begin = BackupSession.begin

def told(self, label):
    heavy = [name for name in ("numpy", "psycopg") if name in sys.modules]
    print("begun with", heavy, file=sys.stderr)
    begin(self, label)

BackupSession.begin = told
sys.argv[0] = "drkit"
from drkit.__main__ import main
main()
"""


@pytest.fixture
def protected(scene: Scene, newest_version: int) -> Protected:
    return scene.protect(newest_version)


@contextmanager
def no_checkpoint(cluster: Cluster) -> Iterator[None]:
    """Let no checkpoint end while the block runs."""
    checkpointer = cluster.sql(_CHECKPOINTER)
    os.kill(checkpointer, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(checkpointer, signal.SIGCONT)


def _bare() -> dict[str, str]:
    return {name: os.environ[name] for name in ("PATH", "DRKIT_STATE_DIR")}


@contextmanager
def waiting_backup(protected: Protected) -> Iterator[subprocess.Popen[str]]:
    """Start a backup; go on once it waits for its checkpoint."""
    command = drkit_command("backup", NAME, "--policy-dir", protected.home)
    with subprocess.Popen(
        command, env=_bare(), stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            deadline = time.monotonic() + 30
            while protected.cluster.sql(_WAITING) is None:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it(protected: Protected, number: signal.Signals) -> None:
    """On the server too, though its checkpoint has not ended."""
    with no_checkpoint(protected.cluster):
        with waiting_backup(protected) as process:
            time.sleep(0.5)
            begun = time.monotonic()
            process.send_signal(number)
            _, said = process.communicate(timeout=30)
            assert time.monotonic() - begun < 10
        assert process.returncode == 26
        assert f"stopped by {number.name}" in said
        assert_not_in_backup(protected.cluster)
    assert protected.labels() == []
    assert_tidy(site(protected))
    protected.backup()


def test_a_session_that_ends_before_the_checkpoint(protected: Protected) -> None:
    with no_checkpoint(protected.cluster), waiting_backup(protected) as process:
        pid = protected.cluster.sql(_WAITING)
        protected.cluster.sql(f"SELECT pg_terminate_backend({pid}, 5000)")
        _, said = process.communicate(timeout=30)
        assert process.returncode == 17
        assert "the connection to PostgreSQL was lost" in said
    assert protected.labels() == []
    assert_tidy(site(protected))
    protected.backup()


def test_a_session_whose_process_is_killed(protected: Protected) -> None:
    with no_checkpoint(protected.cluster), waiting_backup(protected) as process:
        os.kill(session_process(process.pid), signal.SIGKILL)
        _, said = process.communicate(timeout=30)
        assert process.returncode == 17
        assert "the process that held the session with PostgreSQL has ended" in said
    assert protected.labels() == []
    assert_tidy(site(protected))
    protected.backup()


def session_process(parent: int) -> int:
    """Find the fork of a backup: it has its command line."""
    command = Path(f"/proc/{parent}/cmdline").read_bytes()
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    (found,) = [
        int(child)
        for child in children
        if Path(f"/proc/{child}/cmdline").read_bytes() == command
    ]
    return found


def test_a_checkpoint_that_takes_its_time_is_waited_for(protected: Protected) -> None:
    with ExitStack() as stack:
        with no_checkpoint(protected.cluster):
            process = stack.enter_context(waiting_backup(protected))
            time.sleep(1)
            assert process.poll() is None
        _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert len(protected.labels()) == 1


def test_what_is_heavy_is_imported_once_the_server_has_begun(
    protected: Protected,
) -> None:
    """Or the import would come before the checkpoint, not beside it.

    What speaks with the server is imported by the process that holds the session.
    """
    scripted_backup(protected, _TOLD)  # has the policy to check, which takes psycopg
    done = scripted_backup(protected, _TOLD)
    assert done.returncode == 0, done.stderr
    assert "begun with []" in done.stderr


def test_a_session_of_its_own_process_where_there_is_no_other(
    protected: Protected,
) -> None:
    protected.drkit("heartbeat", NAME, "--create")
    done = scripted_backup(protected, _NO_FORK)
    assert done.returncode == 0, done.stderr
    assert len(protected.labels()) == 1


def scripted_backup(
    protected: Protected, script: str
) -> subprocess.CompletedProcess[str]:
    """Take a backup with a program that changes something of drkit first."""
    arguments = ["backup", NAME, "--policy-dir", str(protected.home)]
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env=_bare() | {"HOME": str(protected.home)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("rest", [["nowhere"], ["--help"], [NAME, "--jobs", "no"]])
def test_a_command_that_does_not_begin_leaves_no_process(
    protected: Protected, rest: list[str]
) -> None:
    marked = str(protected.home)
    command = drkit_command("backup", "--policy-dir", marked, *rest)
    subprocess.run(command, capture_output=True, check=False)
    left = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if marked.encode() in process.read_bytes():
                left.append(process)
    assert left == []


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_without_standard_streams(protected: Protected, closed: str) -> None:
    command = shlex.join(drkit_command("backup", NAME, "--policy-dir", protected.home))
    done = subprocess.run(
        ["/bin/sh", "-c", f"{command} {closed}"], capture_output=True, check=False
    )
    assert done.returncode == 0
    assert len(protected.labels()) == 1
