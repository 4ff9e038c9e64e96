"""How long backups are kept: the rules as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import timedelta


@dataclass(frozen=True, slots=True)
class Retention:
    """Rules of which each keeps backups; one that any rule keeps is kept.

    Counts are at least 1 and a rule that is None says nothing. At least one rule is
    set: a policy without any would keep nothing, or everything, by accident.

    Attributes:
        full: how many of the newest full backups, with their incrementals.
        window: every backup that a recovery to any moment this far back needs.
        daily: the newest backup of each of so many days that have one.
        weekly: the same for ISO weeks.
        monthly: the same for calendar months.
        yearly: the same for calendar years.
        wal_window: how far back any moment can be recovered to; older backups keep
            only the WAL that makes them consistent. None: as far as backups reach.
        max_deletions: how many backups one run deletes at most.
    """

    full: int | None = None
    window: timedelta | None = None
    daily: int | None = None
    weekly: int | None = None
    monthly: int | None = None
    yearly: int | None = None
    wal_window: timedelta | None = None
    max_deletions: int = 100

    def __post_init__(self) -> None:
        counts = (self.full, self.daily, self.weekly, self.monthly, self.yearly)
        if any(count is not None and count < 1 for count in counts):
            raise ValueError("a retention count must be at least 1")
        if self.max_deletions < 1:
            raise ValueError("the most deletions of a run must be at least 1")
        windows = (self.window, self.wal_window)
        if any(span is not None and span.total_seconds() <= 0 for span in windows):
            raise ValueError("a retention window must be longer than nothing")
        if self.window is None and not any(counts):
            raise ValueError("a retention needs a rule that keeps backups")
