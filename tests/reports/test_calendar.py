"""Gaps between proven restores, and verifications that were due."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from drkit.model.evidence import Outcome, Record
from drkit.model.schedule import Every, Schedule
from drkit.reports.calendar import calendar
from drkit.reports.report import Calendar, DayState, Gap
from tests.reports.history import LAST, history

RECORD = history().records[0]
END = LAST.end
DAYS = (LAST.last_day - LAST.first_day).days + 1


def proof(day: int, outcome: Outcome = Outcome.MET) -> Record:
    """A restore on a day of the quarter, counted from 0; before it, from -1 down."""
    started = LAST.begin + timedelta(days=day, hours=5)
    return replace(RECORD, started=started, outcome=outcome)


def laid_out(
    *records: Record, schedule: str | None = None, as_of: datetime = END
) -> Calendar:
    when = None if schedule is None else Schedule.parse(schedule)
    return calendar(records, LAST, as_of, when)


def test_a_week_is_no_gap_and_eight_days_are() -> None:
    weekly = [proof(day) for day in range(0, DAYS, 8)]
    assert laid_out(*weekly).gaps == ()
    (gap,) = laid_out(*weekly[:3], *weekly[4:]).gaps
    assert gap == Gap(date(2026, 1, 18), date(2026, 2, 1), 15)


def test_a_gap_that_began_before_the_quarter_is_counted_from_there() -> None:
    proofs = [proof(day) for day in range(5, DAYS, 7)]
    assert laid_out(*proofs).gaps == ()
    assert laid_out(proof(-2), *proofs).gaps == ()
    (gap,) = laid_out(proof(-20), *proofs).gaps
    assert gap == Gap(date(2026, 1, 1), date(2026, 1, 5), 5)


def test_an_interval_of_days_that_no_clock_divides() -> None:
    every = Every(timedelta(days=10))
    first = (every.next_after(LAST.begin) - LAST.begin).days
    proofs = [proof(day) for day in range(first, DAYS, 10)]
    found = calendar(proofs, LAST, END, every)
    assert found.gaps == ()
    assert "due every 10 days; more than 10 days without" in found.rule
    assert found.due == found.kept == len(proofs)
    (gap,) = calendar([*proofs[:3], *proofs[4:]], LAST, END, every).gaps
    assert gap.days == 19


def test_a_failed_restore_ends_no_gap() -> None:
    proofs = [proof(day) for day in range(0, DAYS, 7)]
    failed = proof(14, Outcome.FAILED)
    rest = [one for one in proofs if one.started != failed.started]
    found = laid_out(*rest, failed)
    assert [gap.days for gap in found.gaps] == [13]
    day = found.days[14]
    assert (day.state, day.gap) == (DayState.FAILED, True)


def test_the_schedule_decides_what_a_gap_is() -> None:
    proofs = [proof(day) for day in range(0, DAYS, 7)]
    assert laid_out(*proofs, schedule="thursday at 03:00").gaps == ()
    daily = laid_out(*proofs, schedule="daily at 03:00")
    assert len(daily.gaps) == len(proofs)
    assert (daily.due, daily.kept) == (DAYS, len(proofs))
    often = laid_out(*proofs, schedule="every 6 hours")
    assert (often.due, often.kept) == (4 * DAYS, len(proofs))


def test_the_future_is_no_gap() -> None:
    as_of = datetime(2026, 1, 6, 12, tzinfo=UTC)
    found = laid_out(proof(0), as_of=as_of, schedule="daily at 03:00")
    assert [day.state for day in found.days[5:8]] == [
        DayState.NONE,
        DayState.AHEAD,
        DayState.AHEAD,
    ]
    assert found.gaps == (Gap(date(2026, 1, 2), date(2026, 1, 6), 5),)
    assert (found.due, found.kept) == (6, 1)


def test_the_worst_of_a_day_is_shown() -> None:
    found = laid_out(proof(3), proof(3, Outcome.FAILED), proof(3, Outcome.MISSED))
    assert (found.days[3].state, found.days[3].exercises) == (DayState.FAILED, 3)


@given(st.sets(st.integers(-30, DAYS - 1)), st.integers(1, DAYS))
def test_gaps_are_the_days_far_from_any_proof(days: set[int], past: int) -> None:
    as_of = LAST.begin + timedelta(days=past)
    found = laid_out(*(proof(day) for day in sorted(days)), as_of=as_of)
    known = sorted(day for day in days if day < past)
    before = [day for day in known if day < 0]
    marks = [before[-1] if before else -1, *(day for day in known if day >= 0), past]
    expected = {
        day
        for sooner, later in itertools.pairwise(marks)
        if later - sooner - 1 > 7
        for day in range(max(sooner + 1, 0), later)
    }
    hatched = {place for place, day in enumerate(found.days) if day.gap}
    assert hatched == expected
    assert sum(gap.days for gap in found.gaps) == len(expected)


def test_nothing_was_missed_before_the_cluster_was_set_up() -> None:
    opened = END - timedelta(days=20)
    daily = Every(timedelta(days=1))
    whole, since = (calendar([], LAST, END, daily, start) for start in (None, opened))
    assert (whole.due, since.due) == (DAYS, 20)
    assert [gap.first for gap in since.gaps] == [opened.date()]
    assert calendar([proof(DAYS - 14)], LAST, END, None, opened).gaps == (
        Gap(date(2026, 3, 19), date(2026, 3, 31), 13),
    )
    assert calendar([], LAST, END, None, END - timedelta(days=5)).gaps == ()
