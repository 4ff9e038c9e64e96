"""Private directories of runs, and what is left of runs that are dead.

A run that makes `drkit-scratch-X` holds a lock on `drkit-scratch-X.json` beside it,
which the kernel lets go when the run ends, however it ends. The file is there before
the directory and is removed after it, so nothing is ever left without its mark.

Names are random, and what is there is never used: a place that everybody can write to,
as /var/tmp, does as well.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
import signal
import stat
import time
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from drkit.errors import DrkitError, StorageError
from drkit.model.evidence import Cleanup
from drkit.ownership import acting_as, owner_of, reach_directory
from drkit.postgres import process, removing
from drkit.postgres.private_directory import make_private_directory, owner_for
from drkit.postgres.running import processes_below, server_processes_below
from drkit.rights import run_as_owner, user_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from drkit.model.owner import Owner
    from drkit.postgres.process import Account
    from drkit.protocols import Clock

_NAME = re.compile(r"(?:drkit-)?scratch-[0-9a-f]{8}")
_MARK = ".json"
_LIKE_TMP = 0o1777
_NOTHING_LEFT = "no file, server process or mount of it is left"
_PATIENCE = 5.0  # seconds for a server to end by itself
_POLL = 0.02
_REMOVALS = 3  # a command that a server started may still write for a moment


class LeftOver(NamedTuple):
    """What a dead run had left, and is removed now.

    Attributes:
        bytes: on disk.
        pid: of the run.
        since: when it had begun.
    """

    path: str
    bytes: int
    pid: int
    since: datetime


@dataclass(frozen=True, slots=True)
class ScratchPlace:
    """A private directory with its mark, whose lock `descriptor` holds.

    Attributes:
        owner: whom root acts as to remove it: whose its parent is.
    """

    directory: str
    descriptor: int
    owner: Owner | None

    @property
    def mark(self) -> str:
        """The mark's path."""
        return self.directory + _MARK

    def remove(self, problem: str = "", seen: str = _NOTHING_LEFT) -> Cleanup:
        """Remove the directory and its mark; tell what was there and what is left.

        Never raises for what can't be removed: `proven` is False then, and the mark
        stays, so that the next sweep goes on.

        Args:
            problem: what is known to be left, or not known not to be.
            seen: what to tell where nothing is.
        """
        try:
            end_servers(self.directory)
        except (OSError, DrkitError) as error:
            problem = problem or str(error)
        with acting_as(self.owner):
            count = disk_usage(self.directory)
            try:
                remove_tree(self.directory)
            except OSError as error:
                problem = problem or str(error)
            if not os.path.lexists(self.directory):
                _unlink(self.mark)
        os.close(self.descriptor)
        problem = problem or what_is_left(self.directory)
        detail = problem or seen
        return Cleanup(self.directory, count, proven=not problem, detail=detail)


def make_place(parent: str, account: Account, clock: Clock) -> ScratchPlace:
    """Make a private directory in `parent`, which is made if need be.

    Raises:
        StorageError: it can't be made, or `account` can't get there.
    """
    try:
        place = _new_place(parent, account, clock)
    except OSError as error:
        raise StorageError(
            f"can't make a scratch directory in {parent}: {error.strerror}",
            hint=run_as_owner(parent) if isinstance(error, PermissionError) else None,
        ) from error
    if _exchanged(account, place.directory):
        place.remove()
        raise StorageError(
            f"something else took the place of {place.directory} as soon as it was "
            "made",
            hint=f"find out what user {account.name} runs in {parent}, or choose a "
            "scratch directory that belongs to root",
        )
    if not _can_enter(account, place.directory):
        place.remove()
        raise StorageError(
            f"user {account.name}, whom the server runs as, can't get to {parent}",
            hint="choose another scratch directory, or give every directory above it "
            "the right to pass (chmod o+x)",
        )
    return place


def sweep_left_overs(directory: str) -> list[LeftOver]:
    """End the servers of dead runs and remove their directories.

    A run that lives is left alone, and so is one of another host or another user, of
    which nothing can be known here.

    Raises:
        StorageError: something can't be removed, or others could put another directory
            into the place of the one that is swept.
    """
    marks = _marks(directory)
    owner = owner_of(directory, raising=StorageError) if marks else None
    return [left for name in marks if (left := _sweep(directory, name, owner))]


def disk_usage(directory: str) -> int:
    """Return the bytes on disk below a directory, as far as they can be seen."""
    total = 0
    for parent, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(parent, name)).st_blocks * 512
    return total


def what_is_left(directory: str) -> str:
    """Look for what is left of a directory that was removed; empty if nothing is."""
    if os.path.lexists(directory):
        return f"{directory} is still there"
    for pid in processes_below(directory):
        return f"process {pid} still works in {directory}"
    with contextlib.suppress(OSError), open("/proc/self/mounts", "rb") as mounts:
        if b" " + os.fsencode(directory) + b"/" in mounts.read():
            return f"something is still mounted below {directory}"
    return ""


def end_servers(directory: str) -> None:
    """End every server that works below a directory, and wait until all are gone.

    They are asked first: one that is killed leaves its shared memory behind. Commands
    that they have started are waited for as well, but not killed: a process of another
    kind may be somebody's shell.
    """
    if os.path.islink(directory):
        raise StorageError(f"{directory} has become a link, which nobody follows")
    for asked in (signal.SIGQUIT, signal.SIGKILL):
        for pid in server_processes_below(directory):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, asked)
        deadline = time.monotonic() + _PATIENCE
        while processes_below(directory):
            if time.monotonic() > deadline:
                break
            time.sleep(_POLL)


