"""Does a server run on this directory? Asked before anything in it is overwritten."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import TYPE_CHECKING

from drkit.postgres.files import read_text

if TYPE_CHECKING:
    from collections.abc import Iterator

_PROGRAMS = ("postgres", "postmaster")
_PATIENCE = 2.0  # seconds for a socket to answer


def server_process(directory: str) -> int | None:
    """Return a process of the server that runs in a data directory, if one does.

    The server's own interlock is `postmaster.pid`. Beside it count a socket that
    answers (a server in another container has a number that means nothing here), and
    any server process that works in the directory: backends outlive a postmaster that
    was killed.
    """
    lines = _lines(os.path.join(directory, "postmaster.pid"))
    named = _number(lines)
    if named is not None and (_lives(named) or _answers(lines)):
        return named
    own = _identity(directory)
    if own is None:
        return None
    return next((pid for pid, at in _servers() if own == _identity(at)), None)


def server_that_uses(place: str) -> int | None:
    """Return a server process whose `pg_wal` or a tablespace of whose a directory is.

    A copy of a data directory has the links of the original.
    """
    own = _identity(place)
    if own is None:
        return None
    return next((pid for pid, at in _servers() if own in _linked(at)), None)


def server_processes_below(directory: str) -> list[int]:
    """Return the server processes that work in a directory or below it.

    By the kernel's word, not by a lock file: also those whose directory is deleted.
    """
    return [pid for pid, at in _servers() if _works_below(at, directory)]


def processes_below(directory: str) -> list[int]:
    """Return every process that works in a directory or below it."""
    return [pid for pid, at in _processes() if _works_below(at, directory)]


def processes_of(uid: int) -> list[int]:
    """Return every process of a user."""
    return [pid for pid, at in _processes() if _owner(os.path.dirname(at)) == uid]


def _owner(place: str) -> int | None:
    try:
        return os.stat(place).st_uid
    except OSError:
        return None


def _works_below(at: str, directory: str) -> bool:
    try:
        place = os.path.join(os.readlink(at), "")
    except OSError:
        return False
    return place.startswith(os.path.join(os.path.realpath(directory), ""))


def _servers() -> Iterator[tuple[int, str]]:
    """Yield server processes that can be looked at, each with where it works."""
    for pid, at in _processes():
        if "".join(_lines(f"/proc/{pid}/comm")) in _PROGRAMS:
            yield pid, at


def _processes() -> Iterator[tuple[int, str]]:
    with contextlib.suppress(FileNotFoundError):
        for name in filter(str.isdigit, os.listdir("/proc")):
            yield int(name), f"/proc/{name}/cwd"


def _linked(data_directory: str) -> set[tuple[int, int] | None]:
    """Return the directories outside that a data directory's links lead to."""
    links = [os.path.join(data_directory, "pg_wal")]
    with contextlib.suppress(OSError):
        above = os.path.join(data_directory, "pg_tblspc")
        links += [os.path.join(above, name) for name in os.listdir(above)]
    return {_identity(link) for link in links}


def _identity(directory: str) -> tuple[int, int] | None:
    try:
        status = os.stat(directory)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return True


def _answers(lines: list[str]) -> bool:
    """Say whether the socket that `postmaster.pid` names is served, for its directory.

    Its lines are the process, the data directory, the start time, the port, and where
    the socket is; the socket's lock file begins like it.
    """
    if len(lines) < 5 or not lines[4]:
        return False
    path = os.path.join(lines[4], f".s.PGSQL.{lines[3]}")
    if _lines(f"{path}.lock")[1:2] != lines[1:2]:
        return False
    with socket.socket(socket.AF_UNIX) as asked:
        asked.settimeout(_PATIENCE)
        try:
            asked.connect(path)
        except PermissionError:
            return True  # it may be served, for others
        except OSError:
            return False
    return True


def _number(lines: list[str]) -> int | None:
    """Return the process that a lock file names; a standalone backend's is negative."""
    try:
        return abs(int(lines[0])) or None
    except (IndexError, ValueError):
        return None


def _lines(path: str) -> list[str]:
    try:
        return read_text(path).splitlines()
    except OSError:
        return []
