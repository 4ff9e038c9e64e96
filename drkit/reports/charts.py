"""The report's charts. None needs colour: shape, pattern, place and words say it."""

from __future__ import annotations

from datetime import date, timedelta
from typing import TYPE_CHECKING

from drkit.reports.report import Day, DayState
from drkit.reports.scales import byte_scale, time_scale
from drkit.reports.svg import Drawing, cut
from drkit.reports.words import duration, promise, size

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from drkit.model.evidence import Measure, Phase, Record
    from drkit.model.quarter import Quarter
    from drkit.reports.report import (
        Calendar,
        Figures,
        Objective,
        SizePoint,
        TrendQuarter,
    )
    from drkit.reports.scales import Scale

WIDTH = 720.0
_ROW = 22.0
_LABELS = 150.0
_VALUES = 96.0
_TREND_HEIGHT = 190.0
_SIZES_HEIGHT = 230.0
_CELL = 46.0
_CELL_HEIGHT = 22.0
_HATCH = 6.0


def gantt(record: Record) -> Drawing:
    """Draw a record's phases over time, with the target of the recovery time."""
    phases = record.phases
    target = record.rto.target if record.rto is not None else None
    end = max([one.begin + one.seconds for one in phases] + [target or 0.0])
    scale = time_scale(end, _LABELS, WIDTH - _VALUES)
    height = len(phases) * _ROW + 44
    told = ", ".join(f"{one.name} {duration(one.seconds)}" for one in phases)
    drawing = Drawing(WIDTH, height, f"Timeline of record {record.sequence}: {told}")
    bottom = height - 22
    _time_axis(drawing, scale, 18, bottom)
    if record.rto is not None and target is not None:
        _rto_line(drawing, scale, record.rto, bottom)
    for number, phase in enumerate(phases):
        _phase(drawing, scale, phase, 20 + number * _ROW)
    return drawing


def _time_axis(drawing: Drawing, scale: Scale, top: float, bottom: float) -> None:
    for tick in scale.ticks:
        x = scale(tick)
        drawing.line(x, top, x, bottom, "s-line")
        drawing.text(x, bottom + 15, _tick(tick, promise), "t-soft", "middle")


def _phase(drawing: Drawing, scale: Scale, phase: Phase, y: float) -> None:
    left, right = scale(phase.begin), scale(phase.begin + phase.seconds)
    drawing.text(_LABELS - 10, y + 15, cut(phase.name, 22), "t", "end")
    drawing.rect(left, y + 4, max(right - left, 2.0), _ROW - 8, "f-accent", 2)
    drawing.text(
        max(right, left + 2) + 6, y + 15, duration(phase.seconds), "t-soft t-halo"
    )


def _rto_line(drawing: Drawing, scale: Scale, rto: Measure, bottom: float) -> None:
    x = scale(rto.target or 0.0)
    drawing.line(x, 16, x, bottom, "d-bad")
    anchor = "end" if x > WIDTH / 2 else "start"
    told = f"RTO target {promise(rto.target)}, measured {duration(rto.measured)}"
    drawing.text(x + (-4 if anchor == "end" else 4), 11, told, "t-bold", anchor)


def trend(
    name: str, of: Callable[[TrendQuarter], Figures], quarters: Sequence[TrendQuarter]
) -> Drawing:
    """Draw an objective's worst and median over quarters, and what was promised."""
    figures = [of(one) for one in quarters]
    known = [each for one in figures for each in (one.worst, one.target) if each]
    scale = time_scale(max(known, default=1.0), _TREND_HEIGHT - 34, 34)
    told = ", ".join(
        f"{one.quarter}: {duration(each.worst)}"
        for one, each in zip(quarters, figures, strict=True)
    )
    drawing = Drawing(WIDTH, _TREND_HEIGHT, f"Worst {name} by quarter: {told}")
    for tick in scale.ticks:
        drawing.line(64, scale(tick), WIDTH, scale(tick), "s-line")
        drawing.text(58, scale(tick) + 4, _tick(tick, promise), "t-soft", "end")
    step = (WIDTH - 70) / len(quarters)
    _targets(drawing, scale, figures, step)
    for place, (one, each) in enumerate(zip(quarters, figures, strict=True)):
        x = 70 + step * (place + 0.5)
        _trend_point(drawing, scale, each, x)
        _quarter_label(drawing, one.quarter, x, named=place == 0)
    _trend_legend(drawing)
    return drawing


