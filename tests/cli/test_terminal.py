"""What a person at a terminal sees besides the result."""

from __future__ import annotations

import os
import pty
import re
import subprocess
from typing import TYPE_CHECKING

from tests.pg import drkit_command

if TYPE_CHECKING:
    from tests.cli.site import ServedSite

_UP_AND_ERASE = "\x1b[1A\x1b[2K"
_SUMMARY = "alpha is ready: "


def test_nothing_stands_before_the_table_of_check(served: ServedSite) -> None:
    words = ("check", "alpha")
    done = served.site.drkit(*words)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"ok       policy")
    shown = on_terminal("check", str(served.site.policy))
    assert _SUMMARY in shown
    before, _, _ = shown.partition("ok       policy")
    lines = before.rpartition(_UP_AND_ERASE)
    assert lines[1]  # what was drawn is erased, up to the first line
    assert "check" not in lines[2]
    assert "bytes" not in before


def test_who_asks_for_logs_gets_them(served: ServedSite) -> None:
    for asked in (("--log-format", "json"), ("--log-level", "info")):
        done = served.site.drkit("check", "alpha", *asked)
        assert done.stderr.count(b"check WAL round trip") == 1
    quiet = served.site.drkit("check", "alpha", "--log-level", "warning")
    assert quiet.stderr == b""


def test_backup_and_info_tell_the_same_length(served: ServedSite) -> None:
    told = served.site.drkit("backup", "alpha").stdout.decode()
    match = re.search(r"^  took +(\S+ \w+); ", told, re.MULTILINE)
    assert match is not None
    shown = served.site.drkit("info", "alpha").stdout.decode()
    assert f"  {match[1]}  " in shown


def on_terminal(*words: str) -> str:
    """Run a command on a terminal of its own; return everything written there."""
    ours, theirs = pty.openpty()
    env = os.environ | {"TERM": "xterm", "COLUMNS": "200"}
    process = subprocess.Popen(
        drkit_command(*words), stdin=theirs, stdout=theirs, stderr=theirs, env=env
    )
    os.close(theirs)
    pieces = []
    try:
        while piece := os.read(ours, 1 << 16):
            pieces.append(piece)
    except OSError:  # nobody has it open any more
        os.close(ours)
    assert process.wait(30) == 0
    return b"".join(pieces).decode()
