"""Runs a program on a kernel that lacks something: system calls that are not there.

    python lacking.py NAME[,NAME…] PROGRAM [ARGUMENT…]

The names are `landlock`, `seccomp` (filters, after this one) and `namespaces`. The
filter is inherited, so everything that the program starts finds the same kernel.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys

LOAD, EQUAL, RETURN, ALLOW, REFUSE = 0x20, 0x15, 0x06, 0x7FFF0000, 0x00050000
UNSHARE = {"x86_64": 272, "aarch64": 97}[platform.machine()]
PRCTL = {"x86_64": 157, "aarch64": 167}[platform.machine()]
SET_SECCOMP, NO_NEW_PRIVILEGES, FILTER = 22, 38, 2


def refuse(error: int) -> tuple[int, int, int, int]:
    return (RETURN, 0, 0, REFUSE | error)


def lines_for(name: str) -> list[tuple[int, int, int, int]]:
    if name == "landlock":
        return [(EQUAL, 0, 1, 444), refuse(errno.ENOSYS)]
    if name == "namespaces":
        return [(EQUAL, 0, 1, UNSHARE), refuse(errno.EPERM)]
    assert name == "seccomp"
    return [
        (EQUAL, 0, 4, PRCTL),
        (LOAD, 0, 0, 16),  # its first argument
        (EQUAL, 0, 1, SET_SECCOMP),
        refuse(errno.EINVAL),
        (RETURN, 0, 0, ALLOW),
    ]


def lack(names: list[str]) -> None:
    """Take something away from this process for good."""
    lines = [(LOAD, 0, 0, 0)]
    for name in names:
        lines += lines_for(name)
    lines.append((RETURN, 0, 0, ALLOW))
    packed = b"".join(struct.pack("HBBI", *line) for line in lines)
    filters = ctypes.create_string_buffer(packed)
    program = struct.pack("H6xQ", len(lines), ctypes.addressof(filters))
    libc, zero = ctypes.CDLL(None, use_errno=True), ctypes.c_ulong(0)
    if os.geteuid() != 0:
        assert libc.prctl(NO_NEW_PRIVILEGES, ctypes.c_ulong(1), zero, zero, zero) == 0
    assert libc.prctl(SET_SECCOMP, ctypes.c_ulong(FILTER), program) == 0


if __name__ == "__main__":
    lack([name for name in sys.argv[1].split(",") if name])
    os.execv(sys.argv[2], sys.argv[2:])
