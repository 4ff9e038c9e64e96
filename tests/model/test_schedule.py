from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drkit.model.schedule import DAYS, Every, Schedule

BERLIN = ZoneInfo("Europe/Berlin")
DIVISORS = [m for m in range(1, 1441) if 1440 % m == 0]


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def due(schedule: Schedule, moment: datetime, count: int) -> list[datetime]:
    times = []
    for _ in range(count):
        moment = schedule.next_after(moment)
        times.append(moment)
    return times


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("sunday at 02:00", "sunday at 02:00"),
        ("Sunday AT 02:00", "sunday at 02:00"),
        ("daily at 01:30", "daily at 01:30"),
        ("every day at 01:30", "daily at 01:30"),
        ("every 15 minutes", "every 15 minutes"),
        ("hourly", "hourly"),
        ("every hour", "hourly"),
        ("every 60 minutes", "hourly"),
        ("every 6 hours", "every 6 hours"),
        ("thursday, monday at 23:00", "monday, thursday at 23:00"),
        ("every monday and thursday at 23:00", "monday, thursday at 23:00"),
        (", ".join(DAYS) + " at 00:00", "daily at 00:00"),
    ],
)
def test_read_and_written(text: str, normal: str) -> None:
    schedule = Schedule.parse(text)
    assert str(schedule) == normal
    assert Schedule.parse(str(schedule)) == schedule


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "is no schedule"),
        ("sometimes", "is no schedule"),
        ("0 2 * * 0", "is no schedule"),
        ("sunday", "is no schedule"),
        ("every sunday", "is no schedule"),
        ("at 02:00", "is no schedule"),
        ("sun at 02:00", "`sun` is no day"),
        ("caturday at 02:00", "`caturday` is no day"),
        ("sunday, sunday at 02:00", "names a day twice"),
        ("sunday at 2:00", "`2:00` is no time of day"),
        ("sunday at 24:00", "`24:00` is no time of day"),
        ("sunday at 2am", "`2am` is no time of day"),
        ("sunday at 02:60", "`02:60` is no time of day"),
        ("every 7 hours", "does not divide a day evenly"),
        ("every 2 days", "does not divide a day evenly"),
        ("every 30 seconds", "does not divide a day evenly"),
        ("every 15", "has no unit"),
        ("every 0 minutes", "no time at all"),
    ],
)
def test_refuses(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Schedule.parse(text)


@pytest.mark.parametrize(
    ("text", "after", "expected"),
    [
        # 2026-03-01 is a Sunday.
        ("sunday at 02:00", "2026-03-01T01:59", "2026-03-01T02:00"),
        ("sunday at 02:00", "2026-03-01T02:00", "2026-03-08T02:00"),
        ("monday, thursday at 23:00", "2026-03-02T23:00", "2026-03-05T23:00"),
        ("daily at 00:00", "2026-12-31T12:00", "2027-01-01T00:00"),
        ("every 15 minutes", "2026-03-01T10:00", "2026-03-01T10:15"),
        ("every 15 minutes", "2026-03-01T10:14:59", "2026-03-01T10:15"),
        ("hourly", "2026-03-01T23:00", "2026-03-02T00:00"),
        ("every 1 day", "2026-03-01T00:00", "2026-03-02T00:00"),
    ],
)
def test_next_in_utc(text: str, after: str, expected: str) -> None:
    assert Schedule.parse(text).next_after(utc(after)) == utc(expected)


@pytest.mark.parametrize(
    ("text", "after", "expected"),
    [
        # Clocks jump from 02:00 to 03:00 on 2026-03-29, at 01:00 UTC.
        ("daily at 04:00", "2026-03-28T12:00", "2026-03-29T02:00"),
        ("daily at 02:30", "2026-03-28T12:00", "2026-03-29T01:30"),
        ("daily at 02:30", "2026-03-29T01:30", "2026-03-30T00:30"),
        # Clocks fall from 03:00 to 02:00 on 2026-10-25, at 01:00 UTC.
        ("daily at 02:30", "2026-10-24T12:00", "2026-10-25T00:30"),
        ("daily at 02:30", "2026-10-25T00:30", "2026-10-26T01:30"),
        ("sunday at 03:30", "2026-10-25T00:30", "2026-10-25T02:30"),
    ],
)
def test_next_across_a_clock_change(text: str, after: str, expected: str) -> None:
    assert Schedule.parse(text, BERLIN).next_after(utc(after)) == utc(expected)


def test_the_answer_is_in_utc_so_that_subtracting_counts_real_time() -> None:
    found = Schedule.parse("daily at 04:00", BERLIN).next_after(
        datetime(2026, 3, 28, 4, tzinfo=BERLIN)
    )
    assert found.tzinfo is UTC
    assert found - utc("2026-03-28T03:00") == timedelta(hours=23)


@pytest.mark.parametrize("day", ["2026-03-28T23:00", "2026-10-24T22:00"])
def test_short_intervals_never_wait_longer_at_a_clock_change(day: str) -> None:
    schedule = Schedule.parse("every 15 minutes", BERLIN)
    times = due(schedule, utc(day), 110)
    assert {b - a for a, b in pairwise(times)} == {timedelta(minutes=15)}


def test_long_intervals_begin_again_at_midnight() -> None:
    times = due(Schedule.parse("every 6 hours", BERLIN), utc("2026-10-24T21:59"), 6)
    shown = [f"{moment.astimezone(BERLIN):%d %H:%M}" for moment in times]
    # The day of 25 hours has one more, an hour before midnight.
    assert shown == [
        "25 00:00", "25 05:00", "25 11:00", "25 17:00", "25 23:00", "26 00:00",
    ]  # fmt: skip


def test_clocks_that_fall_back_across_midnight_do_not_stop_the_schedule() -> None:
    # St. John's set 00:01 back to 23:01 of the day before, until 2011.
    zone = ZoneInfo("America/St_Johns")
    times = due(Schedule.parse("every 15 minutes", zone), utc("2010-11-07T02:00"), 20)
    gaps = {b - a for a, b in pairwise(times)}
    assert min(gaps) > timedelta(0)
    assert max(gaps) <= timedelta(minutes=15)


def test_a_day_that_a_zone_left_out() -> None:
    # Samoa had no 30 December 2011.
    zone = ZoneInfo("Pacific/Apia")
    times = due(Schedule.parse("daily at 12:00", zone), utc("2011-12-28T23:00"), 4)
    assert all(a < b for a, b in pairwise(times))


def test_a_moment_needs_a_zone() -> None:
    with pytest.raises(ValueError, match="without a zone"):
        Schedule.parse("hourly").next_after(datetime(2026, 1, 1))  # noqa: DTZ001


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"at": time(2)},
        {"days": (1,)},
        {"at": time(2), "days": (1,), "interval": timedelta(hours=1)},
    ],
)
def test_neither_and_both_are_no_schedule(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="either days with a time or an interval"):
        Schedule(**fields)  # type: ignore[arg-type]


