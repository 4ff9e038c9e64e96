"""Landlock: what of the file system, and of the network, a program may use.

Sources: landlock(7) and `include/uapi/linux/landlock.h`.
"""

from __future__ import annotations

import os
import stat
import struct

from drkit.postgres.sandbox import kernel

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_ABI_ONLY, _PATH_BENEATH = 1, 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 1 << 1, 1 << 2, 1 << 3
_CHANGE_ENTRIES = sum(1 << bit for bit in range(4, 13))  # REMOVE_DIR to MAKE_SYM
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_SINCE = {2: _REFER, 3: _TRUNCATE, 5: _IOCTL_DEV}
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_TCP = 1 << 0 | 1 << 1  # bind and connect
_SCOPES = 1 << 0 | 1 << 1  # abstract sockets and signals
NETWORK_SINCE, SCOPES_SINCE = 4, 6

READ = _READ_FILE | _READ_DIR
RUN = READ | _EXECUTE
WRITE = READ | _WRITE_FILE | _CHANGE_ENTRIES | _REFER | _TRUNCATE
DEVICE = _READ_FILE | _WRITE_FILE | _TRUNCATE


def version() -> int:
    """Return what the kernel can do of Landlock; 0 where it has none."""
    try:
        return kernel.call(_CREATE_RULESET, None, 0, _ABI_ONLY)
    except OSError:
        return 0


def ruleset(allowed: list[tuple[str, int]]) -> int | None:
    """Return a descriptor of rules that allow these paths; None without Landlock.

    Everything else that this kernel's Landlock knows is refused, TCP and signals to
    processes outside among it.

    Args:
        allowed: paths, with what may be done below; those that are not there are
            passed over.

    Raises:
        OSError: the kernel refuses the rules.
    """
    abi = version()
    if abi < 1:
        return None
    handled = _EXECUTE | _WRITE_FILE | READ | _CHANGE_ENTRIES
    handled |= sum(right for since, right in _SINCE.items() if abi >= since)
    network = _TCP if abi >= NETWORK_SINCE else 0
    scopes = _SCOPES if abi >= SCOPES_SINCE else 0
    attributes = struct.pack("QQQ", handled, network, scopes)
    size = 24 if abi >= SCOPES_SINCE else 16 if abi >= NETWORK_SINCE else 8
    rules = kernel.call(_CREATE_RULESET, attributes, size, 0)
    for path, rights in allowed:
        _allow(rules, path, rights & handled)
    return rules


def restrict(rules: int) -> None:
    """Put rules in force, for this process and all that it starts.

    Raises:
        OSError: the kernel refuses it.
    """
    kernel.call(_RESTRICT_SELF, rules, 0)
    os.close(rules)


def _allow(rules: int, path: str, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            rights &= _OF_FILES
        rule = struct.pack("<Qi", rights, descriptor)
        kernel.call(_ADD_RULE, rules, _PATH_BENEATH, rule, 0)
    finally:
        os.close(descriptor)