def _quarter_label(
    drawing: Drawing, quarter: Quarter, x: float, *, named: bool
) -> None:
    """Write a quarter below the axis, and its year where that begins."""
    y = _TREND_HEIGHT - 18
    drawing.text(x, y, f"Q{quarter.number}", "t-soft", "middle")
    if named or quarter.number == 1:
        drawing.text(x, y + 14, str(quarter.year), "t-soft", "middle")


def _targets(
    drawing: Drawing, scale: Scale, figures: Sequence[Figures], step: float
) -> None:
    """Draw what was promised as one line, as long as something was."""
    points: list[tuple[float, float]] = []
    for place, each in enumerate((*figures, None)):
        if each is not None and each.target is not None:
            x, y = 70 + step * place, scale(each.target)
            points += [(x, y), (x + step, y)]
        elif points:
            drawing.path(points, "d-bad")
            points = []


def _tick(figure: float, write: Callable[[float], str]) -> str:
    """Write a round figure of an axis, without a fraction that is nothing."""
    return write(figure).replace(".0 ", " ") if figure else "0"


def _trend_point(drawing: Drawing, scale: Scale, each: Figures, x: float) -> None:
    if each.worst is None or each.median is None:
        drawing.text(x, scale(0) - 18, "not", "t-soft", "middle")
        drawing.text(x, scale(0) - 6, "measured", "t-soft", "middle")
        return
    worst, middle = scale(each.worst), scale(each.median)
    drawing.line(x, worst, x, middle, "s-soft")
    over = each.target is not None and each.worst > each.target
    _triangle(drawing, x, worst, "f-bad" if over else "f-accent")
    drawing.circle(x, middle, 4, "o-accent")


def _trend_legend(drawing: Drawing) -> None:
    _triangle(drawing, 72, 12, "f-accent")
    drawing.text(82, 16, "worst")
    drawing.circle(140, 12, 4, "o-accent")
    drawing.text(150, 16, "median")
    drawing.line(212, 12, 236, 12, "d-bad")
    drawing.text(242, 16, "target")


def _triangle(drawing: Drawing, x: float, y: float, kind: str) -> None:
    drawing.path([(x, y - 6), (x + 6, y + 5), (x - 6, y + 5)], kind)


def sizes(points: Sequence[SizePoint]) -> Drawing:
    """Draw restore time against the size of what was restored."""
    largest = max((one.bytes for one in points), default=0)
    longest = max((one.seconds for one in points), default=0.0)
    across = byte_scale(largest, 76, WIDTH - 30)
    up = time_scale(longest, _SIZES_HEIGHT - 40, 34)
    told = f"Time to restore against size, {len(points)} restores"
    drawing = Drawing(WIDTH, _SIZES_HEIGHT, told)
    for tick in up.ticks:
        drawing.line(70, up(tick), WIDTH - 20, up(tick), "s-line")
        drawing.text(64, up(tick) + 4, _tick(tick, promise), "t-soft", "end")
    for tick in across.ticks:
        x = across(tick)
        drawing.line(x, 34, x, _SIZES_HEIGHT - 40, "s-line")
        drawing.text(x, _SIZES_HEIGHT - 22, _tick(tick, size), "t-soft", "middle")
    drawing.text(
        WIDTH / 2, _SIZES_HEIGHT - 5, "size of the restored cluster", "t-soft", "middle"
    )
    for one in sorted(points, key=lambda one: one.current):
        kind = "f-accent" if one.current else "o-soft"
        _size_point(drawing, across(one.bytes), up(one.seconds), kind, drill=one.drill)
    _sizes_legend(drawing)
    return drawing


def _size_point(
    drawing: Drawing, x: float, y: float, kind: str, *, drill: bool
) -> None:
    if drill:
        drawing.rect(x - 4.5, y - 4.5, 9, 9, kind)
    else:
        drawing.circle(x, y, 3.5, kind)


def _sizes_legend(drawing: Drawing) -> None:
    _size_point(drawing, 76, 12, "f-accent", drill=True)
    drawing.text(86, 16, "drill")
    _size_point(drawing, 130, 12, "f-accent", drill=False)
    drawing.text(139, 16, "verification")
    _size_point(drawing, 222, 12, "o-soft", drill=True)
    _size_point(drawing, 236, 12, "o-soft", drill=False)
    drawing.text(246, 16, "in earlier quarters")


_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MARKS = {
    DayState.MET: ("f-tint", "✓"),
    DayState.MISSED: ("f-warn", "!"),
    DayState.FAILED: ("f-bad", "✗"),
    DayState.NONE: ("o-line", ""),
    DayState.AHEAD: ("", ""),
}


