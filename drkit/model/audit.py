"""Which "unchanged" files an incremental backup reads in full all the same."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import timedelta

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_PARTS = 1 << 64


def audit_due(path: bytes, since: datetime, now: datetime, window: timedelta) -> bool:
    """Say whether a file's turn falls between two backups.

    Each file has its moment in every window, fixed by its path, so that backups one
    after another come by every file once a window, however often they are taken.

    Args:
        since: when the backup before this one began.
    """
    digest = hashlib.blake2b(path, digest_size=8).digest()
    phase = window * (int.from_bytes(digest, "big") / _PARTS)
    return (now - _EPOCH - phase) // window > (since - _EPOCH - phase) // window
