"""Expiring WAL: told in the log before the first file goes.

From that entry on no backup can begin that needs what is going, and one that began
before was seen. So it does not matter how long an expiry sleeps before it deletes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from drkit.model.log_wal import ExpireWal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from drkit.model.log import Entry, LogState
    from drkit.model.wal_retention import WalNeeds
    from drkit.repository.repository import Repository
    from drkit.repository.wal import StoredWal


class NothingToWrite(Exception):
    """The log's state has made an entry needless."""


def expire_wal(
    repository: Repository,
    planned: Sequence[StoredWal],
    judge: Callable[[], WalNeeds | None],
) -> list[StoredWal]:
    """Write which WAL goes; return the files that may be deleted from now on.

    Nothing is written where an earlier entry says as much: no backup can have begun
    behind it that this state does not show.

    Args:
        repository: of the cluster.
        planned: the files that were to go.
        judge: says what must stay by the log as it was read last.
    """
    going: list[StoredWal] = []

    def decide(state: LogState) -> Entry:
        needs = judge()
        expired = needs.test() if needs is not None else lambda _: False
        going[:] = [one for one in planned if expired(one.file)]
        bounds = needs.bounds(one.file for one in going) if needs is not None else {}
        if all(bound <= state.wal_bound(line) for line, bound in bounds.items()):
            raise NothingToWrite
        return ExpireWal(tuple(sorted(bounds.items())))

    try:
        repository.log.append(decide)
    except NothingToWrite:
        return going
    return going
