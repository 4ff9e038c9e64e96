"""The directory that a restore fills: refused unless empty, marked until complete.

A repository is hostile input, so every open goes down from the directory that this run
holds, part by part, and follows no link but those to tablespaces. Root does all of it
as the owner of the cluster, who could plant links there.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

from drkit.errors import DrkitError, TargetNotEmpty
from drkit.ownership import acting_as, give, reach_directory
from drkit.postgres.files import open_regular
from drkit.postgres.removing import empty
from drkit.postgres.target_checks import (
    MARKER,
    is_incomplete,
    is_own_tablespace,
    marked_tablespaces,
    refuse_unless_free,
    refuse_unless_free_tablespace,
)
from drkit.writing import write_all

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from drkit.model.owner import Owner

_CONTROL_FILE = "global/pg_control"
_DIRECTORY = 0o700
_FIRST_OF_FILE = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


class TargetDirectory:
    """A data directory in the making, with its tablespaces.

    Args:
        path: absolute.
        tablespaces: by oid, where each one that is not in place goes, absolute.
        owner: given when running as root.
    """

    def __init__(
        self, path: str, tablespaces: Mapping[int, str], owner: Owner | None
    ) -> None:
        self.path = path
        self._tablespaces = {
            f"pg_tblspc/{oid}/".encode(): place for oid, place in tablespaces.items()
        }
        self._owner = owner
        self._root = -1
        self._roots: dict[bytes, int] = {}

    def begin(self) -> None:
        """Make the directories, empty what an incomplete restore left, and mark.

        Raises:
            TargetNotEmpty: something came there since the plan was made.
        """
        self._root = reach(self.path, self._owner)
        with acting_as(self._owner):
            lock(self._root, self.path)
            refuse_unless_free(self.path)
        _refuse_unless_empty(self._root, self.path)
        take_over(self._root, self.path, self._owner)
        for prefix, place in self._tablespaces.items():
            self._roots[prefix] = reach(place, self._owner)
            with acting_as(self._owner):
                refuse_unless_free_tablespace(place, self.path)
            take_over(self._roots[prefix], place, self._owner)
        with acting_as(self._owner):
            if is_incomplete(self.path):
                _clear(self._root, self.path)
        self.write(MARKER.encode(), self._marker(), 0o600)
        os.fsync(self._root)

    def link_tablespaces(self) -> None:
        """Make the links in `pg_tblspc`; its directory must be there."""
        for prefix, place in self._tablespaces.items():
            self._link(prefix.rstrip(b"/"), place)

    def is_link(self, path: bytes) -> bool:
        """Say whether a path is the place of a link, not of a directory."""
        return path + b"/" in self._roots

    def make_directory(self, path: bytes, mode: int) -> None:
        """Make a directory of the cluster, with exactly `mode`."""
        with self._parent(path) as (parent, name):
            os.mkdir(name, 0o700, dir_fd=parent)
            descriptor = open_directory(name, parent)
            try:
                settle(descriptor, mode, self._owner)
            finally:
                os.close(descriptor)

    def open(self, path: bytes, mode: int) -> int:
        """Open a file, making it at first; return its descriptor."""
        private = mode & 0o700 | 0o600
        try:
            with self._parent(path) as (parent, name):
                descriptor = os.open(name, _FIRST_OF_FILE, private, dir_fd=parent)
        except OSError as error:
            error.filename = path  # the name alone is that of many files
            raise
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise TargetNotEmpty(f"{os.fsdecode(path)} in {self.path} is no file")
        return descriptor

    def finish(self, descriptor: int, mode: int, mtime: int | None = None) -> None:
        """Give a file its mode, group and time, and make it durable."""
        with acting_as(self._owner):
            settle(descriptor, mode, self._owner)
            if mtime is not None:
                os.utime(descriptor, (mtime, mtime))
        os.fsync(descriptor)

    def write(self, path: bytes, content: bytes, mode: int) -> None:
        """Write a whole small file."""
        descriptor = self.open(path, mode)
        try:
            os.ftruncate(descriptor, 0)
            write_all(descriptor, content)
            self.finish(descriptor, mode)
        finally:
            os.close(descriptor)

    def read(self, path: bytes) -> bytes:
        """Read a small file that was restored; empty if there is none."""
        try:
            with self._parent(path) as (parent, name):
                descriptor = open_regular(name, parent)
        except FileNotFoundError:
            return b""
        with open(descriptor, "rb") as file:
            return file.read()

    def put_last(self, path: bytes, content: bytes, mode: int) -> None:
        """Write a file under another name and rename it: it appears whole or never."""
        waiting = path + b".drkit"
        self.write(waiting, content, mode)
        with self._parent(waiting) as (parent, name):
            final = os.path.basename(path)
            os.rename(name, final, src_dir_fd=parent, dst_dir_fd=parent)

    def settle_directories(self, modes: Mapping[bytes, int]) -> None:
        """Make the names in directories durable, and give them their modes at last.

        Some forbid their owner what a restore has to do in them, or above others.
        Those below come first. The data directory's own names are made durable too.
        """
        for path in sorted(modes, reverse=True):
            with self._parent(path) as (parent, name):
                descriptor = open_directory(name, parent)
                try:
                    os.fchmod(descriptor, modes[path])
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
        for descriptor in (self._root, *self._roots.values()):
            os.fsync(descriptor)

    def set_mode(self, mode: int) -> None:
        """Give the data directory and the tablespaces' directories their mode."""
        with acting_as(self._owner):
            for descriptor in (self._root, *self._roots.values()):
                os.fchmod(descriptor, mode)

    def complete(self) -> None:
        """Take the mark away."""
        with acting_as(self._owner):
            os.unlink(MARKER, dir_fd=self._root)
        os.fsync(self._root)

    def close(self) -> None:
        """Close what is open."""
        for descriptor in (self._root, *self._roots.values()):
            if descriptor >= 0:
                os.close(descriptor)
        self._root, self._roots = -1, {}

    @contextmanager
    def _parent(self, path: bytes) -> Iterator[tuple[int, bytes]]:
        """Open the directory that a path's last part stands in; follow no link.

        Whatever is done in it is done as the owner.
        """
        root, below = self._place(path)
        *parents, name = below.split(b"/")
        opened = root
        with acting_as(self._owner):
            try:
                for parent in parents:
                    above, opened = opened, open_directory(parent, opened)
                    if above != root:
                        os.close(above)
                yield opened, name
            finally:
                if opened != root:
                    os.close(opened)

    def _place(self, path: bytes) -> tuple[int, bytes]:
        for prefix, descriptor in self._roots.items():
            if path.startswith(prefix):
                return descriptor, path[len(prefix) :]
        return self._root, path

    def _link(self, path: bytes, place: str) -> None:
        with self._parent(path) as (parent, name):
            os.symlink(place, name, dir_fd=parent)

    def _marker(self) -> bytes:
        places = sorted(self._tablespaces.values())
        note = "a drkit restore into this directory did not end; run it again"
        return json.dumps({"drkit": note, "tablespaces": places}).encode()