def calendar(found: Calendar) -> Drawing:
    """Draw each day of the quarter, weeks from left to right."""
    first = found.days[0].date
    monday = first - timedelta(days=first.weekday())
    marked = [one for one in found.days if one.exercises]
    told = ", ".join(f"{one.date} {one.state}" for one in marked) or "none"
    drawing = Drawing(WIDTH, 7 * _CELL_HEIGHT + 62, f"Days with exercises: {told}")
    for number, name in enumerate(_WEEKDAYS):
        y = 20 + number * _CELL_HEIGHT
        drawing.text(32, y + 15, name, "t-soft", "end")
    for one in found.days:
        week, weekday = divmod((one.date - monday).days, 7)
        x, y = 42 + week * _CELL, 20 + weekday * _CELL_HEIGHT
        if one.date.day == 1:
            drawing.text(x, 12, f"{one.date:%B}", "t-bold")
        _cell(drawing, one, x, y)
    _calendar_legend(drawing, 7 * _CELL_HEIGHT + 38)
    return drawing


def _cell(drawing: Drawing, one: Day, x: float, y: float) -> None:
    width, height = _CELL - 4, _CELL_HEIGHT - 4
    kind, mark = _MARKS[one.state]
    if not kind:
        drawing.text(x + width / 2, y + 13, "·", "t-soft", "middle")
        return
    drawing.rect(x, y, width, height, kind, 2)
    if one.gap and one.state is DayState.NONE:
        _hatch(drawing, x, y, width, height)
    if mark:
        plain = one.state is DayState.MET
        told = f"{mark} D" if one.drill else mark
        drawing.text(
            x + width / 2, y + 13.5, told, "t-bold" if plain else "t-paper", "middle"
        )
    if one.drill:
        drawing.rect(x, y, width, height, "s-ink", 2)


def _hatch(drawing: Drawing, x: float, y: float, width: float, height: float) -> None:
    """Draw slanted lines inside a rectangle."""
    offset = _HATCH
    while offset < width + height:
        x1, y1 = x + min(offset, width), y + max(0.0, offset - width)
        x2, y2 = x + max(0.0, offset - height), y + min(offset, height)
        drawing.line(x1, y1, x2, y2, "h-soft")
        offset += _HATCH


def _calendar_legend(drawing: Drawing, y: float) -> None:
    x = 42.0
    for state, told in (
        (DayState.MET, "proven"),
        (DayState.MISSED, "objective missed"),
        (DayState.FAILED, "failed"),
        (DayState.NONE, "no exercise"),
    ):
        _cell(drawing, Day(date.min, state, 0, drill=False, gap=False), x, y)
        drawing.text(x + _CELL + 2, y + 13.5, told, "t")
        x += _CELL + 14 + 6.2 * len(told)
    drawing.rect(x, y, _CELL - 4, _CELL_HEIGHT - 4, "o-line", 2)
    _hatch(drawing, x, y, _CELL - 4, _CELL_HEIGHT - 4)
    drawing.text(x + _CELL + 2, y + 13.5, "gap")
    x += _CELL + 34
    drawing.rect(x, y, _CELL - 4, _CELL_HEIGHT - 4, "s-ink", 2)
    drawing.text(x + _CELL / 2 - 2, y + 13.5, "D", "t-bold", "middle")
    drawing.text(x + _CELL + 2, y + 13.5, "drill")


def target(objective: Objective) -> Drawing:
    """Draw the worst and the median of a quarter as a bar against its target."""
    known = [each for each in (objective.worst, objective.target) if each]
    scale = time_scale(max(known, default=1.0) * 1.05, 4, 236)
    told = f"{objective.name}: worst {duration(objective.worst)}"
    told += f", target {promise(objective.target)}"
    drawing = Drawing(240, 26, told)
    drawing.rect(4, 8, 232, 10, "f-line", 2)
    if objective.worst is not None and objective.median is not None:
        over = objective.target is not None and objective.worst > objective.target
        width = max(scale(objective.worst) - 4, 2.0)
        drawing.rect(4, 8, width, 10, "f-bad" if over else "f-accent", 2)
        drawing.circle(scale(objective.median), 13, 3.5, "o-ink")
    if objective.target is not None:
        x = scale(objective.target)
        drawing.line(x, 2, x, 24, "s-ink")
    return drawing


def rto_figures(one: TrendQuarter) -> Figures:
    """Return a quarter's recovery times."""
    return one.rto


def rpo_figures(one: TrendQuarter) -> Figures:
    """Return a quarter's recovery points."""
    return one.rpo
