"""When work is due: `sunday at 02:00`, `daily at 01:30`, `every 15 minutes`, `hourly`.

Times of day are wall-clock times of the schedule's zone. Where daylight saving skips
one, the work is due as much later as the clock jumped; where it repeats one, the first
of the two counts, so that nothing is left out or run twice.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time, timedelta, tzinfo

from drkit.model.duration import format_duration, parse_duration

DAYS = (
    "monday",
    "tuesday",
    "wednesday",
    "thursday",
    "friday",
    "saturday",
    "sunday",
)
_AT = re.compile(r"(?P<days>.+?)\s+at\s+(?P<time>\S+)\Z")
_TIME = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])\Z")
_SPLIT = re.compile(r"\s*,\s*(?:and\s+)?|\s+and\s+")
_DAY = timedelta(days=1)
_HOUR = timedelta(hours=1)
_MINUTE = timedelta(minutes=1)
_MONDAY = datetime(2001, 1, 1, tzinfo=UTC)
_EXAMPLES = (
    "write `sunday at 02:00`, `monday, thursday at 23:00`, `daily at 01:30`, "
    "`hourly` or `every 15 minutes`"
)


@dataclass(frozen=True, slots=True)
class Schedule:
    """Either days of the week with a time of day, or an interval.

    Intervals count from midnight of the zone, so `every 6 hours` is due at 00:00,
    06:00, 12:00 and 18:00; on the days of a clock change the last one before midnight
    is shorter or an extra one falls due, never a longer wait.

    Attributes:
        at: the time of day, without seconds; None for an interval.
        days: 0 for Monday to 6 for Sunday, ascending; empty for an interval.
        interval: a divisor of a day, in whole minutes; None for days.
        zone: whose midnight and wall clock count.
    """

    at: time | None = None
    days: tuple[int, ...] = ()
    interval: timedelta | None = None
    zone: tzinfo = UTC

    def __post_init__(self) -> None:
        by_day = self.at is not None and bool(self.days)
        if by_day == (self.interval is not None):
            raise ValueError("a schedule has either days with a time or an interval")

    @classmethod
    def parse(cls, text: str, zone: tzinfo = UTC) -> Schedule:
        """Read a schedule, in any case.

        Raises:
            ValueError: not one of the forms above; the message shows them.
        """
        source = " ".join(text.lower().split())
        if source == "hourly":
            return cls(interval=_HOUR, zone=zone)
        match = _AT.match(source.removeprefix("every "))
        if match is None and source.startswith("every "):
            return cls(interval=_interval(source, text), zone=zone)
        if match is None:
            raise ValueError(f"{text!r} is no schedule; {_EXAMPLES}")
        days = _days(match["days"], text)
        return cls(at=_time(match["time"], text), days=days, zone=zone)

    def in_zone(self, zone: tzinfo) -> Schedule:
        """Return the same schedule by the wall clock of another zone."""
        return replace(self, zone=zone)

    def next_after(self, moment: datetime) -> datetime:
        """Return the first due time strictly after `moment`, in UTC.

        Raises:
            ValueError: `moment` has no zone.
        """
        if moment.utcoffset() is None:
            raise ValueError("a moment without a zone can't be scheduled from")
        after = moment.astimezone(UTC)
        if self.interval is not None:
            return self._next_tick(after, self.interval)
        # A day early: the zone's date may lag, and a skipped time moves forward.
        day = after.astimezone(self.zone) - _DAY
        while True:
            if day.weekday() in self.days and self.at is not None:
                due = self._instant(day, self.at)
                if due > after:
                    return due
            day += _DAY

    def _next_tick(self, after: datetime, interval: timedelta) -> datetime:
        """Return the next multiple of the interval, counted from local midnight."""
        today = after.astimezone(self.zone)
        midnight = self._instant(today, time())
        tick = midnight + ((after - midnight) // interval + 1) * interval
        tomorrow = self._instant(today + _DAY, time())
        # Clocks that fall back across midnight have tomorrow's midnight behind them.
        return tick if tomorrow <= after else min(tick, tomorrow)

    def _instant(self, day: datetime, at: time) -> datetime:
        """Return when the zone's clocks show `at` on the date of `day`, in UTC."""
        wall = datetime.combine(day.date(), at, tzinfo=self.zone)
        return wall.astimezone(UTC)

    def __str__(self) -> str:
        if self.interval == _HOUR:
            return "hourly"
        if self.interval is not None:
            return f"every {format_duration(self.interval)}"
        every_day = len(self.days) == len(DAYS)
        days = "daily" if every_day else ", ".join(DAYS[day] for day in self.days)
        return f"{days} at {self.at:%H:%M}"


@dataclass(frozen=True, slots=True)
class Every:
    """An interval of any length, not bound to the clock: `every 7 days`.

    Due times count from a Monday's midnight in UTC, so that weeks are ISO weeks.
    """

    interval: timedelta

    def next_after(self, moment: datetime) -> datetime:
        """Return the first due time strictly after `moment`, in UTC."""
        since = moment.astimezone(UTC) - _MONDAY
        return _MONDAY + (since // self.interval + 1) * self.interval

    def __str__(self) -> str:
        return f"every {format_duration(self.interval)}"


def _interval(source: str, text: str) -> timedelta:
    words = source.removeprefix("every ")
    if not words[0].isdigit():
        words = f"1 {words}"
    if words.split()[-1] in DAYS:
        raise ValueError(f"{text!r} is no schedule; {_EXAMPLES}")
    interval = parse_duration(words)
    if interval % _MINUTE or _DAY % interval:
        raise ValueError(
            f"{text!r} does not divide a day evenly; choose an interval that does, "
            "such as 5, 15 or 30 minutes, or 1, 2, 3, 4, 6, 8 or 12 hours"
        )
    return interval


def _days(words: str, text: str) -> tuple[int, ...]:
    if words in {"daily", "day"}:
        return tuple(range(len(DAYS)))
    names = _SPLIT.split(words)
    unknown = [name for name in names if name not in DAYS]
    if unknown:
        raise ValueError(
            f"{text!r} is no schedule: `{unknown[0]}` is no day; {_EXAMPLES}"
        )
    if len(set(names)) < len(names):
        raise ValueError(f"{text!r} names a day twice")
    return tuple(sorted(DAYS.index(name) for name in names))


def _time(word: str, text: str) -> time:
    match = _TIME.match(word)
    if match is None:
        raise ValueError(
            f"{text!r} is no schedule: `{word}` is no time of day; "
            "write it with 24 hours and two digits each, such as 02:00"
        )
    return time(int(match[1]), int(match[2]))
