"""Peer authentication for root: a server's socket knows users by their process.

`peer` lines in pg_hba.conf let in whom the kernel says the process is (`auth-peer` in
PostgreSQL's documentation). Root is nobody there, though it may become anybody: it
connects as the user who owns the socket, which is the user the server runs as.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg.pq.abc import PGconn


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
    """Have the effective user and group of `owner` for the length of the block.

    The whole process has them, so the block must be short and no thread may depend
    on being root meanwhile.
    """
    group = os.getegid()
    os.setegid(owner.st_gid)
    try:
        os.seteuid(owner.st_uid)
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
