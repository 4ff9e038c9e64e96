"""May a restore write here? Asked before anything is touched, and once more then."""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING

from drkit.errors import DrkitError, NoSpace, TargetNotEmpty
from drkit.postgres.files import read_regular
from drkit.postgres.running import server_process

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

MARKER = "drkit-restore-incomplete.json"


def refuse_unless_free(directory: str) -> None:
    """Refuse a directory that holds anything but an earlier, incomplete restore.

    Raises:
        TargetNotEmpty: says what is there.
    """
    refuse_unless_idle(directory)
    if is_incomplete(directory):
        return
    if os.path.isdir(directory) and names_in(directory):
        raise TargetNotEmpty(
            f"{directory} is not empty",
            hint="move what is there away (keep its pg_wal: it may hold WAL that was "
            "never archived), or restore to another directory; --delta restores over "
            "this cluster's own data directory",
        )


def refuse_unless_idle(directory: str) -> None:
    """Refuse what can't be a data directory, or is one that a server runs in.

    Raises:
        TargetNotEmpty: says what is there.
    """
    _refuse_inside_cluster(directory)
    if os.path.lexists(directory) and not os.path.isdir(directory):
        raise TargetNotEmpty(f"{directory} exists and is no directory")
    pid = server_process(directory)
    if pid is not None:
        raise TargetNotEmpty(
            f"a server is running in {directory}, process {pid}",
            hint="stop it first, or restore to another directory; if that process is "
            "no server of this directory, delete its postmaster.pid",
        )


def _refuse_inside_cluster(directory: str) -> None:
    """Refuse a place inside of a data directory, which is a server's alone."""
    above = os.path.dirname(os.path.realpath(directory))
    while above != os.path.dirname(above):
        if os.path.exists(os.path.join(above, "global", "pg_control")):
            raise TargetNotEmpty(
                f"{directory} lies inside of the data directory {above}",
                hint="restore to a place outside of every data directory",
            )
        above = os.path.dirname(above)


def refuse_unless_free_tablespace(place: str, directory: str) -> None:
    """Refuse a tablespace's place that holds another thing than this target's own.

    Raises:
        TargetNotEmpty: says which.
    """
    if not os.path.lexists(place):
        return
    if not os.path.isdir(place):
        raise TargetNotEmpty(f"{place}, for a tablespace, is no directory")
    if place in marked_tablespaces(directory) and is_own_tablespace(place):
        return
    if names_in(place):
        raise TargetNotEmpty(
            f"{place}, for a tablespace, is not empty",
            hint="empty it, or choose another place: --tablespace-map OLD=NEW",
        )


def is_incomplete(directory: str) -> bool:
    """Say whether a restore into a directory began and did not end."""
    return os.path.lexists(os.path.join(directory, MARKER))


def check_space(
    needed: Mapping[str, int], target: str, replaced: Collection[str] = ()
) -> None:
    """Refuse when a file system lacks room.

    Args:
        needed: bytes by directory.
        target: the data directory; what an incomplete restore left there and in its
            tablespaces will be cleared, and counts as free.
        replaced: directories whose content gives way to the new.

    Raises:
        NoSpace: says how much is missing.
    """
    cleared = {*_places_to_clear(target), *replaced}
    by_device: dict[int, tuple[str, int, int]] = {}
    for directory, count in needed.items():
        existing = _existing(directory)
        device = os.stat(existing).st_dev
        _, total, freed = by_device.get(device, ("", 0, 0))
        if directory in cleared:
            freed += _disk_usage(directory)
        by_device[device] = (directory, total + count, freed)
    for directory, total, freed in by_device.values():
        status = os.statvfs(_existing(directory))
        free = status.f_bavail * status.f_frsize + freed
        if total > free:
            raise NoSpace(
                f"the restore writes {total} bytes to the file system of {directory}, "
                f"which has {free} free",
                hint="free some room, or restore to another directory",
            )


def marked_tablespaces(directory: str, kind: str = "tablespaces") -> list[str]:
    """Return the tablespaces that an incomplete restore into `directory` wrote to.

    Args:
        kind: `shared` for those that hold what is not the cluster's as well.
    """
    try:
        marker = json.loads(read_regular(os.path.join(directory, MARKER)))
        return [str(place) for place in marker[kind]]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def is_own_tablespace(place: str) -> bool:
    """Say whether a directory holds nothing but a tablespace's own directories."""
    try:
        names = os.listdir(place)
    except OSError:
        return False
    return all(name.startswith("PG_") for name in names)


def names_in(directory: str) -> list[str]:
    """Return what is in a directory.

    Raises:
        DrkitError: this user may not look.
    """
    try:
        return os.listdir(directory)
    except OSError as error:
        raise DrkitError(
            f"can't look into {directory}: {error.strerror}",
            hint="it must belong to the user who restores, or run as root",
        ) from error


def _places_to_clear(target: str) -> list[str]:
    if not is_incomplete(target):
        return []
    return [target, *filter(is_own_tablespace, marked_tablespaces(target))]


def _disk_usage(directory: str) -> int:
    """Return the bytes on disk below a directory, as far as they can be seen."""
    total = 0
    for parent, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(parent, name)).st_blocks * 512
    return total


def _existing(path: str) -> str:
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return path
