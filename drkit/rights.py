"""Whom to run drkit as, where the operating system refuses the user who does."""

from __future__ import annotations

import os
import pwd
import stat


def run_as_owner(path: str) -> str:
    """Return the hint for a path that may not be used: the user who may, and how.

    Where a directory on the way is closed, its owner is the one to ask. Root is no
    exception: an NFS server may keep it out.
    """
    place, status = _nearest(path)
    me, owner = os.geteuid(), status.st_uid
    if me == owner:
        mode = stat.S_IMODE(status.st_mode)
        return f"{place} is {user_name(me)}'s own, but its mode is {mode:04o}"
    name = user_name(owner)
    return (
        f"this runs as {user_name(me)}, and {place} belongs to {name}; run it as that "
        f"user: sudo -u {name} drkit …"
    )


def user_name(uid: int) -> str:
    """Return a user's name as `sudo -u` takes it; `'#1234'` for one without."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"'#{uid}'"


def _nearest(path: str) -> tuple[str, os.stat_result]:
    """Return the path, or what above it can be looked at, and what it is."""
    path = os.path.abspath(path)
    while True:
        try:
            return path, os.stat(path)
        except OSError:
            if path == os.sep:
                raise
            path = os.path.dirname(path)
