"""Choosing the backup that an incremental builds on, or saying why there is none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from drkit.errors import Corrupt, KeyLost, KeyUnavailable
from drkit.model.label import BackupKind
from drkit.model.reach import reach
from drkit.model.wal import WalFileKind, parse_segment
from drkit.repository.chain import ChainContent, read_parent
from drkit.repository.findings import damaged_frames

if TYPE_CHECKING:
    from drkit.model.backup import BackupSummary
    from drkit.model.copied import Present
    from drkit.model.head import ServerDescription
    from drkit.model.log import Commit
    from drkit.repository.repository import Repository

_PHYSICAL = (BackupKind.FULL, BackupKind.INCREMENTAL)


@dataclass(frozen=True, slots=True)
class Parent:
    """A backup that an incremental can build on."""

    commit: Commit
    content: ChainContent

    @property
    def label(self) -> str:
        """Return the backup's label."""
        return self.commit.backup.label


def choose_parent(repository: Repository, present: Present) -> Parent | str:
    """Return the newest backup on the server's history, or why a full is needed.

    A backup that is not on that history is passed over: a recovery to an earlier time
    left it behind, and an older one may still lead to the present.

    Raises:
        KeyUnavailable: this policy's key does not open it.
    """
    refusal = "there is no backup yet"
    commits = [one for one in repository.backups() if one.backup.kind in _PHYSICAL]
    for place, commit in enumerate(reversed(commits)):
        off = _off_history(commit.backup, present)
        if off is None:
            return _checked(repository, commit, present)
        if place == 0:
            refusal = off
    return refusal


def _off_history(backup: BackupSummary, present: Present) -> str | None:
    if backup.system_identifier != present.server.system_identifier:
        return f"backup {backup.label} is of another cluster"
    if not present.history.contains(backup.timeline, backup.stop_lsn):
        return (
            f"backup {backup.label} ends at {backup.stop_lsn} on timeline "
            f"{backup.timeline}, and the server's timeline "
            f"{present.history.timeline} does not come from there"
        )
    if backup.stop_lsn > present.lsn:
        return (
            f"backup {backup.label} ends at {backup.stop_lsn}, the server is only at "
            f"{present.lsn}"
        )
    return None


def _checked(repository: Repository, commit: Commit, present: Present) -> Parent | str:
    why = _gap(repository, commit.backup, present)
    if why is not None:
        return why
    try:
        chain = read_parent(repository, commit)
        changed = _changed_server(chain.head.server, present.server)
        if changed is not None:
            return f"since backup {commit.backup.label} {changed}"
        lost = damaged_frames(repository)
        return Parent(commit, ChainContent(repository, chain, lost))
    except (Corrupt, KeyLost) as error:
        return (
            f"the chain of backup {commit.backup.label} can't be read: {error.message}"
        )
    except KeyUnavailable as error:
        # A full backup under a key that opens no other one would be the newest, and
        # the first to be restored.
        name = repository.layout.cluster
        raise KeyUnavailable(
            f"backup {commit.backup.label} can't be built on: {error.message}",
            hint=f"{error.hint or 'mend the key'}; if the old key is gone for good, "
            f"begin anew with: drkit backup {name} --type full",
        ) from error


def _changed_server(before: ServerDescription, now: ServerDescription) -> str | None:
    if before.data_checksums != now.data_checksums:
        state = "on" if now.data_checksums else "off"
        return f"page checksums were switched {state}"
    for name, what in (
        ("catalog_version", "the server's version changed"),
        ("block_size", "the page size changed"),
        ("relation_segment_size", "the size of relation files changed"),
        ("wal_segment_size", "the size of WAL segments changed"),
    ):
        if getattr(before, name) != getattr(now, name):
            return what
    return None


def _gap(repository: Repository, backup: BackupSummary, present: Present) -> str | None:
    """Say what WAL since the backup is missing.

    A stretch of `wal_level=minimal`, in which pages change without a trace, can't be
    archived and so leaves a gap.
    """
    size, history = backup.wal_segment_size, present.history
    archived = {
        parse_segment(stored.file.name, size)
        for timeline in {one.timeline for one in history.switches} | {history.timeline}
        for stored in repository.wal.stretch(timeline, backup.start_lsn, present.lsn)
        if stored.file.kind is WalFileKind.SEGMENT
    }
    reached = reach(backup.start_lsn, history, archived, size)
    if not reached.gap and reached.end >= backup.stop_lsn:
        return None
    return (
        f"WAL segment {reached.missing.name(size)} behind backup {backup.label} is not "
        "in the repository"
    )
