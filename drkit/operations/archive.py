"""Archiving a WAL file, and fetching one back.

On the path of `wal push`: imports no more than that needs.
"""

from __future__ import annotations

import os

from drkit.errors import (
    Corrupt,
    NoSpace,
    SourceUnreadable,
    StorageError,
    UsageError,
    WalRefused,
)
from drkit.model.wal import valid_segment_size
from drkit.postgres.files import open_regular, read_regular
from drkit.postgres.walfile import LONG_HEADER, check_wal_file

TYPE_CHECKING = False  # without importing typing
if TYPE_CHECKING:
    from datetime import datetime

    from drkit.postgres.walfile import WalFileFacts
    from drkit.repository.wal import WalArchive

_CONTROL_FILE = "global/pg_control"
# Of `ControlFileData`, in the host's byte order: what it begins with, and where
# `xlog_seg_size` is, in all of versions 13 to 18.
_SYSTEM_IDENTIFIER_BYTES = 8
_SEGMENT_SIZE = slice(228, 232)
_OUT_OF_SPACE = (28, 122)  # ENOSPC, EDQUOT


def read_wal_file(path: str) -> bytes:
    """Return the content of a file that PostgreSQL wants archived.

    Raises:
        SourceUnreadable: it can't be read.
    """
    try:
        return read_regular(path, follow=True)
    except OSError as error:
        raise SourceUnreadable(
            f"cannot read {path}: {error.strerror}",
            hint="pass %p of archive_command; it is relative to the data directory",
        ) from error


def segment_system_identifier(content: bytes) -> str | None:
    """Return the system identifier a segment's first page claims; None if too short.

    Only `check_wal_file` decides whether the claim is worth anything.
    """
    if len(content) < LONG_HEADER.size:
        return None
    return str(LONG_HEADER.unpack_from(content)[5])


def cluster_system_identifier(directory: str = ".") -> str | None:
    """Return the system identifier of a data directory; None if it is none."""
    start = _control(directory, _SYSTEM_IDENTIFIER_BYTES)
    return None if start is None else str(int.from_bytes(start, "little"))


def cluster_segment_size(directory: str = ".") -> int | None:
    """Return how long a data directory's WAL segments are; None if it is none."""
    start = _control(directory, _SEGMENT_SIZE.stop)
    if start is None:
        return None
    size = int.from_bytes(start[_SEGMENT_SIZE], "little")
    return size if valid_segment_size(size) else None


def _control(directory: str, length: int) -> bytes | None:
    """Return what a data directory's control file begins with."""
    try:
        control = os.path.join(directory, _CONTROL_FILE)
        with open(open_regular(control), "rb", buffering=0) as file:
            start = file.read(length)
    except OSError:
        return None
    return start if len(start) == length else None


def refuse_other_cluster(found: str | None, system_identifier: str) -> None:
    """Refuse to work for a data directory that the archive does not belong to.

    Raises:
        WalRefused: its system identifier is another.
    """
    if found is not None and found != system_identifier:
        raise WalRefused(
            f"this data directory has system identifier {found}, and the archive "
            f"belongs to {system_identifier}",
            hint="each cluster needs a policy of its own; name it with --policy",
        )


def archive_wal(
    archive: WalArchive,
    name: str,
    content: bytes,
    system_identifier: str,
    now: datetime,
    level: int,
) -> bool:
    """Archive a WAL file; return False if the same content was there already.

    Raises:
        WalRefused: it is not what its name says, comes from another cluster, or
            another content is archived under its name.
    """
    facts = check_wal_file(name, content, int(system_identifier))
    return archive.push(facts.name, content, now, level)


def fetch_wal(
    archive: WalArchive, name: str, destination: str, system_identifier: str
) -> None:
    """Write an archived WAL file to `destination`, which appears whole or not at all.

    Raises:
        NotFound, UsageError, Corrupt: as `archived_wal`.
        NoSpace, StorageError: the destination can't be written.
    """
    _write_whole(destination, archived_wal(archive, name, system_identifier))


def archived_wal(archive: WalArchive, name: str, system_identifier: str) -> bytes:
    """Return the content of an archived WAL file.

    Raises:
        NotFound: it is proven not to be archived.
        UsageError: PostgreSQL never asks for such a name.
        Corrupt: what is archived is not what its name says.
    """
    from drkit.model.wal import WalFileName  # noqa: PLC0415  loaded by the archive

    try:
        file = WalFileName.parse(name)
    except ValueError as error:
        raise UsageError(str(error), hint="pass %f of restore_command") from None
    content = archive.get(file)
    _check_fetched(name, content, system_identifier)
    return content


def _check_fetched(name: str, content: bytes, system_identifier: str) -> WalFileFacts:
    try:
        return check_wal_file(name, content, int(system_identifier))
    except WalRefused as error:
        raise Corrupt(
            f"what is archived as {name} is not that file: {error.message}",
            hint="the repository was changed; look for an intact copy of it",
        ) from None


def _write_whole(destination: str, content: bytes) -> None:
    """Write a file under another name in its directory, then rename it.

    No fsync: PostgreSQL makes a fetched segment durable itself where it keeps it
    (`KeepFileRestoredFromArchive` in `xlogarchive.c`).
    """
    temporary = f"{destination}.drkit-{os.getpid()}"
    _remove(temporary)  # of a killed process of the same number
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        try:
            with open(os.open(temporary, flags, 0o600), "wb", buffering=0) as file:
                view = memoryview(content)
                while view:
                    view = view[file.write(view) :]
            os.rename(temporary, destination)
        except BaseException:
            _remove(temporary)
            raise
    except OSError as error:
        what = f"cannot write {destination}: {error.strerror}"
        if error.errno in _OUT_OF_SPACE:
            raise NoSpace(
                what, hint="free some room in pg_wal's file system"
            ) from error
        raise StorageError(what, hint="pass %p of restore_command") from error


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        return
