"""A data directory that a restore brings back to its backup: what fits stays."""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING

from drkit.model.manifest import CONTROL_FILE, FileKind
from drkit.ownership import acting_as
from drkit.postgres.existing_checks import (
    is_shared,
    refuse_unless_own_tablespace,
    refuse_unless_replaceable,
    wal_place,
)
from drkit.postgres.surplus import find_surplus, give_directories
from drkit.postgres.target_checks import MARKER
from drkit.postgres.target_directory import (
    TargetDirectory,
    lock,
    open_directory,
    reach,
    settle,
    take_over,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from drkit.model.owner import Owner
    from drkit.postgres.surplus import Kinds, Surplus

_PG_WAL = b"pg_wal"
_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class ExistingDirectory(TargetDirectory):
    """The data directory of a cluster that is restored in place.

    Args:
        path: absolute.
        tablespaces: by oid, where each one that is not in place goes, absolute.
        owner: given when running as root.
        system_identifier: of the backup; the directory must have the same.
        kinds: what the backup has at a path, None where nothing.

    Attributes:
        deleted: files that were there, and that the backup does not have.
    """

    def __init__(
        self,
        path: str,
        tablespaces: Mapping[int, str],
        owner: Owner | None,
        system_identifier: str,
        kinds: Kinds,
    ) -> None:
        super().__init__(path, tablespaces, owner)
        self._system_identifier = system_identifier
        self._backup_has = kinds
        self._kept: set[bytes] = set()
        self.deleted = 0

    def begin(self) -> None:
        """Mark the directory, and delete what the backup does not have.

        Nothing is deleted before the mark is durable, and then first `pg_control`,
        without which no server starts.

        Raises:
            TargetNotEmpty: it is not to be touched.
        """
        with acting_as(self._owner):
            self._root = open_directory(self.path)
            lock(self._root, self.path)
            refuse_unless_replaceable(self.path, self._system_identifier)
        take_over(self._root, self.path, self._owner)
        self._take_directories(self._root, b"")
        for prefix, place in self._tablespaces.items():
            self._take_tablespace(prefix, place)
        with acting_as(self._owner):
            self._clear_out()

    def _take_tablespace(self, prefix: bytes, place: str) -> None:
        descriptor = reach(place, self._owner)
        try:
            with acting_as(self._owner):
                refuse_unless_own_tablespace(place, self.path)
            take_over(descriptor, place, self._owner)
            self._take_directories(descriptor, prefix)
        finally:
            os.close(descriptor)

    def _take_directories(self, directory: int, prefix: bytes) -> None:
        """Give the owner what is root's, or the owner could not clear it out."""
        if self._owner and os.geteuid() == 0:
            give_directories(directory, prefix, self._owner, self._kind)

    def _clear_out(self) -> None:
        wal = wal_place(self.path, owners(self._owner))
        self._mark()
        self._remove_control()
        self._open_roots(wal)
        for one in self.surplus():
            one.delete()
            self.deleted += not (one.directory or one.replaced)

    def surplus(self) -> Iterator[Surplus]:
        """Yield what is in the directory, and must go."""
        for prefix, root in [(b"", self._root), *self._roots.items()]:
            yield from find_surplus(root, prefix, self._kind, self._kept)

    def look(self) -> None:
        """Open the directories to look for what is surplus, and change nothing."""
        with acting_as(self._owner):
            self._root = open_directory(self.path)
            self._open_roots(wal_place(self.path, owners(self._owner)))

    def link_tablespaces(self) -> None:
        """Make the links in `pg_tblspc` that are not there."""
        for prefix, place in self._tablespaces.items():
            if prefix.rstrip(b"/") not in self._kept:
                self._link(prefix.rstrip(b"/"), place)

    def make_directory(self, path: bytes, mode: int) -> None:
        """Make a directory of the cluster if it is not there; give it `mode`."""
        with self._parent(path) as (parent, name):
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=parent)
            descriptor = open_directory(name, parent)
            try:
                settle(descriptor, mode, self._owner)
            finally:
                os.close(descriptor)

    def open_existing(self, path: bytes) -> int | None:
        """Open a file for reading and writing; None if it is not there."""
        with contextlib.suppress(FileNotFoundError), self._parent(path) as place:
            parent, name = place
            try:
                return os.open(name, _FLAGS, dir_fd=parent)
            except PermissionError:  # its owner may not write: a key, perhaps
                os.chmod(name, 0o600, dir_fd=parent)
                return os.open(name, _FLAGS, dir_fd=parent)
        return None

    def open(self, path: bytes, mode: int) -> int:
        """Open a file, making it at first; return its descriptor."""
        descriptor = self.open_existing(path)
        return super().open(path, mode) if descriptor is None else descriptor

    def finish(self, descriptor: int, mode: int, mtime: int | None = None) -> None:
        """Give a file its mode, group and time if it lacks them, and make it durable.

        That is for unchanged files too: a server that crashed leaves pages in the
        system's cache, and no one to write them to disk.
        """
        with acting_as(self._owner):
            settle(descriptor, mode, self._owner)
            if mtime is not None and os.fstat(descriptor).st_mtime_ns != mtime * 10**9:
                os.utime(descriptor, (mtime, mtime))
        os.fsync(descriptor)

    def _kind(self, path: bytes) -> FileKind | None:
        """Return what shall be at a path: at a link's place nothing but a link."""
        linked = path + b"/" in self._tablespaces or path == MARKER.encode()
        return None if linked else self._backup_has(path)

    def _mark(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(MARKER + ".drkit", dir_fd=self._root)
        self.put_last(MARKER.encode(), self._marker(), 0o600)
        os.fsync(self._root)

    def _marker(self) -> bytes:
        """Return the mark's content.

        A restore without --delta clears the tablespaces that the mark names, so those
        that others share have a list of their own.
        """
        content = json.loads(super()._marker())
        shared = [place for place in content["tablespaces"] if is_shared(place)]
        content["tablespaces"] = sorted({*content["tablespaces"]} - {*shared})
        return json.dumps(content | {"shared": shared}).encode()

    def _remove_control(self) -> None:
        try:
            with (
                contextlib.suppress(FileNotFoundError),
                self._parent(CONTROL_FILE) as (parent, name),
            ):
                os.unlink(name, dir_fd=parent)
                os.fsync(parent)
        except NotADirectoryError:  # a link has the place of its directory
            os.unlink(os.path.dirname(CONTROL_FILE), dir_fd=self._root)
            os.fsync(self._root)

    def _open_roots(self, wal: str | None) -> None:
        for prefix, place in self._tablespaces.items():
            if os.path.isdir(place):
                self._roots[prefix] = open_directory(place)
            if self._leads_to(prefix.rstrip(b"/"), place):
                self._kept.add(prefix.rstrip(b"/"))
        if wal is not None:
            self._roots[_PG_WAL + b"/"] = open_directory(wal)
            self._kept.add(_PG_WAL)
        self._kept.add(MARKER.encode())

    def _leads_to(self, link: bytes, place: str) -> bool:
        try:
            with self._parent(link) as (parent, name):
                return os.readlink(name, dir_fd=parent) == os.fsencode(place)
        except OSError:
            return False


def owners(owner: Owner | None) -> set[int]:
    """Return the users whose directories a restore may empty."""
    return {owner.uid} if owner else {os.geteuid()}
