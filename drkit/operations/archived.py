"""The archived WAL as far as somebody archived it.

Whoever can create objects can put anything at the names of WAL that is still to come.
It must not look like WAL, nor like a gap in front of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from drkit.errors import KeyUnavailable
from drkit.model.wal import WalFileKind

if TYPE_CHECKING:
    from drkit.repository.repository import Repository
    from drkit.repository.wal import StoredWal


class Archived(NamedTuple):
    """The WAL files that were archived, and the objects that only have their names."""

    files: tuple[StoredWal, ...]
    void: tuple[str, ...]


def archived_wal(repository: Repository) -> Archived:
    """List the archive without what is void at the end of each timeline.

    In front of a file that was archived nothing is left out: what is void there was
    WAL once, and is damaged, unless it lies at a further name.
    """
    listed = list(repository.wal.list())
    ends: dict[int, StoredWal] = {}
    left_out: set[StoredWal] = set()
    for stored in reversed(listed):
        timeline = stored.file.timeline
        if timeline in ends or stored.file.kind is not WalFileKind.SEGMENT:
            continue
        if _is_void(repository, stored):
            left_out.add(stored)
        else:
            ends[timeline] = stored
    return Archived(
        tuple(one for one in listed if one not in left_out),
        tuple(
            repository.wal.name(one.file, one.number)
            for one in listed
            if one in left_out
        ),
    )


def archived_histories(repository: Repository) -> Archived:
    """List the timelines' histories without what is void."""
    listed = list(repository.wal.histories())
    void = {one for one in listed if _is_void(repository, one)}
    return Archived(
        tuple(one for one in listed if one not in void),
        tuple(
            repository.wal.name(one.file, one.number) for one in listed if one in void
        ),
    )


def _is_void(repository: Repository, stored: StoredWal) -> bool:
    try:
        return repository.wal.is_void(stored.file)
    except KeyUnavailable:
        return False  # whatever needs to look into it says why it can't
