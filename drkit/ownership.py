"""Root acts as the owner of what the owner can change.

Whoever owns a directory can put a link to anybody's file into it, at any moment, and
root would follow it. So where drkit runs as root, it reaches for another user's files
with that user's rights only:

    owner = owner_of(data_directory)
    with acting_as(owner):
        …whatever a link leads to is opened as the owner would open it…

Linux checks a thread's access to files by an identity of its own (setfsuid(2)); as long
as that is not root's, the capabilities that override modes and owners are gone. All
else stays root's: signals, connections, and what other threads do. A thread that is
started inside begins with the same identity; a program does not.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from drkit.errors import DrkitError
from drkit.model.owner import Owner
from drkit.rights import user_name

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Owner(0, 0)
_ASK = 0xFFFFFFFF  # no user's number: changes nothing, and returns what is in force
_MOST_LINKS = 40  # as many as the kernel follows
_PASS = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


@contextmanager
def acting_as(owner: Owner | None) -> Iterator[None]:
    """Reach for files as their owner would: this thread, while the block runs.

    Blocks may lie in each other. Nothing changes where this is not root.

    Args:
        owner: None changes nothing.

    Raises:
        DrkitError: this root can't act as another user.
    """
    if owner is None or os.geteuid() != 0:
        yield
        return
    before = _identity()
    if owner != ROOT and os.getgroups():
        _leave_groups(owner)
    _become(owner)
    try:
        yield
    finally:
        _become(before)


def owner_of(directory: str, *, raising: type[DrkitError] = DrkitError) -> Owner | None:
    """Return whom root has to act as in a directory; None where this is not root.

    That is its owner, provided that nobody else but root could put another directory
    into its place. A directory of root's that lies in another user's counts as theirs.

    Raises:
        FileNotFoundError, NotADirectoryError: there is no such directory.
        DrkitError: as `raising`; somebody else could.
    """
    if os.geteuid() != 0:
        return None
    with _way_to(directory) as way:
        if way.missing:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), directory)
        owner = way.owner()
        way.refuse_others(owner, raising)
        return owner


def only_root_leads_to(path: str) -> bool:
    """Say whether root alone decides what is at a path, be it there or not."""
    with _way_to(path) as way:
        return way.only_root


def reach_directory(
    directory: str,
    owner: Owner | None,
    mode: int,
    above: int = 0o755,
    *,
    give_away: bool = True,
    raising: type[DrkitError] = DrkitError,
) -> int:
    """Open a directory, made if need be with what lies above it; return its descriptor.

    Root makes what lies in directories that are its alone, and gives the last one to
    the owner; below a directory of the owner's it acts as the owner.

    Args:
        directory: absolute.
        owner: whom root makes it for; None makes it as who this is.
        mode, above: of what is made: the directory, and what lies above it.
        give_away: whether the owner gets what root makes in a directory of its own.

    Raises:
        DrkitError: as `raising`; somebody else could put another directory into its
            place.
        OSError: it can't be made or opened.
    """
    if os.geteuid() != 0:
        owner = None
    with _way_to(directory) as way:
        if owner is not None:
            way.refuse_others(owner, raising)
        with acting_as(owner if way.theirs else ROOT):
            opened = _make_missing(way, mode, above)
        if owner is not None and way.by_link:
            way.refuse_planted(opened, owner, raising)
        if way.missing and way.only_root and owner is not None and give_away:
            os.fchown(opened, *owner)
        return opened


def make_directory(parent: int, name: str, mode: int) -> int:
    """Make a directory in an open one whatever the umask, durably; open it.

    Raises:
        OSError: it can't be made, or something else took its place.
    """
    os.mkdir(name, 0o700, dir_fd=parent)
    opened = os.open(name, _OPEN, dir_fd=parent)
    try:
        strange = os.geteuid() == 0 and os.fstat(opened).st_uid != _identity().uid
        if strange or os.listdir(opened):
            raise PermissionError(errno.EPERM, "another directory took its place", name)
        os.fchmod(opened, mode)
        os.fsync(parent)
    except BaseException:
        os.close(opened)
        raise
    return opened


def give(descriptor: int, directory: str, owner: Owner | None) -> None:
    """Give an open directory of root's to the owner.

    Raises:
        PermissionError: it is another's, or only a link that root did not make leads
            there.
    """
    found = os.fstat(descriptor)
    if owner is None or os.geteuid() != 0 or found.st_uid == owner.uid:
        return
    with _way_to(directory) as way:
        here = os.fstat(way.descriptor)
        same = (here.st_dev, here.st_ino) == (found.st_dev, found.st_ino)
        if found.st_uid != 0 or way.by_link or not same:
            whose = f"it belongs to {user_name(found.st_uid)}"
            raise PermissionError(errno.EPERM, whose, directory)
    os.fchown(descriptor, *owner)


class _Passed(NamedTuple):
    """A directory, or a link in a sticky one, on the way to another directory."""

    path: str
    uid: int
    gid: int
    mode: int

    def open_to_others(self, owner: Owner) -> bool:
        """Say whether others than its owner can replace what is in a directory."""
        if self.mode & stat.S_ISVTX:
            return False
        shared = self.mode & stat.S_IWGRP and self.gid not in (0, owner.gid)
        return bool(shared or self.mode & stat.S_IWOTH)


class _Way:
    """The directories that lead to a path, each opened from the one before.

    Attributes:
        descriptor: of the last one that is there.
        missing: names of those behind it that are not.
        by_link: whether it goes through a link that another than root could have made.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.missing: list[str] = []
        self.by_link = False
        self._passed: list[_Passed] = []
        self.descriptor = os.open(os.sep, _PASS)
        try:
            self._go(path.split(os.sep))
        except BaseException:
            os.close(self.descriptor)
            raise

    @property
    def only_root(self) -> bool:
        """Whether root alone could have put there what is there."""
        replaceable = any(one.open_to_others(ROOT) for one in self._above())
        return not replaceable and not any(one.uid for one in self._passed)

    @property
    def theirs(self) -> bool:
        """Whether another than root decides what is made there, or what is there."""
        return self.by_link or bool(self.missing and not self.only_root)

    def owner(self) -> Owner:
        """Return whose the last directory is, or the one around it if it is root's."""
        last = self._passed[-1]
        for one in [] if self.by_link else reversed(self._passed):
            if one.uid != 0:
                return Owner(one.uid, one.gid)
        return Owner(last.uid, last.gid)

    def refuse_others(self, owner: Owner, raising: type[DrkitError]) -> None:
        """Raise if another than root and the owner could change where the path leads.

        Raises:
            DrkitError: as `raising`.
        """
        for one in self._passed:
            if one.uid not in (0, owner.uid):
                why = f"{one.path} belongs to {user_name(one.uid)}"
                raise self._refused(why, raising)
        for one in self._above():
            if one.open_to_others(owner):
                mode = stat.S_IMODE(one.mode)
                why = f"others can write to {one.path} (mode {mode:04o})"
                raise self._refused(why, raising)

    def refuse_planted(
        self, opened: int, owner: Owner, raising: type[DrkitError]
    ) -> None:
        """Close a directory that is not the owner's, and raise.

        Raises:
            DrkitError: as `raising`.
        """
        found = os.fstat(opened)
        if found.st_uid != owner.uid:
            os.close(opened)
            why = f"a link that root did not make leads to {user_name(found.st_uid)}'s"
            raise self._refused(why, raising)

    def _above(self) -> list[_Passed]:
        """Return what the path's last part, or what is missing, stands in."""
        return self._passed if self.missing else self._passed[:-1]

    def _refused(self, why: str, raising: type[DrkitError]) -> DrkitError:
        return raising(
            f"root does not go to {self.path}: {why}, so that something else could be "
            "put into its place",
            hint="run drkit as the user whose data it is, or see that every directory "
            "on the way belongs to root or that user, and nobody else can write to it",
        )

    def _go(self, parts: list[str]) -> None:
        """Go down part by part, as the kernel does, and note who could interfere."""
        at, links = os.sep, 0
        self._note(at, os.fstat(self.descriptor))
        while parts:
            part = parts.pop(0)
            if part in ("", os.curdir):
                continue
            try:
                opened = os.open(part, _PASS, dir_fd=self.descriptor)
            except FileNotFoundError:
                self.missing = [part, *parts]
                return
            here, found = os.path.join(at, part), os.fstat(opened)
            if not stat.S_ISLNK(found.st_mode):
                at = here
                self._enter(opened, here, found)
                continue
            links += 1
            leads_to = os.readlink("", dir_fd=opened)
            os.close(opened)
            if links > _MOST_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), self.path)
            self._follow(here, found)
            parts = [*leads_to.split(os.sep), *parts]
            if leads_to.startswith(os.sep):
                at = os.sep
                self._enter(os.open(os.sep, _PASS), at, None)

    def _follow(self, link: str, found: os.stat_result) -> None:
        """Note who could have made a link: in a sticky directory, its owner."""
        around = os.fstat(self.descriptor)
        where = _Passed(link, around.st_uid, around.st_gid, around.st_mode)
        if around.st_mode & stat.S_ISVTX:
            self._note(link, found)
            self.by_link |= found.st_uid != 0
        self.by_link |= around.st_uid != 0 or where.open_to_others(ROOT)

    def _enter(self, opened: int, path: str, found: os.stat_result | None) -> None:
        os.close(self.descriptor)
        self.descriptor = opened
        self._note(path, found or os.fstat(opened))
        if not stat.S_ISDIR(self._passed[-1].mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)

    def _note(self, path: str, found: os.stat_result) -> None:
        passed = _Passed(path, found.st_uid, found.st_gid, found.st_mode)
        self._passed.append(passed)