def remove_tree(directory: str) -> None:
    """Remove a directory; what comes into it meanwhile, too.

    Raises:
        OSError: something resists.
    """
    for attempt in range(_REMOVALS):
        try:
            removing.remove_tree(directory)
        except FileNotFoundError:
            if not os.path.lexists(directory):
                return
        except OSError:
            if attempt == _REMOVALS - 1:
                raise
            time.sleep(_POLL)


def _open_parent(parent: str, account: Account) -> int:
    """Open the directory above, made if need be so that the server's user can pass.

    What root makes is like /tmp, so that others can use it as well: a run of root's
    must not keep theirs from coming. What is made in it is made by this descriptor:
    where it is the server's user's, that user could put a link into its place.

    Raises:
        StorageError: others could exchange what is in it, or where it is.
    """
    made, me = not os.path.isdir(parent), os.geteuid()
    mode = 0o700 if account.uid == me else 0o711
    owner = owner_for(account)
    opened = reach_directory(
        parent, owner, mode, mode, give_away=False, raising=StorageError
    )
    try:
        status = os.fstat(opened)
        shared = status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX
        if shared or status.st_uid not in {0, me, account.uid}:
            raise StorageError(
                f"{parent} belongs to {user_name(status.st_uid)} with mode "
                f"{stat.S_IMODE(status.st_mode):04o}: others could exchange what is in "
                "it",
                hint="choose a scratch directory that only you, root or the server's "
                "user can write to",
            )
        if made and status.st_uid == me == 0:
            os.fchmod(opened, _LIKE_TMP)
    except BaseException:
        os.close(opened)
        raise
    return opened


def _new_place(parent: str, account: Account, clock: Clock) -> ScratchPlace:
    name = f"drkit-scratch-{secrets.token_hex(4)}"
    opened = _open_parent(parent, account)
    try:
        theirs = os.fstat(opened).st_uid == account.uid
        descriptor = _new_mark(name + _MARK, opened, clock)
        try:
            make_private_directory(name, opened, account)
        except BaseException:
            os.close(descriptor)  # the next sweep removes what stays of it
            raise
    finally:
        os.close(opened)
    owner = owner_for(account) if theirs else None
    return ScratchPlace(os.path.join(parent, name), descriptor, owner)


def _new_mark(name: str, parent: int, clock: Clock) -> int:
    flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(name, flags, 0o600, dir_fd=parent)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    mark = {"host": _host(), "pid": os.getpid(), "since": clock.now().isoformat()}
    os.write(descriptor, json.dumps(mark).encode())
    return descriptor


def _can_enter(account: Account, directory: str) -> bool:
    """Ask the kernel, as that user."""
    if account.uid == os.geteuid():
        return True
    identity = process.Identity(account=account)
    probe = ["test", "-w", directory]
    return process.run(probe, identity=identity, raising=None).returncode == 0


def _exchanged(account: Account, directory: str) -> bool:
    """Say whether what is there now is not the directory that was made."""
    try:
        status = os.lstat(directory)
    except FileNotFoundError:
        return True
    return not stat.S_ISDIR(status.st_mode) or status.st_uid != account.uid


def _marks(directory: str) -> list[str]:
    with contextlib.suppress(FileNotFoundError):
        return sorted(
            name
            for name in os.listdir(directory)
            if name.endswith(_MARK) and _NAME.fullmatch(name.removesuffix(_MARK))
        )
    return []


def _sweep(parent: str, name: str, owner: Owner | None) -> LeftOver | None:
    """Remove what one mark stands for, if its run is dead: root as the owner."""
    path = os.path.join(parent, name.removesuffix(_MARK))
    with _locked(path + _MARK) as descriptor:
        if descriptor is None:
            return None
        mark = _read_mark(descriptor)
        if mark is not None and mark["host"] != _host():
            return None
        there = os.path.lexists(path)
        if there:
            end_servers(path)
        with acting_as(owner):
            count = disk_usage(path)
            if there:
                _remove_left_over(path)
            _unlink(path + _MARK)
        if mark is None or not there:
            return None
        return LeftOver(path, count, mark["pid"], datetime.fromisoformat(mark["since"]))


@contextlib.contextmanager
def _locked(path: str) -> Iterator[int | None]:
    """Hold the lock of a mark; None where its run lives or belongs to another user."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        yield None
        return
    try:
        status = os.fstat(descriptor)
        own = status.st_uid == os.geteuid() and stat.S_ISREG(status.st_mode)
        yield descriptor if own and _lock(descriptor) else None
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read_mark(descriptor: int) -> dict[str, Any] | None:
    """Return a mark's content; None where the run died before it had written it."""
    try:
        found = json.loads(os.pread(descriptor, 4096, 0))
        datetime.fromisoformat(found["since"])
        return {"host": str(found["host"]), "pid": int(found["pid"]), **found}
    except (ValueError, KeyError, TypeError):
        return None


def _remove_left_over(path: str) -> None:
    try:
        remove_tree(path)
    except OSError as error:
        raise StorageError(
            f"can't remove {path}, which a dead run left: {error.strerror}",
            hint="remove it by hand; nothing uses it any more",
        ) from error


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _host() -> str:
    return os.uname().nodename
