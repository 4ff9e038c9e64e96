"""Removing directories whose modes forbid it, as a restored `certs` of 0500 may."""

from __future__ import annotations

import os
import stat
from contextlib import suppress

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(path: str, parent: int | None = None) -> None:
    """Remove a directory with all that is in it; no link is followed.

    Args:
        parent: an open directory, where a relative path begins.

    Raises:
        OSError: it is no directory, or belongs to somebody else.
    """
    directory = _open(path, parent)
    try:
        empty(directory)
    finally:
        os.close(directory)
    os.rmdir(path, dir_fd=parent)


def empty(directory: int, keep: str = "") -> None:
    """Remove all that is in an open directory but the file `keep`.

    Raises:
        OSError: something in it belongs to somebody else.
    """
    with os.scandir(directory) as entries:
        found = [entry for entry in entries if entry.name != keep]
    for entry in found:
        if entry.is_dir(follow_symlinks=False):
            remove_tree(entry.name, directory)
        else:
            os.unlink(entry.name, dir_fd=directory)


def let_change(directory: int) -> None:
    """Let its owner change an open directory; whose it is not finds out later."""
    mode = stat.S_IMODE(os.fstat(directory).st_mode)
    if mode & stat.S_IRWXU != stat.S_IRWXU:
        with suppress(PermissionError):
            os.fchmod(directory, mode | stat.S_IRWXU)


def _open(path: str, parent: int | None) -> int:
    try:
        directory = os.open(path, _OPEN, dir_fd=parent)
    except PermissionError:
        _let_read(path, parent)
        directory = os.open(path, _OPEN, dir_fd=parent)
    let_change(directory)
    return directory


def _let_read(path: str, parent: int | None) -> None:
    """Let its owner read a directory that can't even be opened for that."""
    flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    found = os.open(path, flags, dir_fd=parent)
    try:
        os.chmod(f"/proc/self/fd/{found}", stat.S_IRWXU)
    finally:
        os.close(found)
