"""Reading the files of a running cluster."""

from __future__ import annotations

import os

from drkit.errors import SourceUnreadable
from drkit.model.page import PAGE


def read_full(path: str, descriptor: int, into: memoryview, position: int) -> int:
    """Read until `into` is full or the file ends; return the count of bytes.

    Raises:
        SourceUnreadable: the system can't read there; the error names file and block.
    """
    done = 0
    while into:
        try:
            count = os.preadv(descriptor, [into], position + done)
        except OSError as error:
            # the kernel hands over what it could read before it tells of an error
            raise unreadable(path, position + done, error) from error
        done += count
        if count == len(into) or count == 0:
            break
        into = into[count:]
    return done


def unreadable(path: str, position: int, error: OSError) -> SourceUnreadable:
    """Return the error for a file that can't be read at a position."""
    return SourceUnreadable(
        f"can't read {path} at block {position // PAGE}: {error.strerror}",
        hint="the disk or the permissions need care; no backup was made, older ones "
        "are untouched",
    )
