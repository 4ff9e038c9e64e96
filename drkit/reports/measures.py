"""Recovery time and recovery point: target against measured, trends, sizes."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from drkit.model.evidence import Outcome, RecordKind
from drkit.model.quarter import Quarter
from drkit.reports.report import (
    Figures,
    Objective,
    SizePoint,
    TrendQuarter,
    Verdict,
)
from drkit.reports.words import duration, plural, promise

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import timedelta

    from drkit.model.evidence import Measure, Record

    Of = Callable[[Record], Measure | None]

TREND_QUARTERS = 12


class _Judged(NamedTuple):
    """The figures that count, how many kept their own target, and how many are lost."""

    figures: list[float]
    met: int
    over: int
    unproven: int


def rto_of(record: Record) -> Measure | None:
    """Return a record's recovery time."""
    return record.rto


def rpo_of(record: Record) -> Measure | None:
    """Return a record's recovery point."""
    return record.rpo


def seconds(span: timedelta | None) -> float | None:
    """Return a length of time in seconds."""
    return None if span is None else span.total_seconds()


def objective(
    name: str, of: Of, exercises: Sequence[Record], target: float | None
) -> Objective:
    """Compare what a quarter's exercises measured with what is promised.

    A failed exercise proves no figure, however fast it was: it counts as unproven.
    """
    judged = _judge(of, exercises)
    worst = max(judged.figures, default=None)
    middle = median(judged.figures) if judged.figures else None
    verdict = _verdict(judged, worst, target)
    return Objective(
        name=name,
        target=target,
        measured=len(judged.figures),
        met=judged.met,
        unproven=judged.unproven,
        worst=worst,
        median=middle,
        verdict=verdict,
        sentence=_sentence(name, verdict, judged, target),
    )


def _judge(of: Of, exercises: Iterable[Record]) -> _Judged:
    figures, met, over, unproven = [], 0, 0, 0
    for record in exercises:
        measure = of(record)
        failed = record.outcome is Outcome.FAILED
        if failed or (measure is not None and measure.measured is None):
            unproven += 1
        elif measure is not None and measure.measured is not None:
            figures.append(measure.measured)
            met += measure.target is not None and not measure.missed
            over += measure.missed
    return _Judged(figures, met, over, unproven)


def _verdict(judged: _Judged, worst: float | None, target: float | None) -> Verdict:
    if worst is None:
        return Verdict.NOT_MEASURED
    if judged.over or (target is not None and worst > target):
        return Verdict.MISSED
    if target is None:
        return Verdict.NO_TARGET
    return Verdict.PARTLY if judged.unproven else Verdict.MET


def _sentence(
    name: str, verdict: Verdict, judged: _Judged, target: float | None
) -> str:
    if not judged.figures:
        lost = _lost(judged.unproven)
        return f"{name} was not measured{lost}."
    worst = duration(max(judged.figures))
    times = plural(len(judged.figures), "time")
    said = f"{name} was measured {times}, at worst {worst}"
    if verdict is Verdict.NO_TARGET:
        return f"{said}; no target is set{_lost(judged.unproven)}."
    told = f"the target of {promise(target)}" if target is not None else "its target"
    word = "over" if verdict is Verdict.MISSED else "within"
    return f"{said}, {word} {told}{_lost(judged.unproven)}."


def _lost(unproven: int) -> str:
    if not unproven:
        return ""
    return f"; {plural(unproven, 'exercise')} gave no proof"


def trend(records: Sequence[Record], last: Quarter) -> tuple[TrendQuarter, ...]:
    """Return twelve quarters up to `last`, oldest first, also those without records."""
    by_quarter: dict[Quarter, list[Record]] = {}
    for record in records:
        by_quarter.setdefault(Quarter.of(record.started), []).append(record)
    quarters = [last.back(count) for count in reversed(range(TREND_QUARTERS))]
    return tuple(_trend_quarter(one, by_quarter.get(one, [])) for one in quarters)


def _trend_quarter(quarter: Quarter, records: Sequence[Record]) -> TrendQuarter:
    failed = sum(record.outcome is Outcome.FAILED for record in records)
    rto, rpo = _figures(rto_of, records), _figures(rpo_of, records)
    return TrendQuarter(quarter, len(records), failed, rto, rpo)


def _figures(of: Of, records: Sequence[Record]) -> Figures:
    figures = _judge(of, records).figures
    measures = [measure for record in records if (measure := of(record)) is not None]
    targets = [one.target for one in measures if one.target is not None]
    return Figures(
        len(figures),
        max(figures, default=None),
        median(figures) if figures else None,
        targets[-1] if targets else None,
    )


def sizes(records: Iterable[Record], quarter: Quarter) -> tuple[SizePoint, ...]:
    """Return each proven restore's size and time."""
    return tuple(
        SizePoint(
            record.sequence,
            record.restored.bytes,
            record.rto.measured,
            record.kind is RecordKind.DRILL,
            record.started in quarter,
        )
        for record in records
        if record.restored is not None
        and record.outcome is not Outcome.FAILED
        and record.rto is not None
        and record.rto.measured is not None
    )
