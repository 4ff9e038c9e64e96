"""Logs and progress: correlated, parseable, without secrets."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING

import pytest

from drkit.cli.logs import Redactor, make_log
from drkit.cli.progress import BarProgress, Counter, LogProgress

if TYPE_CHECKING:
    from drkit.cli.logs import Log

SECRET = 'hunter2"\\\n☃'
KEY = "drkit-kek-1:backup:" + "ab" * 32


def log(log_format: str = "json", level: str = "info") -> Log:
    redactor = Redactor({SECRET, "correct horse"})
    return make_log(log_format, level, redactor, run="1234abcd", command="backup")


def test_lines_are_correlated(capsys: pytest.CaptureFixture[str]) -> None:
    log().bind(policy="alpha").info("phase", phase="copy", total_bytes=7)
    line = json.loads(capsys.readouterr().err)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "level": "info",
        "event": "phase",
        "run": "1234abcd",
        "command": "backup",
        "policy": "alpha",
        "phase": "copy",
        "total_bytes": 7,
    }


def test_text_lines_quote_what_needs_it(capsys: pytest.CaptureFixture[str]) -> None:
    log("text").warning("slow", path="/a b", empty="", name="x")
    line = capsys.readouterr().err
    assert (
        'warning slow path="/a b" empty="" name=x command=backup run=1234abcd' in line
    )


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_no_field_leaks(log_format: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        raise ValueError(f"password={SECRET} in {SECRET} and {KEY}")
    except ValueError as error:
        caught = error
    bound = log(log_format, "debug").bind(bound=SECRET)
    bound.failed("failed", caught)
    bound.debug(
        f"event {SECRET}",
        plain=SECRET,
        nested={"a": [SECRET, {"b": (KEY, b"correct horse")}], SECRET: 1},
        url="postgresql://me:s3cr3t-pw@host/db",
        conninfo="host=x password='s3cr3t-pw' user=y",
        failure=caught,
        signing="drkit-signing-1:" + "cd" * 32,
    )
    told = capsys.readouterr().err
    assert "Traceback" in told
    for leak in ("hunter2", "correct horse", "abab", "cdcd", "s3cr3t-pw"):
        assert leak not in told
    assert told.count("***") >= 10
    assert "me:***@host/db" in told


def test_levels(capsys: pytest.CaptureFixture[str]) -> None:
    quiet = log(level="warning")
    quiet.info("no")
    quiet.warning("yes")
    assert [
        json.loads(line)["event"] for line in capsys.readouterr().err.split("\n")[:-1]
    ] == ["yes"]


def test_progress_is_logged(capsys: pytest.CaptureFixture[str]) -> None:
    progress = LogProgress(log())
    progress.phase("copy", 1000)
    for _ in range(1000):
        progress.advance(1)
    progress.warning("bad page", file="base/1/1", block=3)
    progress.close()
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["event"] for line in lines] == ["phase", "bad page"]
    assert (lines[1]["level"], lines[1]["block"]) == ("warning", 3)


def test_a_counter_tells_now_and_then_and_loses_nothing() -> None:
    counter = Counter(0.0)
    assert counter.add(1)
    seldom = Counter(3600.0)
    seldom.restart(80_000)

    def count() -> None:
        for _ in range(10_000):
            assert not seldom.add(1)

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (seldom.done, seldom.total) == (80_000, 80_000)


def test_bars_draw_and_give_the_terminal_back(
    capsys: pytest.CaptureFixture[str],
) -> None:
    progress = BarProgress(log(level="warning"))
    try:
        progress.phase("copy", 10)
        progress.advance(10)
        progress.event("backup begun")
        progress.warning("careful")
        progress.phase("commit")
    finally:
        progress.close()
    told = capsys.readouterr().err
    assert "copy" in told
    assert "commit" in told
    assert '"careful"' in told
    assert "backup begun" not in told
