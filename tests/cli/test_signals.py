"""SIGTERM and SIGINT at every moment: the right message and code, never a traceback."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.pg import drkit_command, run_drkit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cli.site import ServedSite

TERM, INT = signal.SIGTERM, signal.SIGINT
HANGS = """\
import sys, time
from drkit.cli.session import Options, Session, run_session

def work(session):
    try:
        print("working", flush=True)
        time.sleep(60)
    finally:
        print("clearing up", flush=True)
        time.sleep({clearing})
        {ending}

sys.exit(run_session(Session("backup", Options(), {{}}), work, {{}}))
"""


@pytest.mark.parametrize("pair", [(TERM, TERM), (INT, INT), (TERM, INT), (INT, TERM)])
def test_two_signals_at_once(
    served: ServedSite, pair: tuple[signal.Signals, signal.Signals]
) -> None:
    """Both wait for the process when it goes on; it clears up after the first."""
    served.cluster.sql("ALTER SYSTEM SET archive_command = 'false'")
    served.cluster.sql("SELECT pg_reload_conf()")
    process = subprocess.Popen(
        drkit_command("backup", served.site.policy), stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    told = process.stderr.readline()
    while "phase=wal" not in told:
        more = process.stderr.readline()
        assert more, told  # it ended by itself
        told += more
    process.send_signal(signal.SIGSTOP)
    for number in pair:
        process.send_signal(number)
    process.send_signal(signal.SIGCONT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 26
    check_told(errors)
    repository = served.site.repository()
    assert repository.backups() == []
    assert repository.log.state.running() == []


def check_told(errors: str) -> None:
    """Check that there is one message of two lines at the end, and no traceback."""
    assert "Traceback" not in errors
    assert "ignored" not in errors
    message, hint = errors.splitlines()[-2:]
    assert message.startswith("drkit: error: stopped by SIG")
    assert hint.startswith("drkit: hint: ")
    assert errors.count("drkit: error: ") == 1


@pytest.fixture
def hanging() -> Iterator[subprocess.Popen[str]]:
    """A command that was told to stop and hangs as it clears up."""
    with _begun(clearing=60) as process:
        assert process.stdout is not None
        process.send_signal(TERM)
        assert process.stdout.readline() == "clearing up\n"
        yield process
        process.kill()


def _begun(clearing: float, ending: str = "pass") -> subprocess.Popen[str]:
    script = HANGS.format(clearing=clearing, ending=ending)
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "working\n"
    return process


def test_a_second_signal_ends_what_hangs(hanging: subprocess.Popen[str]) -> None:
    time.sleep(0.6)
    began = time.monotonic()
    for _ in range(3):  # impatience makes it no longer
        hanging.send_signal(INT)
        time.sleep(0.3)
    _, errors = hanging.communicate(timeout=20)
    assert time.monotonic() - began < 10
    assert hanging.returncode == 26
    check_told(errors)
    assert "stopped by SIGTERM" in errors
    assert "the next run does that" in errors


def test_the_same_ctrl_c_twice_is_one(hanging: subprocess.Popen[str]) -> None:
    """As sudo and the terminal both pass it on."""
    hanging.send_signal(TERM)
    time.sleep(3)
    assert hanging.poll() is None


def test_clearing_up_that_fails_hides_no_signal() -> None:
    with _begun(clearing=0, ending="raise ValueError('of the clearing up')") as process:
        process.send_signal(INT)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 26
    check_told(errors)
    assert "stopped by SIGINT" in errors


@pytest.mark.parametrize("number", [TERM, INT])
def test_a_signal_while_it_starts(tmp_path: Path, number: signal.Signals) -> None:
    """It comes while a module is being imported, twice."""
    kill = f"import os; os.kill(os.getpid(), {number:d})\n"
    (tmp_path / "typer.py").write_text(kill * 2)
    env = {"PYTHONPATH": str(tmp_path)}
    done = run_drkit("info", env=env)
    assert done.returncode == 26
    check_told(done.stderr.decode())
    asked = run_drkit("info", "--output", "json", env=env)
    error = json.loads(asked.stderr)
    assert (asked.returncode, error["error"], error["exit_code"]) == (
        *(26, "Interrupted"),
        26,
    )
    assert number.name in error["message"]
