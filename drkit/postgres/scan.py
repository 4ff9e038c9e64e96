"""What there is to copy: a walk over a data directory and its tablespaces."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from drkit.errors import SourceUnreadable
from drkit.model.head import Tablespace
from drkit.model.manifest import FileKind
from drkit.postgres.exclusions import (
    EMPTIED,
    KEPT_IN_WAL,
    Fork,
    excluded_directory,
    excluded_file,
    holds_relations,
    of_the_cluster,
    relation_file,
    superseded_by_init,
    unlogged,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

_TABLESPACES = b"pg_tblspc"
_VERSION_DIRECTORY = re.compile(rb"PG_\d+(?:\.\d+)?_(\d+)\Z")
_MODE = 0o777
DATABASE_VERSION = b"PG_VERSION"
"""Stands in each database's directory."""


class FoundFile(NamedTuple):
    """A file or directory as the walk met it.

    Attributes:
        path: relative to the data directory, as the manifest names it.
        place: where it is on disk; differs from `path` for tablespaces.
        root: a directory above it, from which no link leads to it: that of the cluster
            or of the tablespace.
        mtime: seconds since 1970.
        identity: see `CopiedFile`.
    """

    path: bytes
    place: bytes
    root: bytes
    kind: FileKind
    mode: int
    size: int
    mtime: int
    identity: int = 0


@dataclass(slots=True)
class Found:
    """What a walk found, files in the order of the walk."""

    files: list[FoundFile] = field(default_factory=list)
    tablespaces: list[Tablespace] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def scan(
    data_directory: str, names: Mapping[int, str] | None, catalog_version: int
) -> Found:
    """List what a base backup of a running cluster copies, by path.

    Links are followed to tablespaces only. `pg_wal` may be one: nothing in it is
    listed.

    Args:
        names: the tablespaces' names by oid, by the server's word; None follows every
            link that looks like a tablespace's.
        catalog_version: of this server; a tablespace directory may be shared with
            other versions, whose parts are not this cluster's.

    Raises:
        SourceUnreadable: a directory or file can't be listed, or a link has the place
            of something that the cluster can't do without.
    """
    found = Found()
    root = os.fsencode(data_directory)
    _Walker(found, root, names, catalog_version).walk(root, b"")
    found.files.sort()
    return found


def unlogged_since(found: Found) -> set[bytes]:
    """Return the paths of files that turn out to be of unlogged relations.

    Their init forks have come since the walk; see `superseded_by_init`. WAL since the
    backup's start has them.
    """
    new = [
        file.path + b"/" + name
        for file in found.files
        if file.kind is FileKind.DIRECTORY and holds_relations(file.path)
        for name in _init_forks(file.place)
    ]
    if not new:
        return set()
    there = superseded_by_init([*new, *(file.path for file in found.files)])
    return {file.path for file in found.files if file.path in there and _is_same(file)}


def _init_forks(directory: bytes) -> list[bytes]:
    try:
        return [name for name in os.listdir(directory) if name.endswith(b"_init")]
    except OSError:
        return []  # dropped since the walk, with all that was in it


def _is_same(file: FoundFile) -> bool:
    """Say whether a file is the one that the walk met, and no other of its name."""
    try:
        return os.stat(file.place).st_ino == file.identity
    except OSError:
        return False


