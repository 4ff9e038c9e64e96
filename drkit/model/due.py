"""What kind of backup is due: `--type auto`."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from drkit.model.duration import format_duration
from drkit.model.label import BackupKind, label_time

if TYPE_CHECKING:
    from collections.abc import Iterable

    from drkit.model.backup import BackupSummary
    from drkit.model.schedule import Schedule

UNSCHEDULED = timedelta(days=7)
"""How old the last full backup grows where no schedule says when to take one."""


class Due(NamedTuple):
    """The kind of backup to take, and why it is that one."""

    kind: BackupKind
    reason: str


def due(backups: Iterable[BackupSummary], full: Schedule | None, now: datetime) -> Due:
    """Return what to take now: an incremental unless a full backup is due.

    Args:
        backups: the live ones, oldest first.
        full: when full backups are due; None for once a week.
    """
    fulls = [one.label for one in backups if one.kind is BackupKind.FULL]
    if not fulls:
        return Due(BackupKind.FULL, "there is no full backup yet")
    # by the label, which is of drkit's own clock, as the schedule is
    last = label_time(fulls[-1])
    if full is None:
        if now - last < UNSCHEDULED:
            return Due(BackupKind.INCREMENTAL, "the last full backup is recent")
        old = format_duration(UNSCHEDULED)
        return Due(BackupKind.FULL, f"the last full backup is more than {old} old")
    if full.next_after(last) > now:
        return Due(BackupKind.INCREMENTAL, f"full backups are due {full}")
    return Due(BackupKind.FULL, f"a full backup is due {full}")
