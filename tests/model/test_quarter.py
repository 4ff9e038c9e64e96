"""Calendar quarters."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drkit.model.quarter import Quarter

quarters = st.builds(Quarter, st.integers(2000, 9998), st.integers(1, 4))


@given(quarters)
def test_text_reads_back(quarter: Quarter) -> None:
    assert Quarter.parse(str(quarter)) == quarter
    assert Quarter.parse(f" {str(quarter).lower().replace('-', '')} ") == quarter


@given(quarters, st.integers(0, 400))
def test_quarters_follow_one_another(quarter: Quarter, count: int) -> None:
    assert quarter.back(count).back(-count) == quarter
    assert quarter.back(1).end == quarter.begin
    assert quarter.back(1) < quarter


@given(quarters)
def test_what_lies_in_a_quarter(quarter: Quarter) -> None:
    last = quarter.end - timedelta(microseconds=1)
    assert Quarter.of(quarter.begin) == Quarter.of(last) == quarter
    assert quarter.begin in quarter
    assert last in quarter
    assert quarter.end not in quarter
    assert last.date() == quarter.last_day


def test_the_zone_is_utc() -> None:
    west = timezone(timedelta(hours=-8))
    moment = datetime(2025, 12, 31, 20, tzinfo=west)
    assert Quarter.of(moment) == Quarter(2026, 1)
    assert Quarter(2026, 1).begin == datetime(2026, 1, 1, tzinfo=UTC)
    assert Quarter(2024, 1).last_day == date(2024, 3, 31)


@pytest.mark.parametrize(
    "text", ["", "2026", "2026-Q5", "2026-Q0", "Q1-2026", "1999-Q4", "9999-Q1", "26-Q1"]
)
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write it as 2026-Q1"):
        Quarter.parse(text)
