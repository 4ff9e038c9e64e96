"""How long a restore will take, by how long earlier ones took.

Each record that was measured gives its own rates: seconds per byte of the phase
`fetch`, seconds per WAL segment of the phase `replay`, and what everything else took. A
forecast puts the medians together, so that one run on a busy machine moves little. Its
error is how far such forecasts are off for the records themselves, each time made
without the one in question, and wider the fewer there are and the further today's
amounts lie from theirs.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log2
from statistics import median
from typing import TYPE_CHECKING

from drkit.model.evidence import Forecast

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from drkit.model.evidence import Record

NEWEST = 20
"""How many records count: machines and networks change."""

_PER_DOUBLING = 0.1  # of the seconds, for each time that an amount doubles or halves


@dataclass(frozen=True, slots=True)
class Amounts:
    """What a restore writes, reads and replays: bytes, and WAL segments."""

    written_bytes: int
    fetched_bytes: int
    wal_segments: int


@dataclass(frozen=True, slots=True)
class Run:
    """A restore that was measured; seconds.

    Attributes:
        rest: what neither fetching nor replaying took.
    """

    amounts: Amounts
    fetch: float
    replay: float
    rest: float

    @property
    def seconds(self) -> float:
        """Return what all of it took."""
        return self.fetch + self.replay + self.rest


def measured_runs(records: Iterable[Record]) -> list[Run]:
    """Return the newest restores whose recovery time was measured, oldest first.

    Args:
        records: in their order, others among them.
    """
    runs = [run for run in map(_run, records) if run is not None]
    return runs[-NEWEST:]


def forecast(
    records: Iterable[Record], written_bytes: int, fetched_bytes: int, wal_segments: int
) -> Forecast | None:
    """Return how long a restore will take, from the loss to a server that is ready.

    Args:
        records: earlier verifications and drills, in their order.
        written_bytes: of the restored data directory.
        fetched_bytes: to be read from the repository.
        wal_segments: to be replayed.

    Returns:
        None if nothing was measured yet.
    """
    return forecast_by(
        measured_runs(records), Amounts(written_bytes, fetched_bytes, wal_segments)
    )


def forecast_by(runs: Sequence[Run], wanted: Amounts) -> Forecast | None:
    """Return a forecast by runs that were measured; None if there are none."""
    if not runs:
        return None
    seconds = _predicted(runs, wanted)
    part = _spread(runs) + 1 / len(runs) + _PER_DOUBLING * _doublings(runs, wanted)
    return Forecast(seconds, seconds * part)


def _run(record: Record) -> Run | None:
    restored, rto = record.restored, record.rto
    if restored is None or rto is None or rto.measured is None or restored.bytes <= 0:
        return None
    fetch = sum(one.seconds for one in record.phases if one.name == "fetch")
    replay = sum(one.seconds for one in record.phases if one.name == "replay")
    if fetch <= 0:
        return None
    if not restored.wal_segments:  # then its time goes by no amount
        replay = 0.0
    amounts = Amounts(restored.bytes, restored.fetched_bytes, restored.wal_segments)
    return Run(amounts, fetch, replay, max(rto.measured - fetch - replay, 0.0))


def _predicted(runs: Sequence[Run], wanted: Amounts) -> float:
    """Return the seconds: each part by the median of its rates.

    A restore waits for the repository and for its own disk, and a run does not say for
    which; so half of `fetch` goes by the bytes read, and half by those written.
    """
    written = wanted.written_bytes * _rate(
        (run.fetch, run.amounts.written_bytes) for run in runs
    )
    read = wanted.fetched_bytes * _rate(
        (run.fetch, run.amounts.fetched_bytes) for run in runs
    )
    replay = wanted.wal_segments * _rate(
        (run.replay, run.amounts.wal_segments) for run in runs
    )
    return (written + (read or written)) / 2 + replay + median(run.rest for run in runs)


def _rate(parts: Iterable[tuple[float, int]]) -> float:
    """Return the median of the seconds that each took; 0 if none had anything to do."""
    rates = [seconds / amount for seconds, amount in parts if amount > 0]
    return median(rates) if rates else 0.0


def _spread(runs: Sequence[Run]) -> float:
    """Return by which part four of five forecasts are off at most.

    Each run is forecast by all others; one of five may have been disturbed.
    """
    if len(runs) < 2:
        return 0.0
    off = []
    for place, run in enumerate(runs):
        others = [*runs[:place], *runs[place + 1 :]]
        predicted = _predicted(others, run.amounts)
        off.append(abs(run.seconds - predicted) / predicted)
    return sorted(off)[ceil(len(off) * 0.8) - 1]


def _doublings(runs: Sequence[Run], wanted: Amounts) -> float:
    """Return how often an amount must double or halve to come to measured ones."""
    return max(
        _distance(getattr(wanted, name), [getattr(run.amounts, name) for run in runs])
        for name in Amounts.__slots__
    )


def _distance(amount: int, known: Sequence[int]) -> float:
    amount, least, most = max(amount, 1), max(min(known), 1), max(*known, 1)
    return max(log2(amount / most), log2(least / amount), 0.0)
