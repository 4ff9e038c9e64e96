from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drkit.model.duration import format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("15 minutes", 900),
        ("90 s", 90),
        ("90s", 90),
        ("1 hour 30 minutes", 5400),
        ("1h 30min", 5400),
        ("7 days", 604_800),
        ("2 weeks", 1_209_600),
        ("1 day", 86_400),
        ("  10 MINUTES ", 600),
        ("1 Week 1 Day 1 Hour 1 Minute 1 Second", 694_861),
        ("45 secs", 45),
        ("3 hrs", 10_800),
    ],
)
def test_reads_what_people_write(text: str, seconds: int) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("15", "has no unit; write, for example, 15 minutes"),
        ("", "is no duration"),
        ("soon", "is no duration"),
        ("-5 minutes", "is negative"),
        ("1.5 hours", "has a fraction"),
        ("1,5 hours", "has a fraction"),
        ("5 m", "`m` could be minutes or months"),
        ("3 months", "months differ in length"),
        ("1 year", "years differ in length"),
        ("5 parsecs", "`parsecs` is no unit"),
        ("5 minutes 1 hour", "twice or out of order"),
        ("5 minutes 5 minutes", "twice or out of order"),
        ("5 minutes later", "is no duration"),
        ("1h30min", "is no duration"),
        ("0 seconds", "is no time at all"),
        ("0 hours 0 minutes", "is no time at all"),
        ("999999999 weeks", "too long"),
        ("9999999999 s", "is no duration"),
        ("٣ minutes", "is no duration"),
    ],
)
def test_refuses_what_could_mean_something_else(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint) as caught:
        parse_duration(text)
    assert repr(text) in str(caught.value)


def test_zero_only_where_it_is_asked_for() -> None:
    assert parse_duration("0 seconds", zero=True) == timedelta(0)
    assert format_duration(timedelta(0)) == "0 seconds"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (1, "1 second"),
        (5400, "1 hour 30 minutes"),
        (86_400 * 30, "30 days"),
        (12.4, "12 seconds"),
    ],
)
def test_writes_what_people_read(seconds: float, text: str) -> None:
    assert format_duration(timedelta(seconds=seconds)) == text


def test_never_writes_a_negative_duration() -> None:
    with pytest.raises(ValueError, match="negative"):
        format_duration(timedelta(seconds=-1))


@given(st.integers(0, 999_999_999 * 86_400))
def test_written_and_read_back(seconds: int) -> None:
    duration = timedelta(seconds=seconds)
    assert parse_duration(format_duration(duration), zero=True) == duration
