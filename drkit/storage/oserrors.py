"""What a file system's error means for a repository, and what to do about it."""

from __future__ import annotations

import errno
import os

from drkit.errors import DrkitError, NoSpace, RepositoryMissing, StorageError
from drkit.rights import run_as_owner, user_name
from drkit.writing import room_left

_FULL = {
    errno.ENOSPC: "has no room for it",
    errno.EDQUOT: "has a quota that is used up",
}
_PASSING = {errno.EAGAIN, errno.ETIMEDOUT, errno.ESTALE}
_HINTS = {
    errno.EIO: (
        "the disk failed; whatever was being written counts as lost. Look at the"
        " kernel's log and the disk's health before you trust it again"
    ),
    errno.EROFS: (
        "the file system is mounted read-only; Linux also does that after an error,"
        " so look at the kernel's log before you remount it"
    ),
    errno.ELOOP: (
        "drkit follows no symbolic link inside a repository; move the whole repository"
        " and change the policy instead"
    ),
    errno.EXDEV: (
        "a repository must lie on one file system; nothing may be mounted inside it"
    ),
    errno.ENOTSUP: (
        "this file system has neither hard links nor RENAME_NOREPLACE, so it can't"
        " create an object without the risk of overwriting one; use ext4, xfs, btrfs,"
        " zfs or NFS"
    ),
}


def explain(error: OSError, doing: str, root: str, *, reading: bool) -> DrkitError:
    """Return the error that says what `error` means for the repository at `root`.

    A write is never called transient: after a failed write or fsync the kernel may
    drop the pages and report success the next time (see fsync(2), "EIO").

    Args:
        doing: what failed, as in "writing object a/b".
    """
    reason = os.strerror(error.errno) if error.errno else str(error)
    message = f"{doing} in {root} failed: {reason}"
    if error.errno in _FULL:
        return _no_space(error, doing, root)
    if error.errno in {errno.EACCES, errno.EPERM}:
        return StorageError(message, hint=_who_may(root))
    return StorageError(
        message,
        hint=_HINTS.get(error.errno or 0),
        transient=reading and error.errno in _PASSING,
    )


def missing(root: str) -> RepositoryMissing:
    """Return the error for a root directory that is not there."""
    return RepositoryMissing(
        f"there is no directory {root}",
        hint="mount the disk that holds the repository, or create one with drkit init",
    )


def replaced(root: str) -> RepositoryMissing:
    """Return the error for a root directory that is another one than before."""
    return RepositoryMissing(
        f"{root} is not the directory it was when this run began",
        hint="its disk was unmounted, or somebody moved it; put it back and run again",
    )


def _no_space(error: OSError, doing: str, root: str) -> NoSpace:
    state = _FULL[error.errno or errno.ENOSPC]
    return NoSpace(
        f"{doing} failed: the file system of {root} {state}{room_left(root)}",
        hint="make room on that file system, or enlarge it",
    )


def _is_ours(root: str) -> bool:
    try:
        return os.stat(root).st_uid == os.geteuid() != 0
    except OSError:
        return False


def _who_may(root: str) -> str:
    if not (_is_ours(root) and os.access(root, os.R_OK | os.W_OK | os.X_OK)):
        return run_as_owner(root)
    me = user_name(os.geteuid())
    return (
        f"{root} belongs to {me}, but something in it does not: another user ran drkit "
        f"before. Give it back, as root: chown -R {me}: {root}"
    )
