"""System calls that Python has no name for. Linux only; numbers as on all machines."""

from __future__ import annotations

import ctypes
import os

NO_NEW_PRIVILEGES, PARENT_DEATH_SIGNAL, SUBREAPER = 38, 1, 36
SECCOMP, SECCOMP_FILTER = 22, 2

_libc = ctypes.CDLL(None, use_errno=True)


def call(number: int, *arguments: int | bytes | None) -> int:
    """Make a system call by its number and return its result.

    Raises:
        OSError: the kernel refuses it.
    """
    words = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    found = int(_libc.syscall(ctypes.c_long(number), *words))
    if found < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"system call {number}: {os.strerror(code)}")
    return found


def prctl(option: int, *values: int | bytes) -> None:
    """Set one of the process's attributes.

    Raises:
        OSError: the kernel refuses it.
    """
    words = [ctypes.c_ulong(v) if isinstance(v, int) else v for v in values]
    words += [ctypes.c_ulong(0)] * (4 - len(words))
    if _libc.prctl(option, *words):
        code = ctypes.get_errno()
        raise OSError(code, f"prctl {option}: {os.strerror(code)}")


def mount(source: str | None, target: str, kind: str | None, flags: int) -> None:
    """Mount something; with `tmpfs` as its kind a small one.

    Raises:
        OSError: the kernel refuses it.
    """
    data = b"size=1m,mode=755" if kind == "tmpfs" else None
    words = (_bytes(source), _bytes(target), _bytes(kind), ctypes.c_ulong(flags), data)
    if _libc.mount(*words):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), target)


def unmount(target: str, flags: int) -> None:
    """Take a mount away.

    Raises:
        OSError: the kernel refuses it.
    """
    if _libc.umount2(_bytes(target), flags):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), target)


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else os.fsencode(text)
