"""A process that takes backups in forks of itself, so that they can be killed.

Reads requests, one JSON object per line, and answers each with how the fork ended:

    {"policy": "/…/main.yaml", "source": "local", "kill": ["any", 7, false]}
    {"status": -9, "calls": null}

Forking saves the imports, which take longer than a small backup.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drkit.cli.session import Options, Session, run_session
from drkit.config.loading import load_policy
from drkit.model.label import BackupKind
from tests.operations import badblocks
from tests.operations.backup_tools import Listener, site_of

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Ended:
    """How a backup ended.

    Attributes:
        status: the exit code, or minus the signal.
        puts, calls: of storage, if it came to an end.
        stderr: what it said.
    """

    status: int
    puts: int
    calls: int
    stderr: str


class Backups:
    """Starts backups in children of one process; a context manager."""

    def __init__(self, policy: Path, directory: Path) -> None:
        self._policy = policy
        self._directory = directory

    def __enter__(self) -> Backups:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __spec__.name, str(self._directory)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=60)

    def start(self, source: str, **request: Any) -> int:
        """Start a backup and return its process id; `ended` must follow.

        Args:
            source: `local` or `stream`; with `+incr` behind it for an incremental.
            request: `kill` as (method, at, after); `put_delay` in seconds;
                `read_errors_from`, a position in files from which on reads fail.
        """
        source, _, kind = source.partition("+")
        asked = {"policy": str(self._policy), "source": source, "kind": kind or "full"}
        asked |= request
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        return int(self._answer())

    def ended(self) -> Ended:
        """Wait until the backup that was started has ended."""
        found = json.loads(self._answer())
        counts = self._directory / "counts"
        puts = calls = 0
        if counts.exists():
            puts, calls = json.loads(counts.read_text())
            counts.unlink()
        stderr = (self._directory / "stderr").read_text()
        return Ended(found, puts, calls, stderr)

    def run(self, source: str, **request: Any) -> Ended:
        """Take a backup to its end, be it sudden."""
        self.start(source, **request)
        return self.ended()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the process that forks backups has died"
        return line


def serve(directory: Path) -> None:
    """Answer requests until standard input ends."""
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            code = 99
            try:
                code = _back_up(json.loads(line), directory)
            finally:
                sys.stderr.flush()
                os._exit(code)
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _back_up(request: dict[str, Any], directory: Path) -> int:
    mode = os.O_CREAT | os.O_TRUNC | os.O_WRONLY
    os.dup2(os.open(directory / "stderr", mode, 0o600), 2)
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    session = Session("backup", Options(), {})
    return run_session(session, _take, {"request": request, "directory": directory})


def _take(session: Session, request: dict[str, Any], directory: Path) -> int:
    site = site_of(load_policy(request["policy"], {}), request["source"])
    site.jobs = request.get("jobs", 1)
    if "kill" in request:
        method, at, after = request["kill"]
        site.storage.kill(method, at, after=after)
    if "put_delay" in request:
        site.storage.delay("put", request["put_delay"])
    if "read_errors_from" in request:
        badblocks.fail_reads_from(request["read_errors_from"])
    site.take(Listener(), BackupKind(request["kind"]))
    counts = [site.storage.calls["put"], site.storage.calls.total()]
    (directory / "counts").write_text(json.dumps(counts))
    return 0


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
