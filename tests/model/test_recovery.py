from __future__ import annotations

from datetime import UTC, datetime

import pytest

from drkit.model.lsn import Lsn
from drkit.model.recovery import RecoveryTarget, TargetAction, TargetKind

NOON = datetime(2026, 1, 15, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        (RecoveryTarget(), "latest"),
        (RecoveryTarget(TargetKind.IMMEDIATE), "immediate"),
        (RecoveryTarget(TargetKind.TIME, time=NOON), "time 2026-01-15 12:00:00+00:00"),
        (RecoveryTarget(TargetKind.LSN, lsn=Lsn(0x100)), "lsn 0/100"),
        (RecoveryTarget(TargetKind.LSN, lsn=Lsn(0)), "lsn 0/0"),
        (
            RecoveryTarget(TargetKind.XID, xid=77, inclusive=False),
            "xid 77 (exclusive)",
        ),
        (RecoveryTarget(TargetKind.NAME, name="before"), "name before"),
    ],
)
def test_a_target_is_shown_as_a_person_would_say_it(
    target: RecoveryTarget, shown: str
) -> None:
    assert str(target) == shown


def test_a_target_promotes_unless_told_otherwise() -> None:
    assert RecoveryTarget().action is TargetAction.PROMOTE
    assert RecoveryTarget().inclusive
