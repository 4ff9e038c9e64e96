"""Axes with round numbers."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

_TIME_STEPS = (
    *(0.001 * step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500)),
    *(1, 2, 5, 10, 15, 30),
    *(60 * step for step in (1, 2, 5, 10, 15, 30)),
    *(3600 * step for step in (1, 2, 3, 6, 12)),
    *(86400 * step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)),
)
_BYTE_STEPS = tuple(
    1024**power * step
    for power, step in itertools.product(range(7), (1, 2, 5, 10, 20, 50, 100, 200, 500))
)
_MOST_TICKS = 6


@dataclass(frozen=True, slots=True)
class Scale:
    """A linear scale from 0: figures to positions.

    Attributes:
        begin, end: the positions of 0 and of `highest`.
        ticks: round figures from 0 on.
    """

    highest: float
    begin: float
    end: float
    ticks: tuple[float, ...]

    def __call__(self, figure: float) -> float:
        """Return a figure's position."""
        share = min(max(figure / self.highest, 0.0), 1.0)
        return self.begin + (self.end - self.begin) * share


def time_scale(highest: float, begin: float, end: float) -> Scale:
    """Return a scale for seconds."""
    return _scale(highest, begin, end, _TIME_STEPS)


def byte_scale(highest: float, begin: float, end: float) -> Scale:
    """Return a scale for bytes."""
    return _scale(highest, begin, end, _BYTE_STEPS)


def _scale(highest: float, begin: float, end: float, steps: tuple[float, ...]) -> Scale:
    top = max(highest, steps[0])
    step = next((one for one in steps if top / one <= _MOST_TICKS), top / _MOST_TICKS)
    count = int(top / step + 1e-9)
    return Scale(top, begin, end, tuple(step * tick for tick in range(count + 1)))
