"""The WAL of a verification: which files are opened, and whom a damaged one touches."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from drkit.errors import Corrupt
from drkit.model.damage import DamageKind
from drkit.model.wal import WalFileKind, WalFileName, parse_segment
from drkit.operations.archived import archived_histories, archived_wal
from drkit.operations.backup_wal import own_segments
from drkit.operations.windows import needed_wal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from drkit.model.backup import BackupSummary
    from drkit.model.damage import Damage
    from drkit.model.log import Commit
    from drkit.repository.repository import Repository


def wal_to_open(
    repository: Repository, chosen: Sequence[Commit], *, everything: bool
) -> dict[WalFileName, int]:
    """Return the WAL files to open: what leads on from the backups, or all.

    With each its stored size; 0 where the listing lacks it.
    """
    wal, histories = archived_wal(repository), archived_histories(repository)
    listed = (*wal.files, *histories.files)
    sizes = {stored.file: stored.size for stored in listed}
    try:
        needed = set(needed_wal(repository, [one.backup for one in chosen]))
    except Corrupt:
        return sizes  # a damaged history is opened as well, and told then
    wanted = sorted(sizes.keys() | needed if everything else needed)
    return {file: sizes.get(file, 0) for file in wanted}


def expired_wal(repository: Repository, damage: Damage) -> bool:
    """Say whether a WAL file was removed, rightly, while it was being verified.

    It was if the log says so and no live backup needs it to be consistent, or if no
    live backup begins as early.
    """
    file = _wal_file(damage.name)
    opened = repository.log.state.opened
    if damage.kind is not DamageKind.MISSING or file is None or opened is None:
        return False
    if file.kind is WalFileKind.HISTORY:
        return False
    size = opened.segment_size
    segment = parse_segment(file.name[:24], size)
    end = segment.next().start(size)
    live = [one.backup for one in repository.log.state.backups.values()]
    if repository.log.state.wal_expired(segment, size):
        return all(file.name[:24] not in _own_wal(one) for one in live)
    return all(end <= one.start_lsn for one in live)


def _wal_file(name: str) -> WalFileName | None:
    try:
        return WalFileName.parse(name.rpartition("/")[2])
    except ValueError:
        return None


def with_wal_backups(
    repository: Repository,
    damage: Damage,
    files: Sequence[WalFileName],
    backups: Sequence[BackupSummary],
) -> Damage:
    """Add to damage of a WAL segment the backups that are inconsistent without it."""
    names = {repository.wal.name(file): file.name for file in files}
    if damage.name not in names:
        return damage
    wanted = names[damage.name]
    labels = (one.label for one in backups if wanted in _own_wal(one))
    return replace(damage, backups=tuple(labels))


def _own_wal(backup: BackupSummary) -> Iterator[str]:
    size = backup.wal_segment_size
    return (segment.name(size) for segment in own_segments(backup))


def lost_histories(repository: Repository) -> Iterator[str]:
    """Tell of timelines that have WAL but no history, and of what is no WAL."""
    wal, histories = archived_wal(repository), archived_histories(repository)
    for name in (*wal.void, *histories.void):
        yield (
            f"{name} was never archived, or its header is damaged; nothing that was "
            "follows it"
        )
    known = {stored.file.timeline for stored in histories.files}
    for timeline in sorted({one.file.timeline for one in wal.files} - known):
        if timeline > 1:
            yield (
                f"WAL of timeline {timeline} is archived, but not its history, "
                f"{timeline:08X}.history: backups of older timelines can't reach it"
            )
