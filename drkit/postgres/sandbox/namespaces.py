"""Namespaces: a file system with nothing else in it, and no network or processes.

Root may make them; others may where the kernel lets users have a user namespace of
their own. Sources: namespaces(7), user_namespaces(7), pivot_root(2), mount_setattr(2).
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

from drkit.postgres.sandbox import kernel

if TYPE_CHECKING:
    from collections.abc import Iterable

_UNSHARE = {"x86_64": 272, "aarch64": 97}
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_MOUNT_SETATTR = 442
_MOUNTS, _CGROUPS, _NAMES, _IPC = 0x20000, 0x2000000, 0x4000000, 0x8000000
_USERS, _PROCESSES, _NETWORK = 0x10000000, 0x20000000, 0x40000000

_RDONLY, _NOSUID, _NODEV, _NOEXEC = 1, 2, 4, 8  # the same for mount_setattr
_BIND, _TREE, _PRIVATE = 0x1000, 0x4000, 0x40000
_HERE, _RECURSIVE, _DETACH = -100, 0x8000, 2
_MOST_LINKS = 40

PROCESSES, MOUNTS = "PID", "mount"
_OF_THE_PROGRAM = {
    MOUNTS: _MOUNTS,
    "network": _NETWORK,
    "IPC": _IPC,
    "UTS": _NAMES,
    "cgroup": _CGROUPS,
}


def of_processes() -> bool:
    """Let the next child be the first process of a namespace, if the kernel lets us.

    Others than root get a user namespace with it, in which they have all rights, over
    what belongs to it.
    """
    root = os.geteuid() == 0
    uid, gid = os.geteuid(), os.getegid()
    if not _unshare(_PROCESSES if root else _PROCESSES | _USERS):
        return False
    if not root:
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{uid} {uid} 1")
        _write("/proc/self/gid_map", f"{gid} {gid} 1")
    return True


def of_the_program() -> list[str]:
    """Enter every other kind of namespace that there is; return their names."""
    return [name for name, flag in _OF_THE_PROGRAM.items() if _unshare(flag)]


class Root:
    """A file system of its own: what is not put into it is not there.

    Args:
        place: a directory that stays in the file system; something is mounted there.

    Raises:
        OSError: it can't be made; nothing has changed.
    """

    def __init__(self, place: str) -> None:
        kernel.call(_MOUNT_SETATTR, _HERE, b"/", 0, bytes(32), 32)  # is it known here?
        kernel.mount(None, "/", None, _TREE | _PRIVATE)
        kernel.mount("drkit", place, "tmpfs", _NOSUID | _NODEV)
        try:
            os.mkdir(f"{place}/old")
            place_, old = os.fsencode(place), os.fsencode(f"{place}/old")
            kernel.call(_PIVOT_ROOT[os.uname().machine], place_, old)
        except (OSError, KeyError) as error:
            kernel.unmount(place, _DETACH)
            raise OSError(*error.args) from error
        os.chdir("/")

    def put(self, path: str, flags: int) -> None:
        """Show what is at a real path, with no more rights than `flags` leave.

        Raises:
            OSError: it can't be mounted.
        """
        if os.path.isdir(f"/old{path}"):
            os.makedirs(path, 0o755, exist_ok=True)
        elif not os.path.exists(path):
            os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
            open(path, "xb").close()
        kernel.mount(f"/old{path}", path, None, _BIND | _TREE)
        attributes = struct.pack("QQQQ", flags, 0, 0, 0)
        where = os.fsencode(path)
        kernel.call(_MOUNT_SETATTR, _HERE, where, _RECURSIVE, attributes, 32)

    def link(self, path: str, target: str) -> None:
        """Make a link as it was outside, unless it is there with what was put."""
        if not os.path.lexists(path):
            os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
            os.symlink(target, path)

    def close(self) -> None:
        """Let the old root go, and close the new one against writing.

        Raises:
            OSError: that can't be done.
        """
        kernel.unmount("/old", _DETACH)
        os.rmdir("/old")
        attributes = struct.pack("QQQQ", _RDONLY | _NOSUID | _NODEV, 0, 0, 0)
        kernel.call(_MOUNT_SETATTR, _HERE, b"/", 0, attributes, 32)


READ_ONLY = _RDONLY | _NOSUID | _NODEV
DATA = _NOSUID | _NODEV | _NOEXEC
READ_ONLY_DATA = DATA | _RDONLY
DEVICE = _NOSUID | _NOEXEC


def resolved(paths: Iterable[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return where paths really lead, and the links on the way with their targets.

    Paths that are not there are left out.

    Raises:
        OSError: a link leads in a circle.
    """
    real: dict[str, str] = {}
    links: dict[str, str] = {}
    for path in paths:
        if os.path.exists(path):
            real[path] = _resolve(path, links)
    return real, links


def _resolve(path: str, links: dict[str, str]) -> str:
    at, rest, seen = "/", path.split("/"), 0
    while rest:
        name = rest.pop(0)
        if name in ("", "."):
            continue
        step = os.path.dirname(at) if name == ".." else os.path.join(at, name)
        if not os.path.islink(step):
            at = step
            continue
        seen += 1
        if seen > _MOST_LINKS:
            raise OSError(f"{path} leads in a circle")
        target = links[step] = os.readlink(step)
        at = "/" if target.startswith("/") else at
        rest = target.split("/") + rest
    return at


def _unshare(flags: int) -> bool:
    number = _UNSHARE.get(os.uname().machine)
    if number is None:
        return False
    try:
        kernel.call(number, flags)
    except OSError:
        return False
    return True


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)
