"""Progress of long work: bars on a terminal, events in logs otherwise."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

    from drkit.cli.logs import Log

_LOG_EVERY = 10.0  # seconds
_DRAW_EVERY = 0.1  # seconds


class LogProgress:
    """Tells phases and, now and then, how far they are, as log lines.

    Args:
        passing: whether phases are told only to those who debug.
    """

    def __init__(self, log: Log, *, passing: bool = False) -> None:
        self.log = log
        self._told = log.debug if passing else log.info
        self._counter = Counter(_LOG_EVERY)
        self._name = ""

    def phase(self, name: str, total: int | None = None) -> None:
        """Begin a phase."""
        self._name = name
        self._counter.restart(total)
        fields = {} if total is None else {"total_bytes": total}
        self._told("phase", phase=name, **fields)

    def advance(self, count: int) -> None:
        """Count bytes; tells about them at most every ten seconds."""
        if self._counter.add(count):
            self._tell()

    def event(self, name: str, **fields: object) -> None:
        """Log a fact."""
        self.log.info(name, **fields)

    def warning(self, message: str, **fields: object) -> None:
        """Log what a person must read."""
        self.log.warning(message, **fields)

    def close(self) -> None:
        """End; there is nothing to tidy up."""

    def _tell(self) -> None:
        done, total = self._counter.done, self._counter.total
        fields: dict[str, object] = {"done_bytes": done}
        if total:
            fields |= {"total_bytes": total, "percent": min(100, 100 * done // total)}
        self.log.info("progress", phase=self._name, **fields)


class BarProgress:
    """Draws a bar per phase on a terminal; events and warnings go to the log.

    Args:
        passing: whether the bars vanish at the end.
    """

    def __init__(self, log: Log, *, passing: bool = False) -> None:
        self.log = log
        self._counter = Counter(_DRAW_EVERY)
        self._bars = _bars(passing=passing)
        self._task: TaskID | None = None
        self._bars.start()

    def phase(self, name: str, total: int | None = None) -> None:
        """Begin a phase and finish the bar of the one before."""
        self._finish()
        self._counter.restart(total)
        self._task = self._bars.add_task(name, total=total, counts=total is not None)
        self.log.debug("phase", phase=name)

    def advance(self, count: int) -> None:
        """Count bytes; draws ten times a second at most."""
        if self._counter.add(count) and self._task is not None:
            self._bars.update(self._task, completed=self._counter.done)

    def event(self, name: str, **fields: object) -> None:
        """Log a fact."""
        self.log.info(name, **fields)

    def warning(self, message: str, **fields: object) -> None:
        """Log what a person must read, above the bar."""
        self.log.warning(message, **fields)

    def close(self) -> None:
        """Draw no more and give the terminal back."""
        self._bars.stop()

    def _finish(self) -> None:
        if self._task is not None:
            # An estimate may have been off by what vanished or grew meanwhile.
            done = self._counter.done or 1
            self._bars.update(self._task, total=done, completed=done)


class Counter:
    """Counts from several threads, and says when it is time to tell again."""

    def __init__(self, every: float) -> None:
        self._every = every
        self._lock = threading.Lock()
        self.done = 0
        self.total: int | None = None
        self._told = time.monotonic()

    def restart(self, total: int | None) -> None:
        """Begin at 0."""
        with self._lock:
            self.done, self.total, self._told = 0, total, time.monotonic()

    def add(self, count: int) -> bool:
        """Count; return whether `every` seconds have passed since it last said so."""
        with self._lock:
            self.done += count
            now = time.monotonic()
            if now - self._told < self._every:
                return False
            self._told = now
            return True


def _bars(*, passing: bool) -> RichProgress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        ProgressColumn,
        SpinnerColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
        TransferSpeedColumn,
    )

    class OfBytes(ProgressColumn):
        """Draws a column for phases that count bytes only."""

        def __init__(self, column: ProgressColumn) -> None:
            super().__init__()
            self._column = column

        def render(self, task: Task) -> RenderableType:
            return self._column.render(task) if task.fields["counts"] else ""

    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description:<8}"),
        OfBytes(BarColumn()),
        OfBytes(DownloadColumn(binary_units=True)),
        OfBytes(TransferSpeedColumn()),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=passing,
    )