@contextmanager
def _way_to(path: str) -> Iterator[_Way]:
    way = _Way(path)
    try:
        yield way
    finally:
        os.close(way.descriptor)


def _make_missing(way: _Way, mode: int, above: int) -> int:
    """Make what is missing on a way, as who this is now; open the last directory."""
    opened = os.open(os.curdir, _OPEN, dir_fd=way.descriptor)
    for number, name in enumerate(way.missing, 1):
        last = number == len(way.missing)
        parent = opened
        try:
            opened = make_directory(parent, name, mode if last else above)
        finally:
            os.close(parent)
    return opened


def _become(owner: Owner) -> None:
    system = _system()
    system.setfsgid(owner.gid)
    system.setfsuid(owner.uid)
    if _identity() != owner:
        raise DrkitError(
            f"root can't act as {user_name(owner.uid)} here, and does not touch that "
            "user's files as root",
            hint=f"run drkit as that user: sudo -u {user_name(owner.uid)} drkit …",
        )


def _identity() -> Owner:
    """Return whose rights over files this thread has."""
    system = _system()
    return Owner(system.setfsuid(_ASK), system.setfsgid(_ASK))


def _leave_groups(owner: Owner) -> None:
    """Give up root's other groups, for good: they open files too.

    They are those of the whole process; whoever is root has no use for them.
    """
    try:
        os.setgroups([])
    except OSError as error:
        name = user_name(owner.uid)
        raise DrkitError(
            f"root can't give up its groups here ({error.strerror}), and does not "
            f"touch files of {name} with them",
            hint=f"run drkit as that user: sudo -u {name} drkit …",
        ) from error


@cache
def _system() -> Any:
    """Return the C library, which Python reaches these calls through.

    Raises:
        DrkitError: this system has no such identity.
    """
    import ctypes  # noqa: PLC0415  only where it is needed

    library = ctypes.CDLL(None)
    try:
        for call in (library.setfsuid, library.setfsgid):
            call.argtypes, call.restype = (ctypes.c_uint32,), ctypes.c_uint32
    except AttributeError:
        raise DrkitError(
            "this system does not let root act as the owner of files",
            hint="run drkit as the user whose data it is",
        ) from None
    return library
