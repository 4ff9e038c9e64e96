"""What a verification has done so far, so that an interrupted one can go on.

A local file, not an object: a repository may be read-only, and of two hosts that verify
one each follows its own. Only what was found sound is remembered; damage is looked at,
and told, again. A file that is lost costs no more than looking at everything again.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
import threading
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from drkit.errors import Locked

if TYPE_CHECKING:
    from collections.abc import Mapping

_FORMAT = 1
_TRUSTED_FOR = timedelta(days=7)
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


class Journal:
    """Names of objects that were found sound; used by several threads.

    Attributes:
        begun: when the verification began that this one goes on with.
        done: what it had found sound.
    """

    def __init__(
        self, descriptor: int, path: str, begun: datetime, done: frozenset[str]
    ) -> None:
        self.begun = begun
        self.done = done
        self._descriptor = descriptor
        self._path = path
        self._lock = threading.Lock()

    def sound(self, name: str) -> None:
        """Remember that an object was found sound.

        It outlives the process; after a crash of the machine some may be missing.
        """
        with self._lock:
            os.write(self._descriptor, name.encode() + b"\n")

    def finish(self) -> None:
        """Forget everything: the verification has come to its end."""
        with contextlib.suppress(OSError):
            os.unlink(self._path)

    def close(self) -> None:
        """Let another process have it."""
        os.close(self._descriptor)


def open_journal(
    path: str, scope: Mapping[str, object], now: datetime, *, resume: bool
) -> Journal:
    """Open the journal of a verification, and go on with it or begin anew.

    Args:
        scope: what is verified; a journal of another scope is not gone on with, and
            neither is one that is older than a week.

    Raises:
        Locked: another process verifies the same.
        OSError: the file can't be written.
    """
    directory = os.path.dirname(path)
    os.makedirs(directory, mode=0o700, exist_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    try:
        _lock(descriptor, path)
        found = _read(descriptor, scope, now) if resume else None
        begun, done = found or (now, frozenset())
        if found is None:
            os.ftruncate(descriptor, 0)
            head = {"format": _FORMAT, "begun": now.isoformat(), "scope": dict(scope)}
            os.write(descriptor, json.dumps(head).encode() + b"\n")
    except BaseException:
        os.close(descriptor)
        raise
    return Journal(descriptor, path, begun, done)


def _lock(descriptor: int, path: str) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Locked(
            "the same verification is running on this host already",
            hint=f"wait for it; it holds {path}",
        ) from None


def _read(
    descriptor: int, scope: Mapping[str, object], now: datetime
) -> tuple[datetime, frozenset[str]] | None:
    """Return when a journal was begun and what it holds; None if it is of no use.

    A last line without its end was cut off: it counts for nothing, and is removed.
    """
    status = os.fstat(descriptor)
    if status.st_uid != os.geteuid() or status.st_mode & _WRITABLE_BY_OTHERS:
        return None
    with open(os.dup(descriptor), "rb") as file:
        file.seek(0)
        data = file.read()
    lines = data[: data.rfind(b"\n") + 1].splitlines()
    os.ftruncate(descriptor, data.rfind(b"\n") + 1)
    begun = _begun(lines[0], scope) if lines else None
    if begun is None or not timedelta(0) <= now - begun <= _TRUSTED_FOR:
        return None
    names = (line.decode("ascii", "replace") for line in lines[1:])
    return begun, frozenset(names)


def _begun(line: bytes, scope: Mapping[str, object]) -> datetime | None:
    try:
        head: Any = json.loads(line)
        if head["format"] != _FORMAT or head["scope"] != dict(scope):
            return None
        begun = datetime.fromisoformat(head["begun"])
    except (ValueError, KeyError, TypeError):
        return None
    return begun if begun.tzinfo is not None else None
