"""Timing the phases of a recovery: by the clock here, and by the server's own log."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from drkit.model.evidence import Phase

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from drkit.operations.scratch.instance import Recovered
    from drkit.protocols import Clock, Progress

UNTIL_READY = ("detect", "decide", "plan", "fetch", "start", "replay", "promote")
"""The phases up to a server that takes writes; `ready` ends them."""


class Stopwatch:
    """Runs from the moment it is made; phases follow each other.

    Attributes:
        phases: those that have ended, in their order.
    """

    def __init__(self, clock: Clock, progress: Progress) -> None:
        self._clock = clock
        self._progress = progress
        self._zero = clock.monotonic()
        self.began = clock.now()
        self.phases: list[Phase] = []

    def elapsed(self) -> float:
        """Return the seconds since the beginning."""
        return self._clock.monotonic() - self._zero

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time a phase, also one that fails."""
        begin = self.elapsed()
        self._progress.phase(name)
        try:
            yield
        finally:
            self.phases.append(Phase(name, begin, self.elapsed() - begin))

    def recovery(self, begin: float, since: datetime, recovered: Recovered) -> None:
        """Add the phases that the server's log tells.

        Args:
            begin: seconds at which the server was being started, `since` by the clock.
        """
        ends = {
            "start": recovered.replay_began,
            "replay": recovered.replay_ended,
            "promote": recovered.ready,
        }
        last = self.elapsed()
        for name, moment in ends.items():
            if moment is None:  # there was nothing to replay
                continue
            first = max(begin, self._end())
            told = begin + (moment - since).total_seconds()
            seconds = max(min(told, last) - first, 0.0)  # two clocks: neither rules
            self.phases.append(Phase(name, first, seconds))

    def seconds(self, names: tuple[str, ...]) -> float:
        """Return how long phases of these names took together."""
        return sum(phase.seconds for phase in self.phases if phase.name in names)

    def _end(self) -> float:
        if not self.phases:
            return 0.0
        return self.phases[-1].begin + self.phases[-1].seconds
