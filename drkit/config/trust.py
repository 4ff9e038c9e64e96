"""Whose files count: those that nobody else can have written.

Who can change a policy chooses what drkit connects to, reads and writes; who can change
a key, or a directory on the way to either, chooses as much. So one rule holds for
policies, keys, passwords, credentials and the directories that policies are looked for
in: neither a group nor others can write to it or to a directory above it (but to one
with the sticky bit, where only a file's owner can replace it), and each of these
belongs to root or to whom the caller names.

`wal push` comes through here, so it imports next to nothing.
"""

from __future__ import annotations

import os
import stat

from drkit.rights import user_name

TYPE_CHECKING = False  # without importing typing
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

ROOT = 0
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_MAX_LINKS = 40  # as the kernel follows


class Exposed(Exception):
    """Somebody could have changed a file, or read what is secret.

    Attributes:
        message: which file or directory, whose it is, and its mode.
        hint: what to do about it.
    """

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def own_users() -> frozenset[int]:
    """Return root and the user that this process runs as."""
    return frozenset({ROOT, os.geteuid()})


def believed_users(owner: int, places: Iterable[str | None]) -> frozenset[int]:
    """Return the users who may own the secrets that a policy names.

    Root works for the users of servers. So it also believes those whom the data
    directory and the repository of its own policy belong to; and where the policy is
    such a user's, nothing else: it reads no file for anybody who could not.

    Args:
        owner: whom the policy belongs to.
        places: the paths that it names.
    """
    if os.geteuid() != ROOT:
        return own_users()
    return frozenset({ROOT, *_owners(places)} if owner == ROOT else {owner})


def refuse_strangers(
    path: str,
    status: os.stat_result,
    users: Collection[int],
    *,
    private: bool = False,
) -> None:
    """Refuse a file that others can have written.

    Args:
        path: absolute.
        status: of what was opened there.
        users: who may own it.
        private: whether others may not read it either. Root may have given it to a
            group to read.

    Raises:
        Exposed: says what is wrong with it.
    """
    if private:
        _refuse_readers(path, status)
    found = strangers(path, status, users)
    if status.st_uid not in users:  # root's, where root reads for another user
        found.setdefault(status.st_uid, (path, status))
    for place, its in found.values():
        raise Exposed(
            f"{_told(place, its)}, who could change it",
            hint=f"if it is as it should be: chown {user_name(min(users))} {place}",
        )


def strangers(
    path: str, status: os.stat_result, users: Collection[int]
) -> dict[int, tuple[str, os.stat_result]]:
    """Return who beside `users` and root can change a file or put another in its place.

    Args:
        path: absolute.
        status: of what was opened there.

    Returns:
        By user what gives him the power: the file, or what is on the way to it.

    Raises:
        Exposed: a group or everybody can.
    """
    found: dict[int, tuple[str, os.stat_result]] = {}
    for place, its in ((path, status), *_way(path)):
        _refuse_writers(place, its)
        if its.st_uid not in users and its.st_uid != ROOT:
            found.setdefault(its.st_uid, (place, its))
    return found


def refuse_another_s(
    path: str, owner: int, named: Iterable[tuple[str, str | None]]
) -> None:
    """Refuse a policy that is another user's, unless it names nothing but his own.

    Only root reads such a policy.

    Args:
        owner: who can change it.
        named: what the policy names, as a field and a path; what is not there is
            nobody's.

    Raises:
        Exposed: says what is not his.
    """
    if owner in own_users():
        return
    name = user_name(owner)
    for field, place in named:
        if place and os.path.exists(place) and not _is_of(owner, place):
            whose = user_name(os.stat(place).st_uid)
            raise Exposed(
                f"{path} can be changed by {name}, and its {field}, {place}, belongs "
                f"to {whose}: root does for {name} what he could do himself, no more",
                hint=f"run it as that user: sudo -u {name} drkit …; or, if the policy "
                f"is as it should be: chown root {path}",
            )


def _is_of(owner: int, place: str) -> bool:
    """Say whether a place is a user's, or lies in what is; links don't make it so."""
    real = os.path.realpath(place)
    if os.stat(real).st_uid == owner:
        return True
    return any(status.st_uid == owner for _, status in _way(real))


def _owners(places: Iterable[str | None]) -> set[int]:
    there = [place for place in places if place and os.path.exists(place)]
    return {os.stat(place).st_uid for place in there}


def _refuse_writers(place: str, status: os.stat_result) -> None:
    mode = status.st_mode
    if stat.S_ISLNK(mode) or not mode & _OTHERS_WRITE:
        return
    if stat.S_ISDIR(mode) and mode & stat.S_ISVTX:
        return
    raise Exposed(
        f"others can write to {_told(place, status)}",
        hint=f"chmod go-w {place}, and look whether what is there is still yours",
    )


def _refuse_readers(path: str, status: os.stat_result) -> None:
    mode = status.st_mode
    given = status.st_uid == ROOT != status.st_gid  # to a group, by root
    if mode & (stat.S_IRWXO | stat.S_IRWXG & ~(stat.S_IRGRP if given else 0)):
        raise Exposed(
            f"other users can get at {_told(path, status)}",
            hint=f"chmod 600 {path}, and think about who may have read it",
        )


def _told(place: str, status: os.stat_result) -> str:
    mode = stat.S_IMODE(status.st_mode)
    return f"{place} (mode {mode:04o}), which belongs to {user_name(status.st_uid)}"


def _way(path: str) -> Iterator[tuple[str, os.stat_result]]:
    """Yield each directory and each link on the way to a path, its last part too."""
    here, links = "", 0
    waiting = path.split("/")[::-1]
    while waiting:
        part = waiting.pop()
        if part in ("", "."):
            continue
        if part == "..":
            here = here.rpartition("/")[0]
            continue
        yield here or "/", os.lstat(here or "/")
        status = os.lstat(f"{here}/{part}")
        if not stat.S_ISLNK(status.st_mode) or links == _MAX_LINKS:
            here += f"/{part}"
            continue
        links += 1
        yield f"{here}/{part}", status
        target = os.readlink(f"{here}/{part}")
        waiting += target.split("/")[::-1]
        here = "" if target.startswith("/") else here
