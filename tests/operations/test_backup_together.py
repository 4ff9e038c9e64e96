"""Several backups of one cluster: at once, after a death, and under clocks that lie."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest

from drkit.errors import AttemptFenced, Locked, PostgresUnreachable
from drkit.model.label import label_time
from drkit.model.log import AttemptState
from drkit.wiring import SystemClock
from tests.operations.backup_tools import (
    MOSTLY_STREAM,
    OTHER_HOST,
    Listener,
    ShiftedClock,
    Site,
    assert_tidy,
    attempts,
    content,
    restored,
    site,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future

    from drkit.model.backup import BackupSummary
    from tests.operations.scene import Scene
    from tests.protect import Protected

ABANDONED, COMMITTED = AttemptState.ABANDONED, AttemptState.COMMITTED
YEARS = timedelta(days=3652)


@pytest.fixture
def protected(scene: Scene, newest_version: int) -> Protected:
    made = scene.protect(newest_version)
    made.cluster.rows("CREATE TABLE t AS SELECT generate_series(1, 1000) AS n")
    return made


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as pool:
        yield pool


class Held:
    """A backup that waits in mid-copy until it is let go."""

    def __init__(self, pool: ThreadPoolExecutor, site: Site) -> None:
        self._begun, self._go = threading.Event(), threading.Event()
        self._backup = pool.submit(site.take, Listener({"copy": self._wait}))
        assert self._begun.wait(30)

    def end(self) -> Future[BackupSummary]:
        self._go.set()
        return self._backup

    def _wait(self) -> None:
        self._begun.set()
        assert self._go.wait(60)


@pytest.mark.parametrize("host", ["", OTHER_HOST], ids=["same host", "other host"])
def test_the_second_of_two_is_locked_out(
    host: str, protected: Protected, pool: ThreadPoolExecutor
) -> None:
    first = Held(pool, site(protected))
    with pytest.raises(Locked, match=f"process {os.getpid()}"):
        site(protected, host=host).take()
    done = first.end().result()
    assert protected.labels() == [done.label]
    assert_tidy(site(protected))


@pytest.mark.parametrize("source", MOSTLY_STREAM)
def test_two_that_begin_at_the_same_moment_are_both_valid(
    source: str, protected: Protected, pool: ThreadPoolExecutor, scene: Scene
) -> None:
    """Both look for leases before either has written one."""
    hosts = [site(protected, source), site(protected, "local", host=OTHER_HOST)]
    together = threading.Barrier(2)
    for one in hosts:
        one.storage.call("put", lambda: together.wait(30), at=1)
    running = [pool.submit(one.take) for one in hosts]
    labels = sorted(one.result().label for one in running)
    assert protected.labels() == labels or sorted(protected.labels()) == labels
    assert labels[0] != labels[1]
    assert_tidy(site(protected))
    expected = content(protected.cluster)
    for label in labels:
        with restored(scene, protected, label) as found:
            assert content(found) == expected


def test_a_dead_host_locks_others_out_for_as_long_as_its_lease_holds(
    protected: Protected,
) -> None:
    _die(site(protected, host=OTHER_HOST))

    def after(minutes: int) -> Site:
        return site(protected, clock=ShiftedClock(timedelta(minutes=minutes)))

    with pytest.raises(Locked, match=OTHER_HOST):
        after(9).take()
    after(11).take()
    assert attempts(after(0)) == [AttemptState.RUNNING, COMMITTED]
    after(45).take()
    assert attempts(after(0)) == [ABANDONED, COMMITTED, COMMITTED]
    assert_tidy(after(0))


def test_one_that_was_given_up_meanwhile_can_not_commit(
    protected: Protected, pool: ThreadPoolExecutor
) -> None:
    stalled = Held(pool, site(protected, host=OTHER_HOST))
    later = site(protected, clock=ShiftedClock(timedelta(hours=1)))
    done = later.take()
    with pytest.raises(AttemptFenced):
        stalled.end().result()
    assert protected.labels() == [done.label]
    # What it stored after it was given up is swept by whoever comes next.
    site(protected, clock=ShiftedClock(timedelta(hours=2))).take()
    assert attempts(later) == [ABANDONED, COMMITTED, COMMITTED]
    assert_tidy(site(protected))


def test_a_listing_without_leases_does_not_make_a_live_backup_dead(
    protected: Protected, pool: ThreadPoolExecutor
) -> None:
    held = Held(pool, site(protected, host=OTHER_HOST))
    blind = site(protected, clock=ShiftedClock(timedelta(minutes=35)))
    blind.storage.hide(lambda name: "/leases/" in name)
    second = blind.take()
    first = held.end().result()
    assert protected.labels() == [second.label, first.label]


def test_labels_under_a_clock_that_jumps_by_years(
    protected: Protected, scene: Scene
) -> None:
    shifts = [timedelta(), YEARS, -YEARS, timedelta(), YEARS + timedelta(1)]
    labels = []
    for number, shift in enumerate(shifts):
        protected.cluster.rows(f"INSERT INTO t VALUES ({10_000 + number})")
        labels.append(site(protected, clock=ShiftedClock(shift)).take().label)
    assert protected.labels() == labels
    assert all(label_time(a) < label_time(b) for a, b in pairwise(labels))
    assert_tidy(site(protected))
    with restored(scene, protected, "latest") as found:
        assert content(found) == content(protected.cluster)


def test_a_lease_of_a_host_whose_clock_is_years_ahead_locks_nobody_out(
    protected: Protected,
) -> None:
    _die(site(protected, host=OTHER_HOST, clock=ShiftedClock(YEARS)))
    done = site(protected).take()
    assert protected.labels() == [done.label]


class WallClock(SystemClock):
    """A clock that tells the times it is given, as a wall in New York would."""

    def __init__(self, *times: datetime) -> None:
        self._times = list(times)

    def now(self) -> datetime:
        return self._times.pop(0) if len(self._times) > 1 else self._times[0]


def test_labels_while_clocks_fall_back_and_spring_forward(protected: Protected) -> None:
    zone = ZoneInfo("America/New_York")
    walls = [
        datetime(2026, 3, 8, 1, 59, 59, tzinfo=zone),
        datetime(2026, 3, 8, 3, 0, 0, tzinfo=zone),
        datetime(2026, 11, 1, 1, 30, tzinfo=zone),
        datetime(2026, 11, 1, 1, 30, tzinfo=zone, fold=1),
        datetime(2026, 11, 1, 1, 30, tzinfo=zone, fold=1),
    ]
    labels = [site(protected, clock=WallClock(wall)).take().label for wall in walls]
    assert labels == [
        "20260308-065959-full",
        "20260308-070000-full",
        "20261101-053000-full",
        "20261101-063000-full",
        "20261101-063001-full",
    ]
    assert protected.labels() == labels


def test_labels_do_not_follow_the_time_zone_of_the_process(
    protected: Protected, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        for zone in ("Pacific/Kiritimati", "Pacific/Pago_Pago"):
            monkeypatch.setenv("TZ", zone)
            time.tzset()
            label = site(protected).take().label
            assert abs(label_time(label) - datetime.now(UTC)) < timedelta(minutes=1)
    finally:
        monkeypatch.undo()
        time.tzset()


def _die(site: Site) -> None:
    """Leave behind what a host that lost its power in mid-copy would leave."""

    def power_off() -> None:
        site.storage.fail("any", PostgresUnreachable("no power"), times=1 << 60)
        raise PostgresUnreachable("no power")

    with pytest.raises(PostgresUnreachable, match="no power"):
        site.take(Listener({"copy": power_off}))
    site.storage.heal()
