"""Times as a person reads them in a message."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime


def exact(time: datetime) -> str:
    """Write a time with all its digits, and as this host's clock shows it.

    Both forms are what `--target-time` takes back.
    """
    shown = time.isoformat(sep=" ")
    here = time.astimezone()
    if here.utcoffset() == time.utcoffset():
        return shown
    return f"{shown}, here {here.isoformat(sep=' ')}"
