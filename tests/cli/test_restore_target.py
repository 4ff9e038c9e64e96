"""From `--target-*` options to recovery targets, and back into words."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from drkit.cli.restore_target import TargetOptions, read_target
from drkit.errors import UsageError
from drkit.model.lsn import Lsn
from drkit.model.recovery import RecoveryTarget, TargetAction, TargetKind

if TYPE_CHECKING:
    from collections.abc import Iterator

WHEN = datetime(2026, 1, 15, 10, 30, tzinfo=UTC)


def read(**options: object) -> RecoveryTarget:
    given = TargetOptions(**options)  # type: ignore[arg-type]
    given.check()
    return read_target(given, lambda: 4)


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The host's clock is Berlin's."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Europe/Berlin")
        time.tzset()
        yield
    time.tzset()


def test_each_target() -> None:
    assert read() == RecoveryTarget()
    assert read(time="2026-01-15 10:30:00Z") == RecoveryTarget(TargetKind.TIME, WHEN)
    assert read(time="2026-01-15T12:30+02:00").time == WHEN
    assert read(time=" 20260115T103000.000001+00 ").time == WHEN + timedelta(
        microseconds=1
    )
    lsn = read(lsn="16/b374d848", exclusive=True)
    assert (lsn.kind, lsn.lsn, lsn.inclusive) == (
        TargetKind.LSN,
        Lsn.parse("16/B374D848"),
        False,
    )
    assert read(xid=(5 << 32) + 700).xid == 700
    named = read(name="before the upgrade", action=TargetAction.PAUSE)
    assert (named.name, named.action) == ("before the upgrade", TargetAction.PAUSE)
    assert read(immediate=True).kind is TargetKind.IMMEDIATE


def test_timelines() -> None:
    assert read(timeline="latest").timeline is None
    assert read(timeline="current").timeline == 4
    assert read(timeline="12").timeline == 12


@pytest.mark.parametrize(
    "options",
    [
        {"time": "tomorrow"},
        {"time": "10:30"},
        {"time": ""},
        {"lsn": "100"},
        {"lsn": ""},
        {"xid": 2},
        {"xid": -5},
        {"xid": 1 << 64},
        {"xid": 7 << 32},
        {"name": ""},
        {"name": "é" * 32},
        {"timeline": "0"},
        {"timeline": "-1"},
        {"timeline": "newest"},
        {"timeline": "٣"},
        {"timeline": str(1 << 31)},
        {"time": "2026-01-15 10:30Z", "xid": 700},
        {"name": "", "immediate": True},
        {"immediate": True, "lsn": "0/1"},
        {"action": TargetAction.PAUSE},
        {"exclusive": True},
        {"exclusive": True, "immediate": True},
        {"exclusive": True, "name": "x"},
    ],
    ids=str,
)
def test_refused(options: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        read(**options)


@pytest.mark.usefixtures("berlin")
def test_a_time_without_an_offset_is_local_and_said_to_be() -> None:
    options = TargetOptions(time="2026-07-15 12:30")
    assert read(time="2026-07-15 12:30").time == datetime(
        2026, 7, 15, 10, 30, tzinfo=UTC
    )
    note = options.note()
    assert note is not None
    assert "2026-07-15 12:30:00+02:00" in note
    assert TargetOptions(time="2026-07-15 12:30Z").note() is None


@pytest.mark.usefixtures("berlin")
@pytest.mark.parametrize("moment", ["2026-10-25 02:30", "2026-03-29 02:30"])
def test_a_time_at_which_clocks_were_changed_needs_its_offset(moment: str) -> None:
    with pytest.raises(UsageError, match="clocks were changed") as caught:
        read(time=moment)
    assert "+01:00" in str(caught.value.hint)
    assert "+02:00" in str(caught.value.hint)
    assert read(time=f"{moment}+02:00").time is not None
