"""What every process of drkit denies itself and others at its start.

Cheap enough for `wal push`.
"""

from __future__ import annotations

import os
import resource

_SET_DUMPABLE = 4  # PR_SET_DUMPABLE of `linux/prctl.h`
_OTHERS_WRITE = 0o022
_OWNERS = 0o700


def harden() -> None:
    """Leave no memory behind, and let nobody else write to what this process makes.

    Keys are in the memory. A core dump would bring them to a disk, or to the program
    that `core_pattern` names, for which the kernel minds no limit: so it is told not
    to dump this process at all, and no other of the same user may look into it. A
    program that is started instead of this one has to say so again for itself.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _forbid_looking()
    os.umask(safe_umask(os.umask(0o077)))


def safe_umask(chosen: int) -> int:
    """Return a umask that keeps others from writing, and nothing from its owner.

    Args:
        chosen: the user's; what it closes to others stays closed.
    """
    return (chosen | _OTHERS_WRITE) & ~_OWNERS


def _forbid_looking() -> None:
    """Have no core dumps made of this process, and no debugger attached to it."""
    import ctypes  # noqa: PLC0415  nothing else at the start needs it

    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:  # Linux
        prctl(_SET_DUMPABLE, 0, 0, 0, 0)