class _Walker:
    def __init__(
        self,
        found: Found,
        root: bytes,
        names: Mapping[int, str] | None,
        catalog_version: int,
    ) -> None:
        self._found = found
        self._root = root
        self._names = names
        self._catalog = str(catalog_version).encode()

    def walk(self, place: bytes, path: bytes) -> None:
        """Take in a directory's entries; `place` is where `path` is on disk."""
        entries = self._entries(place, path)
        init_forks = (
            unlogged([e.name for e in entries]) if holds_relations(path) else set()
        )
        for entry in entries:
            child = path + b"/" + entry.name if path else entry.name
            if _only_init_fork(child, init_forks):
                continue
            self._take(entry, child)

    def _take(self, entry: os.DirEntry[bytes], path: bytes) -> None:
        try:
            status = entry.stat(follow_symlinks=False)
            if stat.S_ISLNK(status.st_mode):
                followed = self._link(entry, path)
                if followed is None:
                    return
                status = followed
        except FileNotFoundError:
            return  # dropped since it was listed; WAL replay drops it too
        except OSError as error:
            raise _unreadable(entry.path, error) from error
        if stat.S_ISDIR(status.st_mode):
            self._directory(entry.path, path, status)
        elif stat.S_ISREG(status.st_mode):
            if not excluded_file(path):
                self._add(path, entry.path, FileKind.FILE, status)
        else:
            self._warn(path, "is neither file nor directory and was left out")

    def _directory(self, place: bytes, path: bytes, status: os.stat_result) -> None:
        if excluded_directory(path):
            return
        parent, _, name = path.rpartition(b"/")
        if parent.startswith(_TABLESPACES + b"/") and parent.count(b"/") == 1:
            version = _VERSION_DIRECTORY.match(name)
            if version is None or version[1] != self._catalog:
                return  # another server's part of a shared location
        self._add(path, place, FileKind.DIRECTORY, status)
        if path in EMPTIED:
            self._emptied(place, path, status)
            return
        root = self._root
        if parent == _TABLESPACES and name.isdigit():
            self._root = self._tablespace(place, path, int(name))
        self.walk(place, path)
        self._root = root

    def _emptied(self, place: bytes, path: bytes, status: os.stat_result) -> None:
        for kept in KEPT_IN_WAL:
            if kept.startswith(path + b"/") and os.path.isdir(
                place + kept[len(path) :]
            ):
                self._add(kept, place + kept[len(path) :], FileKind.DIRECTORY, status)

    def _tablespace(self, place: bytes, path: bytes, oid: int) -> bytes:
        """Note a tablespace; return the directory from which no link leads on."""
        in_place = not os.path.islink(place)
        where = path if in_place else os.readlink(place)
        name = (self._names or {}).get(oid, str(oid))
        self._found.tablespaces.append(
            Tablespace(oid, os.fsdecode(where), name, in_place)
        )
        return self._root if in_place else place

    def _link(self, entry: os.DirEntry[bytes], path: bytes) -> os.stat_result | None:
        """Look where a link leads, if it is one that is followed; else return None.

        Whoever owns the directory can make a link to anything, so what it leads to is
        no part of the cluster unless the server says so.
        """
        if path in EMPTIED or self._is_tablespace(path):
            return self._followed(entry, path)
        if of_the_cluster(path):
            raise SourceUnreadable(
                f"{os.fsdecode(entry.path)} is a symbolic link, and the cluster's data "
                "may lie behind it: drkit follows links to tablespaces and pg_wal only",
                hint="stop the server and move what it leads to into its place, or "
                "move the tables to a tablespace; no backup was made",
            )
        self._warn(path, f"is a symbolic link to {_target(entry)} and was left out")
        return None

    def _is_tablespace(self, path: bytes) -> bool:
        parent, _, name = path.rpartition(b"/")
        if parent != _TABLESPACES or not name.isdigit():
            return False
        return self._names is None or int(name) in self._names

    def _followed(
        self, entry: os.DirEntry[bytes], path: bytes
    ) -> os.stat_result | None:
        try:
            status = entry.stat(follow_symlinks=True)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ELOOP):
                raise
            self._warn(path, "links to nothing and was left out")
            return None
        if not stat.S_ISDIR(status.st_mode):
            self._warn(path, "links to no directory and was left out")
            return None
        return status

    def _add(
        self, path: bytes, place: bytes, kind: FileKind, status: os.stat_result
    ) -> None:
        size = status.st_size if kind is FileKind.FILE else 0
        mode, mtime = status.st_mode & _MODE, int(status.st_mtime)
        identity = _identity(path, status) if kind is FileKind.FILE else 0
        file = FoundFile(path, place, self._root, kind, mode, size, mtime, identity)
        self._found.files.append(file)

    def _entries(self, place: bytes, path: bytes) -> list[os.DirEntry[bytes]]:
        try:
            with os.scandir(place) as entries:
                return list(entries)
        except FileNotFoundError:
            if not path:
                raise _unreadable(
                    place, FileNotFoundError("no such directory")
                ) from None
            return []  # a database dropped since it was listed
        except OSError as error:
            raise _unreadable(place, error) from error

    def _warn(self, path: bytes, what: str) -> None:
        self._found.warnings.append(f"{os.fsdecode(path)} {what}")


def _target(entry: os.DirEntry[bytes]) -> str:
    try:
        return os.fsdecode(os.readlink(entry.path))
    except OSError:
        return "something that is gone"


def _identity(path: bytes, status: os.stat_result) -> int:
    """Tell a file from one of the same name that was there before.

    An inode's number may come again. `PG_VERSION` is written once in the life of a
    database, so the time of its last change tells that database from another.
    """
    if path.rpartition(b"/")[2] != DATABASE_VERSION:
        return status.st_ino
    mark = f"{status.st_ino} {status.st_ctime_ns}".encode()
    return int.from_bytes(hashlib.blake2b(mark, digest_size=8).digest(), "big")


def _only_init_fork(path: bytes, init_forks: set[int]) -> bool:
    """Say whether a file is another fork of an unlogged relation than its init fork."""
    if not init_forks:
        return False
    file = relation_file(path)
    return file is not None and file.number in init_forks and file.fork is not Fork.INIT


def _unreadable(place: bytes, error: OSError) -> SourceUnreadable:
    return SourceUnreadable(
        f"can't read {os.fsdecode(place)}: {error.strerror or error}",
        hint="run drkit as the data directory's owner, or as root",
    )
