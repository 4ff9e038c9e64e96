"""What lies in a data directory and not in the backup that is restored over it."""

from __future__ import annotations

import os
import re
import stat
from typing import TYPE_CHECKING, NamedTuple

from drkit.errors import TargetNotEmpty
from drkit.model.manifest import FileKind
from drkit.postgres.exclusions import (
    excluded_file,
    holds_relations,
    relation_file,
)
from drkit.postgres.removing import let_change
from drkit.postgres.target_checks import MARKER

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from drkit.model.owner import Owner

    Kinds = Callable[[bytes], FileKind | None]

_LOST_AND_FOUND = b"lost+found"  # the file system's own
_TABLESPACE = re.compile(rb"pg_tblspc/\d+/\Z")

_ANY_NAME = (
    b"pg_wal/",
    b"pg_replslot/",
    b"pg_dynshmem/",
    b"pg_snapshots/",
    b"pg_stat_tmp/",
    b"pg_stat/",
    b"pg_logical/",
    b"pg_twophase/",
)
_PAGES_OF_STATUS = re.compile(
    rb"pg_(?:xact|multixact/(?:members|offsets)|commit_ts|subtrans|serial|notify)"
    rb"/[0-9A-F]+\Z"
)
_OF_DATABASE = re.compile(rb"(?:PG_VERSION|pg_filenode\.map(?:\.tmp)?)\Z")
_AT_TOP = frozenset(
    {
        b"PG_VERSION",
        b"postgresql.conf",
        b"postgresql.auto.conf",
        b"pg_hba.conf",
        b"pg_ident.conf",
        b"current_logfiles",
        b"recovery.signal",
        b"standby.signal",
        b"recovery.done",
        b"promote",
        b"global/pg_control",
        b"global/pg_control.drkit",
        MARKER.encode(),
        MARKER.encode() + b".drkit",
    }
)


class Surplus(NamedTuple):
    """Something to delete.

    Attributes:
        path: from the data directory.
        parent: descriptor of the directory that it stands in.
        link: whether it is a symbolic link.
        size: bytes on disk.
        replaced: the backup has a file of this name, which will be made anew.
    """

    path: bytes
    parent: int
    directory: bool
    link: bool
    size: int
    replaced: bool

    def delete(self) -> None:
        """Delete it; of a link the link, of a directory an empty one."""
        name = os.path.basename(self.path)
        let_change(self.parent)
        (os.rmdir if self.directory else os.unlink)(name, dir_fd=self.parent)


def find_surplus(
    directory: int, prefix: bytes, kinds: Kinds, kept: Collection[bytes]
) -> Iterator[Surplus]:
    """Yield what must go below an open directory, contents before what holds them.

    No link is followed. Where the backup has a file, everything else goes, and so does
    a file of several names: what is written to it would show under the others too.
    Another user's file gives way to one of the owner's.

    Args:
        prefix: the directory's path with a slash, or nothing for the data directory.
        kinds: what the backup has at a path, None where nothing.
        kept: paths that stay though they are links.

    Raises:
        TargetNotEmpty: another file system is mounted on what must go.
    """
    shared = _TABLESPACE.match(prefix) is not None
    with os.scandir(directory) as entries:
        found = list(entries)
    for entry in found:
        path, kind = prefix + os.fsencode(entry.name), None
        if path not in kept and not _is_file_systems(prefix, path):
            kind = kinds(path)
            if kind is not None or not shared:
                yield from _look(entry, path, directory, kind, kinds, kept)


def _look(
    entry: os.DirEntry[str],
    path: bytes,
    parent: int,
    kind: FileKind | None,
    kinds: Kinds,
    kept: Collection[bytes],
) -> Iterator[Surplus]:
    status = entry.stat(follow_symlinks=False)
    is_directory = stat.S_ISDIR(status.st_mode)
    stays = is_directory and kind is FileKind.DIRECTORY
    if is_directory:
        below = os.open(
            entry.name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent
        )
        try:
            if not stays:
                _refuse_mount(path, below, parent)
            inside = (kinds, kept) if stays else (_nothing, ())
            yield from find_surplus(below, path + b"/", *inside)
        finally:
            os.close(below)
    alone = stat.S_ISREG(status.st_mode) and status.st_nlink == 1
    alone = alone and status.st_uid == os.fstat(parent).st_uid
    if not (stays or (alone and kind is FileKind.FILE)):
        size, link = status.st_blocks * 512, stat.S_ISLNK(status.st_mode)
        yield Surplus(path, parent, is_directory, link, size, kind is not None)


def give_directories(directory: int, prefix: bytes, owner: Owner, kinds: Kinds) -> None:
    """Give the directories below an open one that are root's to the owner.

    Files are not given: the owner could have brought one of root's there. They go, or
    give way to new ones. No link is followed, and no other file system entered.

    Args:
        prefix, kinds: as for `find_surplus`; of a tablespace's place, only what the
            backup has is the cluster's.
    """
    shared = _TABLESPACE.match(prefix) is not None
    device = os.fstat(directory).st_dev
    with os.scandir(directory) as entries:
        names = [one.name for one in entries if one.is_dir(follow_symlinks=False)]
    for name in names:
        path = prefix + os.fsencode(name)
        if _is_file_systems(prefix, path) or (shared and kinds(path) is None):
            continue
        below = os.open(
            name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=directory
        )
        try:
            status = os.fstat(below)
            if status.st_dev != device:
                continue
            if status.st_uid == 0:
                os.fchown(below, *owner)
            give_directories(below, path + b"/", owner, kinds)
        finally:
            os.close(below)


def _nothing(_: bytes) -> None:
    return None


def _is_file_systems(prefix: bytes, path: bytes) -> bool:
    """Say whether a path is what a file system has at its top."""
    at_top = not prefix or prefix == b"pg_wal/" or _TABLESPACE.match(prefix) is not None
    return at_top and path == prefix + _LOST_AND_FOUND


def _refuse_mount(path: bytes, directory: int, parent: int) -> None:
    if os.fstat(directory).st_dev != os.fstat(parent).st_dev:
        raise TargetNotEmpty(
            f"another file system is mounted on {os.fsdecode(path)}, which is not in "
            "the backup",
            hint="unmount it, and run the same command again",
        )


def made_by_server(path: bytes) -> bool:
    """Say whether PostgreSQL itself makes such a file.

    The server's logs are not counted: whoever restores may want to read them first.
    """
    above, _, name = path.rpartition(b"/")
    if path in _AT_TOP or path.startswith(_ANY_NAME) or excluded_file(path):
        return True
    if holds_relations(above):
        return relation_file(path) is not None or bool(_OF_DATABASE.match(name))
    return bool(_PAGES_OF_STATUS.match(path)) or b"/pgsql_tmp/" in path
