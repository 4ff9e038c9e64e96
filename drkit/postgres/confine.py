"""Starts a program that can change nothing but one directory. Run by its path.

    python -I -S confine.py PARENT BYTES DIRECTORY PROGRAM [ARGUMENT…]

A server that replays the WAL of another cluster does what that WAL says, and with
CREATE TABLESPACE it says: write to this place of the host it came from. On a host where
that cluster runs too, under the same user, nothing but the kernel stands between them.
Settings can't help: PostgreSQL has none for it. So before it becomes the server, this
program gives up, for itself and all that it starts:

* writing outside of DIRECTORY and sending signals to other processes, where the kernel
  has Landlock (landlock(7));
* setting directories to the modes that CREATE TABLESPACE begins with (seccomp(2)).
  That is also what stops such a record before it is half replayed;
* more than BYTES of private memory for a process, core files, and gaining rights;
* outliving the thread of PARENT that started it: then the server shuts down at once.

It imports nothing of drkit, so that it starts in some milliseconds.
"""

import ctypes
import errno
import os
import platform
import resource
import signal
import struct
import sys

_SET_PARENT_DEATH_SIGNAL, _NO_NEW_PRIVILEGES, _SECCOMP, _FILTER = 1, 38, 22, 2

# linux/landlock.h; the numbers of its calls are the same on all machines
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_ABI_ONLY, _PATH_BENEATH = 1, 1
_WRITE_FILE = 1 << 1
_CHANGE_ENTRIES = sum(1 << bit for bit in range(4, 13))  # REMOVE_DIR to MAKE_SYM
_REFER, _TRUNCATE = 1 << 13, 1 << 14  # since ABI 2 and 3
_SCOPES = 1 << 0 | 1 << 1  # abstract sockets and signals, since ABI 6

# linux/filter.h and linux/seccomp.h
_LOAD, _EQUAL, _GO, _RETURN = 0x20, 0x15, 0x05, 0x06
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000
_SECOND, _THIRD = 24, 32  # where the arguments' low words lie
_DIRECTORY_MODES = (0o700, 0o750)  # PostgreSQL's `pg_dir_create_mode`
_NONE = 0xFFFFFFFF
_CALLS = {  # chmod, fchmodat, fchmodat2
    "x86_64": (90, 268, 452),
    "aarch64": (_NONE, 53, 452),
}

_libc = ctypes.CDLL(None, use_errno=True)


def main(arguments: list[str]) -> None:
    """Give up the rights and become the program.

    Raises:
        SystemExit: the parent is gone, or the kernel has neither means.
    """
    parent, memory, directory, *command = arguments
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)  # a shell's background ignores it
    _prctl(_SET_PARENT_DEATH_SIGNAL, int(signal.SIGQUIT))
    if os.getppid() != int(parent):
        sys.exit("confine: the process that wanted this is gone")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (int(memory), int(memory)))
    _prctl(_NO_NEW_PRIVILEGES, 1)
    means = [restrict_writing(directory), refuse_directory_modes()]
    if not any(means):
        sys.exit(
            "confine: this kernel has neither Landlock nor seccomp filters that are "
            "known here: WAL of another cluster can't be replayed safely"
        )
    os.execv(command[0], command)  # noqa: S606  there is no shell, on purpose


def landlock_version() -> int:
    """Return what the kernel can do of Landlock; less than 1 where it has none."""
    flag = ctypes.c_uint32(_ABI_ONLY)
    return int(_libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), flag))


def restrict_writing(directory: str) -> bool:
    """Allow writing to one directory only; say whether the kernel can do that."""
    version = landlock_version()
    if version < 1:
        return False
    handled = _WRITE_FILE | _CHANGE_ENTRIES
    handled |= (_REFER if version >= 2 else 0) | (_TRUNCATE if version >= 3 else 0)
    attributes = struct.pack("QQQ", handled, 0, _SCOPES if version >= 6 else 0)
    size = 24 if version >= 6 else 8
    ruleset = _libc.syscall(
        _CREATE_RULESET, attributes, ctypes.c_size_t(size), ctypes.c_uint32(0)
    )
    if ruleset < 0:
        raise OSError(ctypes.get_errno(), "no Landlock ruleset could be made")
    _allow(ruleset, directory, handled)
    _allow(ruleset, os.devnull, handled & (_WRITE_FILE | _TRUNCATE))
    if _libc.syscall(_RESTRICT_SELF, ruleset, ctypes.c_uint32(0)):
        raise OSError(ctypes.get_errno(), "Landlock could not be switched on")
    os.close(ruleset)
    return True


def refuse_directory_modes() -> bool:
    """Let every `chmod` to a data directory's modes fail; say whether that is known.

    `create_tablespace_directories` in `src/backend/commands/tablespace.c` does that
    first, before it makes anything.
    """
    calls = _CALLS.get(platform.machine())
    if calls is None:
        return False
    plain, at, at2 = calls
    private, group = _DIRECTORY_MODES
    code = (
        (_LOAD, 0, 0, 0),
        (_EQUAL, 2, 0, plain),
        (_EQUAL, 3, 0, at),
        (_EQUAL, 2, 5, at2),
        (_LOAD, 0, 0, _SECOND),
        (_GO, 0, 0, 1),
        (_LOAD, 0, 0, _THIRD),
        (_EQUAL, 2, 0, private),
        (_EQUAL, 1, 0, group),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _REFUSE | errno.EPERM),
    )
    filters = ctypes.create_string_buffer(
        b"".join(struct.pack("HBBI", *line) for line in code)
    )
    program = struct.pack("H6xQ", len(code), ctypes.addressof(filters))
    return bool(_libc.prctl(_SECCOMP, ctypes.c_ulong(_FILTER), program) == 0)


def _allow(ruleset: int, path: str, rights: int) -> None:
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        rule = struct.pack("<Qi", rights, descriptor)
        if _libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, ctypes.c_uint32(0)):
            raise OSError(ctypes.get_errno(), "Landlock refuses the rule", path)
    finally:
        os.close(descriptor)


def _prctl(option: int, value: int) -> None:
    zero = ctypes.c_ulong(0)
    if _libc.prctl(option, ctypes.c_ulong(value), zero, zero, zero):
        raise OSError(ctypes.get_errno(), f"prctl {option} failed")


if __name__ == "__main__":
    main(sys.argv[1:])
