"""A filter of system calls: what no server needs is refused, by number.

Landlock knows files that are opened, and no more: not modes, owners, times and
attributes, not sockets in the file system, not shared memory. And whatever a later
kernel adds is refused as if it were not there. Sources: seccomp(2), `linux/filter.h`,
and the kernel's tables of system calls.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct
from typing import NamedTuple

from drkit.postgres.sandbox import kernel

_LOAD, _EQUAL, _GREATER, _ANY_BIT, _RETURN = 0x20, 0x15, 0x25, 0x45, 0x06
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
_NEWEST = 462  # mseal; what came later is not known here
_UNIX = 1
_SMALL = 1 << 16  # bytes of System V shared memory; the server's interlock has 56
_NAMESPACES = 0x7E020000  # flags of clone(2)
_CREATE_TABLESPACE = (0o700, 0o750)  # PostgreSQL's `pg_dir_create_mode`
_SOCKET_MODE = 0o777

# x86_64 and aarch64; where an old call was left out of the newer machine: None
_CALLS: dict[str, tuple[int | None, int | None]] = {
    # ownership, times and attributes
    "chown": (92, None), "fchown": (93, 55), "lchown": (94, None),
    "fchownat": (260, 54), "utime": (132, None), "utimes": (235, None),
    "futimesat": (261, None), "utimensat": (280, 88),
    "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7),
    "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16),
    # other processes
    "ptrace": (101, 117), "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271), "kcmp": (312, 272), "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424), "pidfd_getfd": (438, 438),
    "process_madvise": (440, 440), "process_mrelease": (448, 448),
    "setpriority": (141, 140), "ioprio_set": (251, 30),
    "sched_setparam": (142, 118), "sched_setscheduler": (144, 119),
    "sched_setaffinity": (203, 122), "sched_setattr": (314, 274),
    "migrate_pages": (256, 238), "move_pages": (279, 239),
    # mounts and namespaces
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41),
    "chroot": (161, 51), "open_tree": (428, 428), "move_mount": (429, 429),
    "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432),
    "fspick": (433, 433), "mount_setattr": (442, 442), "statmount": (457, 457),
    "listmount": (458, 458), "unshare": (272, 97), "setns": (308, 268),
    # ways around this filter, and around limits of memory
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427), "memfd_create": (319, 279),
    "memfd_secret": (447, 447), "msgget": (68, 186), "semget": (64, 190),
    "mq_open": (240, 180), "mq_unlink": (241, 181),
    # messages to sockets by their address, and descriptors to others
    "sendmsg": (46, 211), "sendmmsg": (307, 269),
    # the kernel itself
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "kexec_load": (246, 104), "kexec_file_load": (320, 294),
    "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106),
    "reboot": (169, 142), "swapon": (167, 224), "swapoff": (168, 225),
    "acct": (163, 89), "quotactl": (179, 60), "quotactl_fd": (443, 443),
    "settimeofday": (164, 170), "clock_settime": (227, 112), "adjtimex": (159, 171),
    "clock_adjtime": (305, 266), "syslog": (103, 116), "personality": (135, 92),
    "iopl": (172, None), "ioperm": (173, None), "modify_ldt": (154, None),
    "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265),
    "fanotify_init": (300, 262), "lookup_dcookie": (212, 18), "vhangup": (153, 58),
    "sethostname": (170, 161), "setdomainname": (171, 162),
}  # fmt: skip
_SPECIAL: dict[str, tuple[int | None, int | None]] = {
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53),
    "fchmodat2": (452, 452), "socket": (41, 198), "connect": (42, 203),
    "sendto": (44, 206), "clone": (56, 220), "clone3": (435, 435),
    "prlimit64": (302, 261), "shmget": (29, 194),
}  # fmt: skip
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}


class _Line(NamedTuple):
    """One instruction: what it does, how far to jump if so and if not, its operand."""

    code: int
    true: int
    false: int
    operand: int


def code(*, connect: bool) -> list[_Line] | None:
    """Return the filter's program; None for a machine that is not known here.

    Args:
        connect: whether to let the program connect to sockets.
    """
    if platform.machine() not in _MACHINES:
        return None
    machine, architecture = _MACHINES[platform.machine()]
    lines = [
        _Line(_LOAD, 0, 0, _ARCHITECTURE),
        _Line(_EQUAL, 1, 0, architecture),
        _refuse(),
        _Line(_LOAD, 0, 0, _NUMBER),
        _Line(_GREATER, 0, 1, _NEWEST),
        _refuse(errno.ENOSYS),
    ]
    rules = {name: [_refuse()] for name in _CALLS} | _special()
    if connect:
        del rules["connect"]
    for name, then in rules.items():
        number = (_CALLS | _SPECIAL)[name][machine]
        if number is not None:
            lines += [_Line(_EQUAL, 0, len(then), number), *then]
    return [*lines, _allow()]


def refuse_calls(*, connect: bool) -> bool:
    """Put the filter in force, for good; say whether this kernel has such filters.

    Needs `no_new_privs`.
    """
    lines = code(connect=connect)
    if lines is None:
        return False
    buffer = ctypes.create_string_buffer(
        b"".join(struct.pack("HBBI", *line) for line in lines)
    )
    program = struct.pack("H6xQ", len(lines), ctypes.addressof(buffer))
    try:
        kernel.prctl(kernel.SECCOMP, kernel.SECCOMP_FILTER, program)
    except OSError:
        return False
    return True


def _special() -> dict[str, list[_Line]]:
    """Return what is done with calls that are refused for some arguments only."""
    return {
        "chmod": _mode(1),
        "fchmod": _mode(1),
        "fchmodat": _mode(2),
        "fchmodat2": _mode(2),
        "socket": [_low(0), _Line(_EQUAL, 1, 0, _UNIX), _refuse(), _allow()],
        "connect": [_refuse()],
        # an address is given where a socket is not connected
        "sendto": [
            _low(4),
            _Line(_EQUAL, 0, 2, 0),
            _high(4),
            _Line(_EQUAL, 1, 0, 0),
            _refuse(),
            _allow(),
        ],
        "clone": [_low(0), _Line(_ANY_BIT, 0, 1, _NAMESPACES), _refuse(), _allow()],
        "clone3": [_refuse(errno.ENOSYS)],  # its flags lie in memory; clone is tried
        "prlimit64": [_low(0), _Line(_EQUAL, 1, 0, 0), _refuse(), _allow()],
        "shmget": [
            _high(1),
            _Line(_EQUAL, 0, 2, 0),
            _low(1),
            _Line(_GREATER, 0, 1, _SMALL),
            _refuse(),
            _allow(),
        ],
    }


def _mode(argument: int) -> list[_Line]:
    """Refuse every change of a mode, but say that the server's own socket was changed.

    The server asks for that mode once it listens, and ends where it is refused. Its
    umask has made the socket its own user's alone, and so it stays.

    `create_tablespace_directories` in `src/backend/commands/tablespace.c` changes a
    directory first, before it makes anything; that must fail.
    """
    assert _SOCKET_MODE not in _CREATE_TABLESPACE
    return [
        _low(argument),
        _Line(_EQUAL, 0, 1, _SOCKET_MODE),
        _refuse(0),
        _refuse(),
    ]


def _low(argument: int) -> _Line:
    return _Line(_LOAD, 0, 0, _ARGUMENTS + 8 * argument)


def _high(argument: int) -> _Line:
    return _Line(_LOAD, 0, 0, _ARGUMENTS + 8 * argument + 4)


def _allow() -> _Line:
    return _Line(_RETURN, 0, 0, _ALLOW)


def _refuse(error: int = errno.EPERM) -> _Line:
    """Let a call fail with this error; with 0 it seems to succeed."""
    return _Line(_RETURN, 0, 0, _REFUSE | error)
