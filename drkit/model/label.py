"""Labels of backups and ids of attempts.

Labels are for people: they sort by time and say what a backup is. The log decides
order, and attempt ids keep names apart.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from enum import StrEnum

_LABEL = re.compile(r"([0-9]{8}-[0-9]{6})-(full|incr|dump|files)\Z")
_ATTEMPT = re.compile(r"[0-9a-f]{32}\Z")
_STAMP = "%Y%m%d-%H%M%S"


class BackupKind(StrEnum):
    """What a backup holds, as its label says it."""

    FULL = "full"
    INCREMENTAL = "incr"
    DUMP = "dump"
    FILES = "files"


BASE_BACKUPS = (BackupKind.FULL, BackupKind.INCREMENTAL)
"""Those that recovery begins with, and that need WAL."""


def new_label(now: datetime, kind: BackupKind, last: str | None) -> str:
    """Return a label that is unique and sorts after `last`, whatever the clock did.

    Args:
        now: the wall clock, with its zone.
        last: the newest label there is, or None.
    """
    stamp = now.astimezone(UTC).replace(microsecond=0)
    if last is not None:
        stamp = max(stamp, label_time(last) + timedelta(seconds=1))
    return f"{stamp.strftime(_STAMP)}-{kind}"


def label_time(label: str) -> datetime:
    """Return the time in a label, in UTC.

    Raises:
        ValueError: not a label.
    """
    match = _LABEL.match(label)
    if match is None:
        raise ValueError(f"{label!r} is no label of a backup")
    try:
        return datetime.fromisoformat(f"{match[1].replace('-', 'T')}+00:00")
    except ValueError:
        raise ValueError(f"{label!r} is no label: there is no such time") from None


def is_attempt(text: str) -> bool:
    """Say whether `text` is an attempt id: 128 random bits in lower-case hex."""
    return _ATTEMPT.match(text) is not None