schedules = st.one_of(
    st.builds(
        Schedule,
        at=st.times().map(lambda at: at.replace(second=0, microsecond=0)),
        days=st.sets(st.integers(0, 6), min_size=1).map(lambda d: tuple(sorted(d))),
    ),
    st.builds(
        Schedule,
        interval=st.sampled_from(DIVISORS).map(lambda m: timedelta(minutes=m)),
    ),
)


@given(schedules)
def test_every_schedule_reads_back(schedule: Schedule) -> None:
    assert Schedule.parse(str(schedule)) == schedule


@given(schedules, st.datetimes(datetime(2000, 1, 1), datetime(2037, 1, 1)))  # noqa: DTZ001
def test_always_later_and_at_the_time_asked_for(
    schedule: Schedule, moment: datetime
) -> None:
    after = moment.replace(tzinfo=UTC)
    found = schedule.in_zone(BERLIN).next_after(after)
    longest = timedelta(days=8) if schedule.interval is None else schedule.interval
    assert after < found <= after + longest
    local = found.astimezone(BERLIN)
    if schedule.interval is None and schedule.at is not None:
        assert local.weekday() in schedule.days
        wanted = datetime.combine(local.date(), schedule.at, tzinfo=BERLIN)
        # Equal as instants, also where the clock skipped the wanted time.
        assert wanted.astimezone(UTC) == found


@given(
    st.integers(1, 3 << 30).map(lambda s: datetime.fromtimestamp(s, UTC)),
    st.integers(1, 60 * 24 * 400),
)
def test_an_interval_is_due_within_itself_and_never_now(
    moment: datetime, minutes: int
) -> None:
    every = Every(timedelta(minutes=minutes))
    due = every.next_after(moment)
    assert timedelta() < due - moment <= every.interval
    assert every.next_after(due) - due == every.interval


def test_weeks_are_due_on_mondays() -> None:
    week = Every(timedelta(days=7))
    assert week.next_after(datetime(2026, 1, 15, tzinfo=UTC)).isoweekday() == 1
    assert str(week) == "every 7 days"
