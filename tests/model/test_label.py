from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drkit.model.label import BackupKind, is_attempt, label_time, new_label

TIMES = st.integers(0, 4_000_000_000).map(
    lambda seconds: datetime.fromtimestamp(seconds, UTC)
)
KINDS = st.sampled_from(BackupKind)


def test_a_label_says_time_and_kind_in_utc() -> None:
    zone = timezone(timedelta(hours=2))
    now = datetime(2026, 1, 15, 12, 30, 7, 999999, tzinfo=zone)
    assert new_label(now, BackupKind.FULL, None) == "20260115-103007-full"
    assert label_time("20260115-103007-full") == datetime(
        2026, 1, 15, 10, 30, 7, tzinfo=UTC
    )


@given(st.lists(st.tuples(TIMES, KINDS), min_size=1, max_size=20))
def test_labels_ascend_whatever_the_clock_does(
    runs: list[tuple[datetime, BackupKind]],
) -> None:
    labels: list[str] = []
    for now, kind in runs:
        labels.append(new_label(now, kind, labels[-1] if labels else None))
    times = [label_time(label) for label in labels]
    assert times == sorted(set(times))
    assert labels == sorted(labels)


@pytest.mark.parametrize("years", [10, -10])
def test_a_clock_that_jumps_ten_years(years: int) -> None:
    now = datetime(2026, 1, 15, 10, 30, tzinfo=UTC)
    first = new_label(now, BackupKind.FULL, None)
    second = new_label(now.replace(year=now.year + years), BackupKind.FULL, first)
    third = new_label(now + timedelta(hours=1), BackupKind.INCREMENTAL, second)
    assert first < second < third


def test_the_hour_that_comes_twice() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    summer = datetime(2026, 10, 25, 2, 30, tzinfo=berlin)
    winter = summer.replace(fold=1)
    first = new_label(summer, BackupKind.FULL, None)
    second = new_label(winter, BackupKind.FULL, first)
    assert label_time(second) - label_time(first) == timedelta(hours=1)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "latest",
        "20260115-103000",
        "20260115-103000-other",
        "20260115-103000-full\n",
        "20261315-103000-full",
        "20260115-243000-full",
        "٢٠٢٦٠١١٥-103000-full",
        "../20260115-103000-full",
    ],
)
def test_what_is_no_label_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"label|time data|remains"):
        label_time(text)


def test_attempt_ids_are_32_lower_case_hex_digits() -> None:
    assert is_attempt("0123456789abcdef" * 2)
    wrong = ["", "0" * 31, "0" * 33, "A" * 32, "0" * 31 + "\n", "../" + "0" * 29]
    assert not any(map(is_attempt, wrong))
