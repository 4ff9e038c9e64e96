"""What to tell of what can be reached, when a recovery target can't be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drkit.model.moment import exact

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from datetime import datetime

    from drkit.model.backup import BackupSummary
    from drkit.model.lsn import Lsn
    from drkit.postgres.walrecords import WalEvent

_SHOWN = 10  # restore points


def reachable(
    backup: BackupSummary,
    last_record: Lsn,
    last_commit: datetime | None,
    notes: Iterable[str],
) -> str:
    """Return from where to where a recovery from a backup can go."""
    # PostgreSQL stops at a time when it meets a commit that came after it.
    until = f" (before {exact(last_commit)})" if last_commit is not None else ""
    window = (
        f"from {backup.label} can be reached: {backup.stop_lsn} "
        f"({exact(backup.stop_time)}) to {last_record}{until}"
    )
    end = (
        "without a target, recovery goes to the end; what the server has not archived "
        "yet, `SELECT pg_switch_wal()` there sends"
    )
    return "; ".join((window, end, *notes))


def restore_points(points: Collection[WalEvent]) -> str:
    """Return which restore points there are, the newest first, and of many the newest.

    Args:
        points: without those that no backup leads to; a later one hides an earlier one
            of its name only from people, so both are told.
    """
    if not points:
        return "the WAL that can be reached holds no restore point"
    newest = sorted(points, key=lambda one: one.microseconds, reverse=True)
    told = [f"{one.name!r} of {exact(one.time)}" for one in newest[:_SHOWN]]
    more = len(newest) - len(told)
    if more:
        told.append(f"and {more} older")
    return f"the restore points are: {', '.join(told)}"