def lock(directory: int, path: str) -> None:
    """Keep other restores out for as long as this one has the directory open."""
    try:
        fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise TargetNotEmpty(
            f"another restore is writing to {path}",
            hint="wait for it, or restore to another directory",
        ) from None


def _clear(directory: int, path: str) -> None:
    """Delete what an incomplete restore wrote; the mark goes last.

    The control file goes first: without it no server starts on what is left.
    """
    with contextlib.suppress(FileNotFoundError):
        os.unlink(_CONTROL_FILE, dir_fd=directory)
        _sync(os.path.join(path, os.path.dirname(_CONTROL_FILE)))
    for place in marked_tablespaces(path):
        if is_own_tablespace(place):
            _empty(place, keep="")
    _empty(path, keep=MARKER)


def _empty(directory: str, keep: str) -> None:
    descriptor = open_directory(directory)
    try:
        empty(descriptor, keep)
    finally:
        os.close(descriptor)


def reach(directory: str, owner: Owner | None) -> int:
    """Open a directory, made if need be with what is missing above it.

    Raises:
        DrkitError: this user may not.
    """
    try:
        return reach_directory(directory, owner, _DIRECTORY)
    except OSError as error:
        raise DrkitError(
            f"can't make {directory}: {error.strerror}",
            hint="run as a user who may, or choose another directory",
        ) from error


def take_over(descriptor: int, directory: str, owner: Owner | None) -> None:
    """Make an open directory its owner's alone.

    Raises:
        DrkitError: this user may not.
    """
    try:
        give(descriptor, directory, owner)
        with acting_as(owner):
            settle(descriptor, _DIRECTORY, owner)
    except OSError as error:
        raise DrkitError(
            f"can't take over {directory}: {error.strerror}",
            hint="it must belong to the user who restores, or run as root",
        ) from error


def settle(descriptor: int, mode: int, owner: Owner | None) -> None:
    """Give what is open its mode and its owner's group, if it has others."""
    status = os.fstat(descriptor)
    if owner and status.st_gid != owner.gid:
        os.fchown(descriptor, -1, owner.gid)
    if stat.S_IMODE(status.st_mode) != mode:
        os.fchmod(descriptor, mode)


def _refuse_unless_empty(directory: int, path: str) -> None:
    """Look once more, into what is open now."""
    names = os.listdir(directory)
    if names and MARKER not in names:
        raise TargetNotEmpty(
            f"{path} is not empty",
            hint="restore to a directory that nobody else writes to",
        )


def _sync(path: str | bytes, parent: int | None = None) -> None:
    """Make the names in a directory durable."""
    descriptor = open_directory(path, parent)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_directory(path: str | bytes, parent: int | None = None) -> int:
    """Open a directory; one that is named from a parent is never reached by a link."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    if parent is not None:
        flags |= os.O_NOFOLLOW
    return os.open(path, flags, dir_fd=parent)
