"""A disk with bad blocks: reads of files fail with EIO from some position on.

A seccomp filter (seccomp(2)) that looks at the position a read asks for; it stays until
the process ends, and its children inherit it. Run as a program it starts another one
under the filter:

    python -m tests.operations.badblocks 41943040 /usr/lib/postgresql/15/bin/postgres …
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys

# pread64, preadv and preadv2: the position is the fourth argument of all three.
_CALLS = {"x86_64": (17, 295, 327), "aarch64": (67, 69, 286)}
_POSITION = 16 + 3 * 8  # in struct seccomp_data; low half, little-endian
_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000  # linux/seccomp.h
_NO_NEW_PRIVILEGES, _SECCOMP, _FILTER = 38, 22, 2  # linux/prctl.h


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def fail_reads_from(position: int) -> None:
    """From now on reads at `position` (below 4 GiB) or behind it fail with EIO."""
    calls = _CALLS[platform.machine()]
    instructions = [(_LOAD, 0, 0, 0)]
    for left, number in zip(range(len(calls) - 1, -1, -1), calls, strict=True):
        instructions.append((_JUMP_EQUAL, left + 1, 0, number))
    instructions += [
        (_RETURN, 0, 0, _ALLOW),
        (_LOAD, 0, 0, _POSITION),
        (_JUMP_AT_LEAST, 0, 1, position),
        (_RETURN, 0, 0, _ERRNO | errno.EIO),
        (_RETURN, 0, 0, _ALLOW),
    ]
    code = b"".join(struct.pack("HBBI", *line) for line in instructions)
    libc = ctypes.CDLL(None, use_errno=True)
    none, one = ctypes.c_ulong(0), ctypes.c_ulong(1)
    program = ctypes.byref(_Program(len(instructions), code))
    if libc.prctl(_NO_NEW_PRIVILEGES, one, none, none, none) or libc.prctl(
        _SECCOMP, ctypes.c_ulong(_FILTER), program, none, none
    ):
        raise OSError(ctypes.get_errno(), "no seccomp filter could be installed")


if __name__ == "__main__":
    fail_reads_from(int(sys.argv[1]))
    os.execv(sys.argv[2], sys.argv[2:])
