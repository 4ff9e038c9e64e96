"""Peer authentication for root: a server's socket knows users by their process.

`peer` lines in pg_hba.conf let in whom the kernel says the process is (`auth-peer` in
PostgreSQL's documentation). Root is nobody there, though it may become anybody: it
connects as the user who owns the socket, which is the user the server runs as.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from drkit.postgres.sandbox.kernel import call

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from psycopg.pq.abc import PGconn


# Linux's numbers of the system calls, by machine.
_SETRESGID_SETRESUID = {"x86_64": (119, 117), "aarch64": (149, 147)}
_SAME = -1


def socket_owner(failed: PGconn | None) -> os.stat_result | None:
    """Return who owns the socket that a login failed at, if becoming them may help."""
    if failed is None or os.geteuid() != 0 or b"Peer auth" not in failed.error_message:
        return None
    socket = os.path.join(os.fsdecode(failed.host), f".s.PGSQL.{failed.port.decode()}")
    try:
        owner = os.stat(socket)
    except OSError:
        return None
    return owner if owner.st_uid != 0 else None


@contextmanager
def acting_as(owner: os.stat_result) -> Iterator[None]:
    """Have the effective user and group of `owner` in this thread, for the block.

    The kernel notes the identity of the thread that connects. The other threads go on
    as they are: they may be writing files just then. Where the calls for that are not
    known, the whole process changes.
    """
    group = os.getegid()
    change_group, change_user = _changes()
    change_group(owner.st_gid)
    try:
        change_user(owner.st_uid)
        yield
    finally:
        change_user(0)
        change_group(group)


def _changes() -> tuple[Callable[[int], object], Callable[[int], object]]:
    """Return what sets the effective group, and the effective user."""
    system = os.uname()
    numbers = _SETRESGID_SETRESUID.get(system.machine)
    if system.sysname != "Linux" or numbers is None:
        return os.setegid, os.seteuid
    # the C library's own functions would tell all threads to do the same
    set_group, set_user = (
        lambda effective, number=number: call(number, _SAME, effective, _SAME)
        for number in numbers
    )
    return set_group, set_user
