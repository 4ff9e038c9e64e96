"""What kind of backup `--type auto` takes."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drkit.model.backup import BackupSummary
from drkit.model.due import UNSCHEDULED, due
from drkit.model.label import BackupKind, new_label
from drkit.model.lsn import Lsn
from drkit.model.schedule import Schedule

FULL, INCREMENTAL, DUMP = BackupKind.FULL, BackupKind.INCREMENTAL, BackupKind.DUMP
BERLIN = ZoneInfo("Europe/Berlin")
SUNDAY = Schedule.parse("sunday at 02:30", BERLIN)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def taken(moment: datetime, kind: BackupKind = FULL) -> BackupSummary:
    return BackupSummary(
        label=new_label(moment, kind, None),
        kind=kind,
        source="local",
        start_lsn=Lsn(0x2000028),
        stop_lsn=Lsn(0x2000128),
        timeline=1,
        start_time=moment,
        stop_time=moment + timedelta(seconds=5),
        system_identifier="7300000000000000001",
        server_version=180000,
        wal_segment_size=16 << 20,
        files=0,
        bytes=0,
        stored_bytes=0,
        damaged_pages=0,
        warnings=0,
    )


def kinds(last: datetime, schedule: Schedule | None, *times: str) -> list[BackupKind]:
    return [due([taken(last)], schedule, utc(time)).kind for time in times]


def test_the_first_backup_is_a_full() -> None:
    now = utc("2026-01-18 12:00")
    for schedule in (None, SUNDAY):
        for backups in ([], [taken(now, DUMP)], [taken(now, INCREMENTAL)]):
            found = due(backups, schedule, now)
            assert found == (FULL, "there is no full backup yet")


def test_a_full_is_due_when_the_schedule_says() -> None:
    # 02:30 in Berlin in winter is 01:30 UTC
    last = utc("2026-01-11 01:30:05")
    assert kinds(last, SUNDAY, "2026-01-11 02:00", "2026-01-18 01:29:59") == (
        [INCREMENTAL, INCREMENTAL]
    )
    assert kinds(last, SUNDAY, "2026-01-18 01:30", "2026-01-18 05:00") == [FULL, FULL]
    reason = due([taken(last)], SUNDAY, utc("2026-01-18 01:30")).reason
    assert reason == "a full backup is due sunday at 02:30"


def test_a_full_that_was_taken_late_is_not_taken_again_before_the_next_is_due() -> None:
    late = utc("2026-01-21 09:00")  # a Wednesday
    assert kinds(late, SUNDAY, "2026-01-22 09:00", "2026-01-25 01:29") == (
        [INCREMENTAL, INCREMENTAL]
    )
    assert kinds(late, SUNDAY, "2026-01-25 01:30") == [FULL]


def test_a_run_that_was_missed_is_made_up_by_the_next_whenever_it_comes() -> None:
    last = utc("2026-01-04 01:30:05")
    assert kinds(last, SUNDAY, "2026-01-14 17:00", "2026-03-01 00:00") == [FULL, FULL]


def test_a_time_that_daylight_saving_skips_is_due_all_the_same() -> None:
    # on 29 March 2026 Berlin's clocks go from 02:00 to 03:00
    last = utc("2026-03-22 01:30:05")
    assert kinds(last, SUNDAY, "2026-03-29 01:29", "2026-03-29 01:30") == (
        [INCREMENTAL, FULL]
    )
    assert kinds(utc("2026-03-29 01:30"), SUNDAY, "2026-03-29 02:30") == [INCREMENTAL]


def test_a_time_that_daylight_saving_repeats_is_due_once() -> None:
    # on 25 October 2026 Berlin's clocks show 02:30 at 00:30 and at 01:30 UTC
    last = utc("2026-10-18 00:30:05")
    assert kinds(last, SUNDAY, "2026-10-25 00:29", "2026-10-25 00:30") == (
        [INCREMENTAL, FULL]
    )
    assert kinds(utc("2026-10-25 00:30:02"), SUNDAY, "2026-10-25 01:30:30") == (
        [INCREMENTAL]
    )


def test_without_a_schedule_a_full_is_due_once_a_week() -> None:
    last = utc("2026-01-11 12:00")
    assert kinds(last, None, "2026-01-18 11:59:59", "2026-01-18 12:00") == (
        [INCREMENTAL, FULL]
    )
    assert "7 days" in due([taken(last)], None, last + 2 * UNSCHEDULED).reason


def test_other_backups_since_then_change_nothing() -> None:
    full = taken(utc("2026-01-11 01:30"))
    later = [
        taken(utc("2026-01-17 23:00"), INCREMENTAL),
        taken(utc("2026-01-18 01:00"), DUMP),
    ]
    assert due([full, *later], SUNDAY, utc("2026-01-18 01:29")).kind is INCREMENTAL
    assert due([full, *later], SUNDAY, utc("2026-01-18 01:30")).kind is FULL


def test_the_label_counts_and_not_the_servers_clock() -> None:
    full = replace(taken(utc("2026-01-11 01:30")), start_time=utc("2031-01-01 00:00"))
    assert due([full], SUNDAY, utc("2026-01-18 01:30")).kind is FULL


@pytest.mark.parametrize("schedule", [None, SUNDAY])
def test_a_clock_that_went_back_takes_incrementals(schedule: Schedule | None) -> None:
    last = utc("2026-06-01 00:00")
    assert kinds(last, schedule, "2026-01-01 00:00") == [INCREMENTAL]


@given(
    st.datetimes(datetime(2024, 1, 1), datetime(2030, 1, 1)),  # noqa: DTZ001
    st.sampled_from(["daily at 02:30", "sunday at 02:30", "hourly", "every 6 hours"]),
    st.lists(st.timedeltas(timedelta(minutes=1), timedelta(days=4)), max_size=12),
)
def test_one_full_for_each_time_that_is_due(
    start: datetime, text: str, gaps: list[timedelta]
) -> None:
    """A full is taken by the first run at or after each due time, and by no other."""
    schedule = Schedule.parse(text, BERLIN)
    last = start = start.replace(microsecond=0, tzinfo=UTC)
    runs = [start]
    fulls = set()
    for gap in gaps:
        runs.append(runs[-1] + timedelta(seconds=gap // timedelta(seconds=1)))
        if due([taken(last)], schedule, runs[-1]).kind is FULL:
            last = runs[-1]
            fulls.add(last)
    expected, moment = set(), schedule.next_after(start)
    while moment <= runs[-1]:
        expected.add(next(run for run in runs if run >= moment))
        moment = schedule.next_after(moment)
    assert fulls == expected
