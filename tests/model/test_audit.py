"""Every file is audited once a window, whatever the times of the backups."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from drkit.model.audit import audit_due

WEEK = timedelta(days=7)
START = datetime(2026, 1, 15, 10, 30, tzinfo=UTC)
PATHS = st.binary(min_size=1, max_size=20)
WINDOWS = st.timedeltas(timedelta(hours=1), timedelta(days=90))


def turns(path: bytes, times: list[datetime], window: timedelta) -> list[datetime]:
    """When a file was audited, of backups at these times."""
    return [
        now for since, now in pairwise(times) if audit_due(path, since, now, window)
    ]


@given(
    PATHS,
    st.lists(st.timedeltas(timedelta(seconds=1), WEEK), min_size=1, max_size=60),
    WINDOWS,
)
def test_no_window_passes_without_an_audit(
    path: bytes, gaps: list[timedelta], window: timedelta
) -> None:
    times = [START]
    for gap in gaps:
        times.append(times[-1] + gap)
    audited = turns(path, times, window)
    # Between two audits lies no whole window in which there were backups.
    longest = max(gaps)
    for before, after in pairwise([START, *audited, times[-1]]):
        assert after - before < window + longest + timedelta(seconds=1)
    # And none is audited again before its next turn: one for each window begun.
    assert len(audited) <= (times[-1] - START) // window + 1


@given(PATHS, st.timedeltas(timedelta(0), timedelta(days=3650)), WINDOWS)
def test_exactly_one_of_the_backups_of_a_window_audits_a_file(
    path: bytes, offset: timedelta, window: timedelta
) -> None:
    start = START + offset
    times = [start + window * part / 24 for part in range(25)]
    assert len(turns(path, times, window)) == 1


@given(PATHS, WINDOWS)
def test_a_gap_of_a_window_or_more_audits_everything(
    path: bytes, window: timedelta
) -> None:
    assert audit_due(path, START, START + window, window)
    assert audit_due(path, START, START + 3 * window, window)


@given(PATHS, WINDOWS)
def test_a_clock_that_went_back_audits_nothing_and_breaks_nothing(
    path: bytes, window: timedelta
) -> None:
    assert not audit_due(path, START, START, window)
    assert not audit_due(path, START, START - 5 * window, window)


def test_turns_are_spread_over_the_window() -> None:
    paths = [b"base/16384/%d" % number for number in range(7000)]
    days = [START + timedelta(days=day) for day in range(8)]
    for since, now in pairwise(days):
        due = sum(audit_due(path, since, now, WEEK) for path in paths)
        assert 850 < due < 1150  # a seventh of them
