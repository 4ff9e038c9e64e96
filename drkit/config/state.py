"""What a host remembers of each log: one small file for each, outside of repositories.

Root keeps it in /var/lib/drkit; another user in his own state directory. A file counts
only if root or this user owns it and its directory, and nobody else can write either.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from drkit.config.cache import home_of
from drkit.model import members
from drkit.model.log_head import KnownHead, LogHead

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SYSTEM_STATE = "/var/lib/drkit"
_MAX_FILE = 1 << 22
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


class StateFiles:
    """A host's memory of one log; see `drkit.protocols.HeadMemory`.

    A head that root has seen counts for everybody; each user adds what he sees.
    """

    def __init__(
        self, environ: Mapping[str, str], lineage: bytes, cluster: str
    ) -> None:
        self._directories = state_directories(environ)
        self._name = f"head-{cluster}-{lineage.hex()}.json"
        self._problem: str | None = None

    @property
    def problem(self) -> str | None:
        """Why nothing can be remembered, or what is not believed."""
        return self._problem

    def recall(self) -> KnownHead | None:
        """Return the newest head that is in any of the files."""
        found = [self._read(directory) for directory in self._directories]
        known = [one for one in found if one is not None]
        return max(known, key=lambda one: one.head.sequence, default=None)

    def remember(self, seen: KnownHead) -> None:
        """Keep a head where this user may write, unless a newer one is there."""
        self._write(seen, only_forward=True)

    def replace(self, seen: KnownHead) -> None:
        """Keep a head, whatever is there."""
        self._write(seen, only_forward=False)

    def _read(self, directory: str) -> KnownHead | None:
        path = os.path.join(directory, self._name)
        try:
            with open(path, "rb", opener=_without_following) as file:
                for status in (os.fstat(file.fileno()), os.stat(directory)):
                    _refuse_foreign(path, status)
                return _decode(file.read(_MAX_FILE))
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            self._problem = f"{path} is not believed: {_told(error)}"
            return None

    def _write(self, seen: KnownHead, *, only_forward: bool) -> None:
        """Write to the first directory that takes it."""
        problems = []
        for directory in self._directories:
            try:
                self._write_in(directory, seen, only_forward=only_forward)
            except (OSError, ValueError) as error:
                problems.append(f"{directory}: {_told(error)}")
            else:
                return
        told = "; ".join(problems) or "there is no directory for it"
        self._problem = f"the log's head can't be remembered: {told}"

    def _write_in(self, directory: str, seen: KnownHead, *, only_forward: bool) -> None:
        _make(directory)
        _refuse_foreign(directory, os.stat(directory))
        path = os.path.join(directory, self._name)
        with _locked(f"{path}.lock"):
            known = self._read(directory)
            if known is None and os.path.lexists(path) and only_forward:
                raise ValueError(f"{self._name} is not believed, so it stays as it is")
            if known is None or not only_forward or _newer(seen, known):
                _replace(path, _encode(seen))


def state_directories(environ: Mapping[str, str]) -> list[str]:
    """Return where heads are remembered, the one to write to first."""
    chosen = environ.get("DRKIT_STATE_DIR", "")
    if os.path.isabs(chosen):
        return [chosen]
    base = environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(base):
        home = home_of(environ)
        base = os.path.join(home, ".local", "state") if os.path.isabs(home) else ""
    own = [os.path.join(base, "drkit")] if base else []
    root = os.geteuid() == 0
    return [SYSTEM_STATE] if root else [SYSTEM_STATE, *own]


def _newer(seen: KnownHead, known: KnownHead) -> bool:
    return seen.head.sequence > known.head.sequence


def _refuse_foreign(path: str, status: os.stat_result) -> None:
    """Refuse what somebody else can have written.

    Raises:
        ValueError: says whose it is.
    """
    mode = stat.S_IMODE(status.st_mode)
    if status.st_uid not in {0, os.geteuid()}:
        raise ValueError(f"{path} belongs to user {status.st_uid}")
    if mode & _OTHERS_WRITE:
        raise ValueError(f"{path} can be written by others (mode {mode:04o})")


def _without_following(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _make(directory: str) -> None:
    """Make a directory and those above it, writable by this user only."""
    if not os.path.isdir(directory):
        _make(os.path.dirname(directory))
        with suppress(FileExistsError):
            os.mkdir(directory, 0o755)


@contextmanager
def _locked(path: str) -> Iterator[None]:
    """Let one process at a time compare and write."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    lock = os.open(path, flags, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _replace(path: str, data: bytes) -> None:
    """Write a file durably, whole or not at all."""
    attempt = f"{path}.{os.getpid()}.tmp"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
    try:
        with open(os.open(attempt, flags, 0o644), "wb") as file:
            os.fchmod(file.fileno(), 0o644)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(attempt, path)
    except OSError:
        if os.path.lexists(attempt):
            os.unlink(attempt)
        raise
    directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _encode(seen: KnownHead) -> bytes:
    found = {
        "drkit": "log head",
        "format": 1,
        "sequence": seen.head.sequence,
        "digest": seen.head.digest,
        "time": None if seen.time is None else seen.time.isoformat(),
        "labels": list(seen.labels),
    }
    return json.dumps(found, indent=2).encode() + b"\n"


def _decode(data: bytes) -> KnownHead:
    found = members.parse_object(data)
    if (found["drkit"], found["format"]) != ("log head", 1):
        raise ValueError("it is no such file, or one of a later drkit")
    head = LogHead(members.count(found, "sequence"), members.sha256(found, "digest"))
    time = None if found["time"] is None else members.moment(found, "time")
    return KnownHead(head, time, members.texts(found, "labels"))


def _told(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error) if isinstance(error, ValueError) else "it is malformed"
