"""Clocks that are wrong must not make anything expire."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drkit.model.clock import CLOCKS_DIFFER, CONFIRMED_AFTER, clock_doubt
from tests.catalogs import NOW


def doubt(*ages: float, now: float = 0) -> str | None:
    """Judge a clock that is wrong by `now` days; ages are of entries, oldest first."""
    written = [NOW - timedelta(days=age) for age in reversed(ages)]
    return clock_doubt(NOW + timedelta(days=now), written)


@pytest.mark.parametrize(
    "ages",
    [
        (),
        (0,),
        (0.0001, -0.0001),
        (300, 290, 34, 0),
        (400, 8, 3, 1),  # silent for a year, then backed up for a week
        (-3650, 9, 2, 1),  # the clock was wrong once, and right for a week
        (34.9,),
    ],
)
def test_plausible(ages: tuple[float, ...]) -> None:
    assert doubt(*ages) is None


@pytest.mark.parametrize(
    ("ages", "now", "why"),
    [
        ((3, 2, 1), 3650, "silent for 3651 days"),
        ((3, 2, 1), -3650, "time ran backwards"),
        ((3, 2, 1), -1.1, "time ran backwards"),
        ((36,), 0, "silent for 36 days"),
        ((400, 1), 0, "silent for 399 days"),
        ((400, 6, 3, 1), 0, "silent for 394 days"),
        ((2, 1, -3650), 3650.1, "silent for 3651 days"),  # it backed up meanwhile
        ((2, -3650, 1), 0, "time ran backwards"),
        ((3, 3650, 1), 0, "silent for 3649 days"),
    ],
)
def test_implausible(ages: tuple[float, ...], now: float, why: str) -> None:
    told = doubt(*ages, now=now)
    assert told is not None
    assert why in told


def test_clocks_of_hosts_may_differ_a_little() -> None:
    ahead = CLOCKS_DIFFER.total_seconds() / 86400
    assert doubt(1, -ahead) is None
    assert doubt(1, -ahead * 1.01) is not None


@given(st.lists(st.floats(0, 34), max_size=20), st.floats(36, 4000))
def test_a_jump_is_never_believed_at_once(steps: list[float], jump: float) -> None:
    """Whatever a daily backup wrote before, and after the jump for less than a week."""
    written = [NOW]
    for step in steps:
        written.append(written[-1] + timedelta(days=step))
    forward = written[-1] + timedelta(days=jump)
    assert clock_doubt(forward, reversed(written)) is not None
    assert (
        clock_doubt(written[-1] - timedelta(days=jump), reversed(written)) is not None
    )
    for _ in range(6):
        written.append(forward)
        forward += timedelta(days=1)
        assert clock_doubt(forward, reversed(written)) is not None


@given(st.lists(st.floats(0, 30), min_size=1, max_size=20))
def test_a_log_that_goes_on_is_believed(steps: list[float]) -> None:
    written = [NOW]
    for step in steps:
        written.append(written[-1] + timedelta(days=step))
    assert clock_doubt(written[-1], reversed(written)) is None
    later = written[-1] + CONFIRMED_AFTER
    assert clock_doubt(later, reversed(written)) is None
