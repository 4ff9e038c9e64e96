"""Whom a directory restored by root shall belong to."""

from __future__ import annotations

import os
import pwd
from contextlib import suppress

from drkit.errors import UsageError
from drkit.model.owner import Owner
from drkit.ownership import ROOT, owner_of


def target_owner(directory: str, data_directory: str | None) -> Owner | None:
    """Return the owner to give a restore's files to; None to keep the caller's.

    Root asks whoever owns the target already, then the policy's data directory, then
    what lies above either of them, and last the user `postgres`: PostgreSQL refuses
    to run as root.

    Raises:
        UsageError: root restores, and nobody is found; or somebody else could put
            another directory into the target's place.
    """
    if os.geteuid() != 0:
        return None
    with suppress(FileNotFoundError, NotADirectoryError):
        owner = owner_of(directory, raising=UsageError)
        if owner is not None and owner != ROOT:
            return owner
    places = [data_directory, os.path.dirname(directory)]
    places.append(os.path.dirname(data_directory or ""))
    for place in filter(None, places):
        owner = _owner(place)
        if owner is not None:
            return owner
    try:
        entry = pwd.getpwnam("postgres")
    except KeyError:
        raise UsageError(
            "PostgreSQL refuses to run as root, and it is not clear whose the restored "
            "cluster shall be",
            hint=f"make {directory} and give it to that user: install -d -o USER "
            f"-m 0700 {directory}",
        ) from None
    return Owner(entry.pw_uid, entry.pw_gid)


def _owner(place: str) -> Owner | None:
    """Return who owns a place, unless it is root's or not there."""
    try:
        status = os.stat(place)
    except OSError:
        return None
    return Owner(status.st_uid, status.st_gid) if status.st_uid != 0 else None
