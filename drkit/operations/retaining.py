"""What the log and the archive say that decides what is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drkit.errors import DrkitError
from drkit.model.fate import Catalog
from drkit.model.label import BASE_BACKUPS
from drkit.model.log import Commit
from drkit.model.timeline import TimelineHistory
from drkit.model.wal_retention import before, wal_needs

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from datetime import datetime

    from drkit.model.backup import BackupSummary
    from drkit.model.log import LogState
    from drkit.model.retention import Retention
    from drkit.model.wal_retention import WalNeeds
    from drkit.repository.repository import Repository

    Histories = Mapping[int, TimelineHistory]


def read_histories(repository: Repository) -> tuple[dict[int, TimelineHistory], int]:
    """Return the archived timeline histories, and how many can't be read.

    What is not known keeps more, so that an unreadable one hurts nobody.
    """
    found: dict[int, TimelineHistory] = {}
    unreadable = 0
    for stored in repository.wal.histories():
        timeline = stored.file.timeline
        try:
            text = repository.wal.get(stored.file).decode(errors="replace")
            found[timeline] = TimelineHistory.parse(timeline, text)
        except (DrkitError, ValueError):
            unreadable += 1
    return found, unreadable


def catalog_of(state: LogState, histories: Histories) -> Catalog:
    """Return what a log's state says of backups."""
    begun = {
        label: state.attempts[commit.attempt].begin
        for label, commit in state.backups.items()
    }
    return Catalog(
        backups=tuple(commit.backup for commit in state.backups.values()),
        parents={label: begin.parent for label, begin in begun.items() if begin.parent},
        pins=state.pins,
        proven=state.proven.keys(),
        running={
            begin.parent: begin.label for begin in state.running() if begin.parent
        },
        histories=histories,
    )


def needs_of(
    repository: Repository,
    retention: Retention,
    histories: Histories,
    now: datetime,
    going: Collection[str] = (),
) -> WalNeeds | None:
    """Return what WAL must stay, as the log says that was read last.

    Args:
        going: labels of live backups to be left out.
    """
    state = repository.log.state
    kept: list[BackupSummary] = []
    former: list[BackupSummary] = []
    for backup in _ever(repository):
        live = backup.label in state.backups and backup.label not in going
        (kept if live else former).append(backup)
    running = [(begin.timeline, begin.start_lsn) for begin in state.running()]
    window = retention.wal_window
    cutoff = None if window is None else before(now, window)
    return wal_needs(kept, former, running, histories, cutoff)


def _ever(repository: Repository) -> Iterator[BackupSummary]:
    """Yield every base backup that was ever committed, in the log's order."""
    for logged in repository.log.entries:
        if isinstance(logged.entry, Commit):
            backup = logged.entry.backup
            if backup.kind in BASE_BACKUPS:
                yield backup
