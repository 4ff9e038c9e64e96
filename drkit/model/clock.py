"""Whether a clock can be believed before something is deleted because of the time."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

# What the clocks of several hosts may differ by, and no retention cares about.
CLOCKS_DIFFER = timedelta(hours=1)

# A log that is silent for longer than a month's schedule and some days of delay says
# that nobody backed up, or that a clock has jumped.
LONGEST_SILENCE = timedelta(days=35)

# Backups that go on for so long show that the time behind a silence is the real one:
# somebody would have set the clock right.
CONFIRMED_AFTER = timedelta(days=7)


def clock_doubt(now: datetime, written: Iterable[datetime]) -> str | None:
    """Say why `now` should not be believed; None if nothing speaks against it.

    A backup that ran under a wrong clock writes wrong times to the log as well, so the
    newest entry alone proves little: every step of the last days must be plausible.

    Args:
        written: when the log's entries were written, as their writers' clocks said,
            the newest first.
    """
    later, what = now, "it is now"
    for time in written:
        if time > later + CLOCKS_DIFFER:
            return (
                f"the log has an entry of {_told(time)}, and {what} {_told(later)}: "
                "time ran backwards"
            )
        if later - time > LONGEST_SILENCE:
            days = (later - time).days
            return (
                f"the log is silent for {days} days behind {_told(time)}, and {what} "
                f"{_told(later)}: nobody backed up, or a clock jumped"
            )
        if now - time > CONFIRMED_AFTER:
            return None
        later, what = time, "the next one is of"
    return None


def _told(time: datetime) -> str:
    return time.isoformat(sep=" ", timespec="seconds")
