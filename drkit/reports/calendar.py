"""The days of a quarter on which restores were proven, and the gaps between them."""

from __future__ import annotations

import bisect
import itertools
from datetime import UTC, date, timedelta
from typing import TYPE_CHECKING

from drkit.model.evidence import Outcome, RecordKind
from drkit.model.schedule import Every
from drkit.reports.report import Calendar, Day, DayState, Gap
from drkit.reports.words import plural

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from drkit.model.evidence import Record
    from drkit.model.quarter import Quarter
    from drkit.model.schedule import Schedule

USUAL_GAP = 7
"""Days without a proven restore that count as a gap where no schedule says more."""

_DAY = timedelta(days=1)
_WORST = (DayState.FAILED, DayState.MISSED, DayState.MET)
_STATES = {
    Outcome.MET: DayState.MET,
    Outcome.MISSED: DayState.MISSED,
    Outcome.FAILED: DayState.FAILED,
}


def calendar(
    records: Sequence[Record],
    quarter: Quarter,
    as_of: datetime,
    schedule: Schedule | Every | None,
    opened: datetime | None = None,
) -> Calendar:
    """Lay the quarter's exercises out by day; `records` are of all time.

    Args:
        opened: when the cluster was set up; nobody could verify anything before.
    """
    until = min(quarter.end, as_of)
    longest = _longest_wait(schedule, quarter, until)
    first = max(quarter.begin, opened or quarter.begin)
    gaps = tuple(_gaps(records, quarter, first, until, longest))
    inside = [record for record in records if record.started in quarter]
    days = tuple(_days(inside, quarter, until, gaps))
    due = kept = None
    if schedule is not None:
        due, kept = _due(inside, schedule, first, until)
    rule = _rule(schedule, longest)
    return Calendar(days, gaps, rule, due, kept, _sentence(gaps, due, kept))


def day_of(moment: datetime) -> date:
    """Return the day of a moment, in UTC."""
    return moment.astimezone(UTC).date()


def proves(record: Record) -> bool:
    """Say whether a restore was carried through and all its checks passed."""
    return record.restored is not None and record.outcome is not Outcome.FAILED


def _longest_wait(
    schedule: Schedule | Every | None, quarter: Quarter, until: datetime
) -> int:
    """Return how many days without a proof are no gap yet."""
    if schedule is None:
        return USUAL_GAP
    if isinstance(schedule, Every):
        return schedule.interval.days or 1
    dues = _dues(schedule, quarter.begin, max(until, quarter.begin + 9 * _DAY))
    waits = [later - sooner for sooner, later in itertools.pairwise(dues)]
    return max((wait.days for wait in waits), default=USUAL_GAP) or 1


def _rule(schedule: Schedule | Every | None, longest: int) -> str:
    if schedule is None:
        return (
            "No schedule of verifications is set; more than "
            f"{plural(longest, 'day')} without a proven restore is shown as a gap."
        )
    return (
        f"Verifications are due {schedule}; more than {plural(longest, 'day')} without "
        "a proven restore is shown as a gap."
    )


def _sentence(gaps: Sequence[Gap], due: int | None, kept: int | None) -> str:
    told = ""
    if due is not None:
        told = f"{kept} of {plural(due, 'scheduled verification')} were carried out. "
    if not gaps:
        return f"{told}There was no gap."
    longest = max(gaps, key=lambda gap: gap.days)
    verb = "was" if len(gaps) == 1 else "were"
    return (
        f"{told}There {verb} {plural(len(gaps), 'gap')}, "
        f"the longest of {plural(longest.days, 'day')} "
        f"({longest.first} to {longest.last})."
    )


def _gaps(
    records: Sequence[Record],
    quarter: Quarter,
    begin: datetime,
    until: datetime,
    longest: int,
) -> Iterator[Gap]:
    """Yield the stretches of days in the quarter without a proof.

    A stretch may have begun before the quarter, and is then counted from there if
    there ever was a proof; what lies outside of the quarter is not shown.
    """
    if until <= begin:
        return
    last = day_of(until - timedelta(microseconds=1))
    proofs = sorted({day_of(one.started) for one in records if proves(one)})
    before = [proof for proof in proofs if proof < quarter.first_day]
    inside = [proof for proof in proofs if quarter.first_day <= proof <= last]
    since = before[-1] if before else day_of(begin) - _DAY
    for proof in [*inside, last + _DAY]:
        first = max(since + _DAY, quarter.first_day)
        wait = (proof - since).days - 1
        if wait > longest and proof > first:
            yield Gap(first, proof - _DAY, (proof - first).days)
        since = proof


def _days(
    records: Sequence[Record], quarter: Quarter, until: datetime, gaps: Sequence[Gap]
) -> Iterator[Day]:
    by_day: dict[date, list[Record]] = {}
    for record in records:
        by_day.setdefault(day_of(record.started), []).append(record)
    day = quarter.first_day
    while day <= quarter.last_day:
        yield _day(day, by_day.get(day, []), until, gaps)
        day += _DAY


def _day(
    day: date, records: Sequence[Record], until: datetime, gaps: Sequence[Gap]
) -> Day:
    states = {_STATES[record.outcome] for record in records}
    ahead = day > day_of(until - timedelta(microseconds=1))
    empty = DayState.AHEAD if ahead else DayState.NONE
    return Day(
        date=day,
        state=next((state for state in _WORST if state in states), empty),
        exercises=len(records),
        drill=any(record.kind is RecordKind.DRILL for record in records),
        gap=any(gap.first <= day <= gap.last for gap in gaps),
    )


def _due(
    records: Sequence[Record],
    schedule: Schedule | Every,
    begin: datetime,
    until: datetime,
) -> tuple[int, int]:
    """Return how many times were due, and before how many of the next one ran."""
    dues = _dues(schedule, begin, until)
    started = [record.started for record in records]
    # The due time that each exercise came after; 0 stands for none in the quarter.
    served = {bisect.bisect_right(dues, moment) for moment in started if moment < until}
    return len(dues), len(served - {0})


def _dues(
    schedule: Schedule | Every, begin: datetime, until: datetime
) -> list[datetime]:
    found = []
    due = schedule.next_after(begin - timedelta(microseconds=1))
    while due < until:
        found.append(due)
        due = schedule.next_after(due)
    return found
