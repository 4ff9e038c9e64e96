"""Reading the files of a running cluster.

They belong to the server's user, who may put anything else in their place at any time,
so what was opened is looked at, and not what a listing has found.
"""

from __future__ import annotations

import errno
import os
import stat

from drkit.errors import SourceUnreadable
from drkit.model.page import PAGE

# Without waiting: opening a named pipe waits for a writer, for good if there is none.
_READING = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
_PASSING = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_NO_FILE = (errno.ELOOP, errno.ENXIO)  # a link that is not followed; a socket


class NotRegular(OSError):
    """Something else than a regular file stands where one is to be read."""


def open_regular(
    path: str | bytes, directory: int | None = None, *, follow: bool = False
) -> int:
    """Open a regular file for reading, and nothing else; return its descriptor.

    Args:
        directory: an open directory, where a relative path begins; else it is the
            working directory.
        follow: whether the path's last part may be a symbolic link.

    Raises:
        NotRegular: it is a named pipe, a socket, a device, a directory or a link.
        OSError: it is not there, or can't be opened.
    """
    try:
        flags = _READING | (0 if follow else os.O_NOFOLLOW)
        descriptor = os.open(path, flags, dir_fd=directory)
    except OSError as error:
        if error.errno in _NO_FILE:
            raise _not_regular(path) from None
        raise
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise _not_regular(path, directory=stat.S_ISDIR(mode))
    return descriptor


def open_below(root: bytes, place: bytes) -> int:
    """Open a regular file for reading, by no link behind `root`; see `open_regular`.

    Args:
        root: a directory, itself reached as its path says.
        place: a path that begins with it.

    Raises:
        NotRegular, OSError: as `open_regular`; a link in the place of a directory is
            no directory.
    """
    directory = os.open(root, _PASSING)
    try:
        *parents, name = place[len(root) :].lstrip(b"/").split(b"/")
        for parent in parents:
            above = directory
            directory = os.open(parent, _PASSING | os.O_NOFOLLOW, dir_fd=above)
            os.close(above)
        return open_regular(name, directory)
    finally:
        os.close(directory)


def read_regular(path: str | bytes, *, follow: bool = False) -> bytes:
    """Return all that a regular file holds.

    Args:
        follow: as for `open_regular`.

    Raises:
        NotRegular, OSError: as `open_regular`; or it can't be read.
    """
    with open(open_regular(path, follow=follow), "rb", buffering=0) as file:
        return file.read()


def read_text(path: str | bytes, *, follow: bool = False) -> str:
    """Return a regular file's content as text; other bytes than UTF-8 stay in it.

    Args:
        follow: as for `open_regular`.

    Raises:
        NotRegular, OSError: as `read_regular`.
    """
    descriptor = open_regular(path, follow=follow)
    with open(descriptor, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


def _not_regular(path: str | bytes, *, directory: bool = False) -> NotRegular:
    if directory:
        return NotRegular(errno.EISDIR, os.strerror(errno.EISDIR), path)
    return NotRegular(errno.EINVAL, "it is no regular file", path)


def read_full(path: str, descriptor: int, into: memoryview, position: int) -> int:
    """Read until `into` is full or the file ends; return the count of bytes.

    Raises:
        SourceUnreadable: the system can't read there; the error names file and block.
    """
    done = 0
    while into:
        try:
            count = os.preadv(descriptor, [into], position + done)
        except OSError as error:
            # the kernel hands over what it could read before it tells of an error
            raise unreadable(path, position + done, error) from error
        done += count
        if count == len(into) or count == 0:
            break
        into = into[count:]
    return done


def unreadable(path: str, position: int, error: OSError) -> SourceUnreadable:
    """Return the error for a file that can't be read at a position."""
    return SourceUnreadable(
        f"can't read {path} at block {position // PAGE}: {error.strerror}",
        hint="the disk or the permissions need care; no backup was made, older ones "
        "are untouched",
    )
