"""The kernel's own refusals: a system call that fails, or kills, in this process.

A seccomp filter (seccomp(2)) stays until the process ends, so it is for children only.
It stands in for a disk that returns EIO, for a file system without hard links, and for
a crash between two exact steps.
"""

from __future__ import annotations

import ctypes
import platform
import struct

_NUMBERS = {
    "x86_64": {
        "write": 1,
        "fsync": 74,
        "pread64": 17,
        "mkdirat": 258,
        "unlinkat": 263,
        "linkat": 265,
        "renameat2": 316,
    },
    "aarch64": {
        "write": 64,
        "fsync": 82,
        "pread64": 67,
        "mkdirat": 34,
        "unlinkat": 35,
        "linkat": 37,
        "renameat2": 276,
    },
}
_LOAD, _JUMP_EQUAL, _RETURN = 0x20, 0x15, 0x06  # linux/bpf_common.h
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000  # linux/seccomp.h
_NO_NEW_PRIVILEGES, _SECCOMP, _FILTER = 38, 22, 2  # linux/prctl.h


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def fail(call: str, code: int) -> None:
    """From now on `call` does nothing and fails with errno `code`."""
    _install(call, _ERRNO | code)


def kill_at(call: str) -> None:
    """From now on `call` ends the process at once, before doing anything."""
    _install(call, _KILL)


def _install(call: str, action: int) -> None:
    number = _NUMBERS[platform.machine()][call]
    instructions = [
        (_LOAD, 0, 0, 0),
        (_JUMP_EQUAL, 0, 1, number),
        (_RETURN, 0, 0, action),
        (_RETURN, 0, 0, _ALLOW),
    ]
    code = b"".join(struct.pack("HBBI", *line) for line in instructions)
    program = _Program(len(instructions), code)
    libc = ctypes.CDLL(None, use_errno=True)
    none = ctypes.c_ulong(0)
    one = ctypes.c_ulong(1)
    if libc.prctl(_NO_NEW_PRIVILEGES, one, none, none, none) or libc.prctl(
        _SECCOMP, ctypes.c_ulong(_FILTER), ctypes.byref(program), none, none
    ):
        raise OSError(ctypes.get_errno(), "no seccomp filter could be installed")
