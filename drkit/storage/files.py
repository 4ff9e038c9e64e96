"""Steps on files and directories that the local driver is made of.

Everything below the repository's root is reached through open directories, one part
of the name at a time and without following symbolic links: what a link planted in
the repository points at can be neither read nor written.
"""

from __future__ import annotations

import errno
import os
import stat

TYPE_CHECKING = False  # without importing typing
if TYPE_CHECKING:
    from collections.abc import Iterator


DIRECTORY_MODE = 0o750
FILE_MODE = 0o640

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# Without O_NONBLOCK, opening a FIFO would wait for somebody to write to it.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_RENAME_NOREPLACE = 1  # linux/fs.h
# What link(2) says on file systems without hard links: vfat, exfat, many of FUSE.
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS}

Owner = tuple[int, int]  # uid, gid


class Descriptor:
    """An open file or directory that a `with` closes."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __enter__(self) -> Descriptor:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)


def open_directory(path: str) -> Descriptor:
    """Open a directory by its path, through symbolic links if there are any."""
    return Descriptor(os.open(path, _DIRECTORY))


def enter(directory: Descriptor, part: str) -> Descriptor:
    """Open a directory's subdirectory.

    Raises:
        FileNotFoundError: there is none; a file of that name counts as none.
        OSError: ELOOP if it is a symbolic link.
    """
    try:
        return _open_subdirectory(directory, part)
    except NotADirectoryError as error:
        raise FileNotFoundError(
            errno.ENOENT, os.strerror(errno.ENOENT), part
        ) from error


def make(directory: Descriptor, part: str, owner: Owner | None) -> Descriptor:
    """Open a subdirectory, made if it is not there; the caller syncs `directory`.

    Raises:
        OSError: ELOOP if it is a symbolic link, ENOTDIR if a file.
    """
    try:
        os.mkdir(part, DIRECTORY_MODE, dir_fd=directory.fd)
        mode: int | None = DIRECTORY_MODE
    except FileExistsError:
        mode = None
    return _with_access(_open_subdirectory(directory, part), mode, owner)


def create(directory: Descriptor, name: str, owner: Owner | None) -> Descriptor:
    """Open a new, empty file for writing."""
    file = Descriptor(os.open(name, _CREATE, FILE_MODE, dir_fd=directory.fd))
    return _with_access(file, FILE_MODE, owner)


def open_file(directory: Descriptor, name: str) -> Descriptor:
    """Open a file for reading.

    Raises:
        OSError: ELOOP if it is a symbolic link.
    """
    return Descriptor(os.open(name, _READ, dir_fd=directory.fd))


def status(directory: Descriptor, name: str) -> os.stat_result:
    """Return what stands under `name` itself, be it a symbolic link."""
    return os.stat(name, dir_fd=directory.fd, follow_symlinks=False)


def _open_subdirectory(directory: Descriptor, part: str) -> Descriptor:
    try:
        return Descriptor(
            os.open(part, _DIRECTORY | os.O_NOFOLLOW, dir_fd=directory.fd)
        )
    except NotADirectoryError:
        if stat.S_ISLNK(status(directory, part).st_mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), part) from None
        raise


def _with_access(of: Descriptor, mode: int | None, owner: Owner | None) -> Descriptor:
    try:
        set_access(of, mode, owner)
    except BaseException:
        os.close(of.fd)
        raise
    return of


def set_access(of: Descriptor, mode: int | None, owner: Owner | None) -> None:
    """Give a file or directory its mode, whatever the umask, and its owner."""
    now = os.fstat(of.fd)
    if owner is not None and owner != (now.st_uid, now.st_gid):
        os.fchown(of.fd, *owner)
    if mode is not None and now.st_mode & 0o777 != mode:
        special = stat.S_IMODE(now.st_mode) & ~0o777
        try:
            os.fchmod(of.fd, special | mode)
        except OSError as error:
            # We own it, so this file system has one mode for everything, as vfat has.
            if error.errno not in {errno.EPERM, errno.EOPNOTSUPP}:
                raise


def read_up_to(file: Descriptor, offset: int, length: int) -> bytes:
    """Read `length` bytes from `offset`; fewer only where the file ends."""
    parts: list[bytes] = []
    while length and (part := os.pread(file.fd, length, offset)):
        parts.append(part)
        offset += len(part)
        length -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def entries(directory: Descriptor) -> Iterator[tuple[str, bool]]:
    """Yield each entry's name and whether it is a directory, in no order."""
    with os.scandir(directory.fd) as found:
        for entry in found:
            yield entry.name, entry.is_dir(follow_symlinks=False)


def remove(directory: Descriptor, name: str) -> None:
    """Remove a file if there is one; a directory stays."""
    try:
        os.unlink(name, dir_fd=directory.fd)
    except (FileNotFoundError, IsADirectoryError):
        return


def temporary_name() -> str:
    """Return a name that nobody else uses."""
    return os.urandom(16).hex()


def discard(directory: Descriptor, name: str) -> None:
    """Remove a temporary file; one that resists is left for the next sweep."""
    try:
        os.unlink(name, dir_fd=directory.fd)
    except OSError:
        return


def sweep(directory: Descriptor, older_than_seconds: float) -> int:
    """Remove a directory's files of that age; return how many there were."""
    oldest = _file_system_time(directory) - older_than_seconds
    old = [n for n, _ in entries(directory) if _modified(directory, n) < oldest]
    for name in old:
        discard(directory, name)
    return len(old)


def _file_system_time(directory: Descriptor) -> float:
    """Return the time that a file written now gets: a server's clock may be off."""
    name = temporary_name()
    try:
        with create(directory, name, None) as file:
            return os.fstat(file.fd).st_mtime
    finally:
        discard(directory, name)


def _modified(directory: Descriptor, name: str) -> float:
    try:
        return status(directory, name).st_mtime
    except FileNotFoundError:
        return float("inf")


def place(source: Descriptor, temporary: str, target: Descriptor, name: str) -> None:
    """Show a finished file under its name, all at once, and never over another.

    The temporary name may still be there afterwards.

    Raises:
        FileExistsError: the name is taken.
        OSError: ENOTSUP if the file system can do no such thing.
    """
    try:
        os.link(
            temporary,
            name,
            src_dir_fd=source.fd,
            dst_dir_fd=target.fd,
            follow_symlinks=False,
        )
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        _rename_no_replace(source, temporary, target, name)


def _rename_no_replace(
    source: Descriptor, temporary: str, target: Descriptor, name: str
) -> None:
    import ctypes  # noqa: PLC0415 - costs milliseconds that few file systems need

    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP), name)
    failed = rename(
        source.fd, temporary.encode(), target.fd, name.encode(), _RENAME_NOREPLACE
    )
    if failed:
        code = ctypes.get_errno()
        if code in {errno.EINVAL, errno.ENOSYS, errno.EPERM}:
            code = errno.ENOTSUP
        raise OSError(code, os.strerror(code), name)
