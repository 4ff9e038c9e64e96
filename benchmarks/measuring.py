"""Wall time, processor time and peak memory of a command and all it starts."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from drkit.errors import DrkitError
from drkit.postgres import process

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from drkit.postgres.process import Identity

INTERVAL = 0.02  # seconds between two looks at the memory, once it runs for a while
_FIRST = 0.0005  # seconds between the first two
_SLOWER = 1.1  # each wait is this much longer than the one before
_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICK = os.sysconf("SC_CLK_TCK")


class Sample(NamedTuple):
    """What one run of a command took.

    Attributes:
        seconds: by the wall, from before its start until it was reaped.
        cpu_seconds: in user and system mode, with every descendant that it waited for.
        peak_bytes: the most memory that its process tree held at one time.
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int


def measure(
    argv: Sequence[str],
    identity: Identity,
    env: Mapping[str, str],
    log_path: str,
    cwd: str = "/",
    *,
    watch_memory: bool = True,
) -> Sample:
    """Run a command to its end; what was written before is on disk when it starts.

    Args:
        argv: the program and its arguments.
        identity: whom to run it as.
        env: its whole environment.
        log_path: a file that takes its output; overwritten.
        cwd: its working directory.
        watch_memory: without it, `peak_bytes` is 0. Watching takes the processor for
            0.1 to 0.2 s, most of it while a command grows.

    Raises:
        DrkitError: it failed; the message holds the end of its output.
    """
    os.sync()
    with open(log_path, "wb") as log:
        begun = time.monotonic()
        output = log.fileno()
        child = process.spawn(argv, identity=identity, env=env, cwd=cwd, output=output)
        watch = _MemoryWatch(child.pid)
        try:
            if watch_memory:
                watch.start()
            # not Popen.wait: only wait4 tells the resources of this one child
            _, status, usage = os.wait4(child.pid, 0)
            seconds = time.monotonic() - begun
        except BaseException:
            process.kill_group(child)
            raise
        finally:
            watch.stop()
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        told = process.tail(Path(log_path).read_bytes())
        raise DrkitError(f"{' '.join(argv)} ended with {child.returncode}{told}")
    return Sample(seconds, usage.ru_utime + usage.ru_stime, watch.peak_bytes)


class _MemoryWatch:
    """Looks at the memory of a process and its descendants.

    At first every half millisecond, for a short command has grown and ended within a
    few; in the end every 20 ms, so as not to slow down what is measured.

    Resident sets (cheap to read) say when the tree is larger than ever; then the
    proportional set size is taken, in which a page that several processes share counts
    once. The kernel's own `ru_maxrss` would not do: it knows single processes only, and
    begins with the size of whoever called `exec`.
    """

    def __init__(self, pid: int) -> None:
        self.peak_bytes = 0
        self._pid = pid
        self._highest = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="memory")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        for pause in pauses():
            self._look()
            if self._stop.wait(pause):
                return

    def _look(self) -> None:
        pids = list(_tree(self._pid))
        resident = sum(_resident_bytes(pid) for pid in pids)
        if resident > self._highest:
            self._highest = resident
            held = sum(_proportional_bytes(pid) for pid in pids)
            self.peak_bytes = max(self.peak_bytes, held)


def pauses() -> Iterator[float]:
    """Yield the seconds to wait after each look at the memory, without end."""
    pause = _FIRST
    while True:
        yield pause
        pause = min(pause * _SLOWER, INTERVAL)


def _tree(pid: int) -> Iterator[int]:
    """Yield a process and its descendants, whichever of their threads started them."""
    yield pid
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            for child in _read(f"/proc/{pid}/task/{thread}/children").split():
                yield from _tree(int(child))


def _resident_bytes(pid: int) -> int:
    fields = _read(f"/proc/{pid}/statm").split()
    return int(fields[1]) * _PAGE if fields else 0


def _proportional_bytes(pid: int) -> int:
    for line in _read(f"/proc/{pid}/smaps_rollup").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def _read(path: str) -> str:
    """Return a file of `/proc`; empty when the process is gone."""
    try:
        with open(path, encoding="ascii") as file:
            return file.read()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def busy_cores(interval: float = 0.5) -> float:
    """Return how many cores the whole machine keeps busy, over `interval` seconds."""
    before = _busy_ticks()
    time.sleep(interval)
    return max(_busy_ticks() - before, 0) / _TICK / interval


def _busy_ticks() -> int:
    """Sum what `/proc/stat` counts as work: everything but idle and waiting for I/O."""
    fields = [int(field) for field in _read("/proc/stat").splitlines()[0].split()[1:9]]
    return sum(fields) - fields[3] - fields[4]
