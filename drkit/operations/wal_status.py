"""What WAL is archived: by timeline from where to where, and what is missing."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from drkit.errors import RepositoryMissing
from drkit.model.log_wal import unsigned_note
from drkit.model.reach import Gap, gaps
from drkit.model.wal import Segment, WalFileKind, parse_segment
from drkit.operations.archived import archived_histories, archived_wal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from drkit.repository.repository import Repository


@dataclass(frozen=True, slots=True)
class TimelineStatus:
    """The archived segments of one timeline.

    Attributes:
        gaps: what is missing between them; what has expired is not.
        stored_bytes: what they take in the repository.
    """

    timeline: int
    first: Segment
    last: Segment
    segments: int
    gaps: tuple[Gap, ...]
    stored_bytes: int


@dataclass(frozen=True, slots=True)
class WalStatus:
    """The archived WAL of one cluster.

    Attributes:
        segment_size: in bytes.
        other: how many timeline histories, backup histories and partial segments.
        stored_bytes: what all of it takes in the repository.
        signers: public keys that sign it.
        signed_since: by timeline the first segment that must be signed; of others all
            must be. None: nothing must be.
    """

    segment_size: int
    timelines: tuple[TimelineStatus, ...]
    other: dict[str, int]
    stored_bytes: int
    signers: tuple[str, ...] = ()
    signed_since: Mapping[int, str] | None = None

    @property
    def has_gaps(self) -> bool:
        """Whether a segment is missing between two others of its timeline."""
        return any(line.gaps for line in self.timelines)

    @property
    def unsigned(self) -> str | None:
        """Which of it may be unsigned, in a sentence; None if none may."""
        first = (line.first.name(self.segment_size) for line in self.timelines)
        return unsigned_note(self.signed_since, first)


def wal_status(repository: Repository) -> WalStatus:
    """List the archive and look for gaps.

    Raises:
        RepositoryMissing: the cluster was never set up here.
    """
    repository.backups()
    opened = repository.log.state.opened
    if opened is None:
        raise RepositoryMissing(f"cluster {repository.layout.cluster} has no log")
    size = opened.segment_size
    sizes: dict[int, dict[Segment, int]] = defaultdict(dict)
    other = {str(kind): 0 for kind in WalFileKind if kind is not WalFileKind.SEGMENT}
    total = 0
    wal, histories = archived_wal(repository), archived_histories(repository)
    for stored in (*wal.files, *histories.files):
        total += stored.size
        if stored.file.kind is WalFileKind.SEGMENT:
            segment = parse_segment(stored.file.name, size)
            sizes[segment.timeline][segment] = stored.size
        else:
            other[stored.file.kind] += 1
    state = repository.log.state
    lines = [
        _timeline(timeline, sizes[timeline], state.wal_bound(timeline) // size)
        for timeline in sorted(sizes)
    ]
    signers = tuple(sorted(state.wal_signers))
    return WalStatus(size, tuple(lines), other, total, signers, state.wal_signed)


def _timeline(timeline: int, sizes: dict[Segment, int], first: int) -> TimelineStatus:
    """Describe a timeline, whose segments before the one of number `first` may go."""
    lost = (gap for gap in gaps(sizes) if gap.last.number >= first)
    return TimelineStatus(
        timeline,
        min(sizes),
        max(sizes),
        len(sizes),
        tuple(_behind(gap, first) for gap in lost),
        sum(sizes.values()),
    )


def _behind(gap: Gap, first: int) -> Gap:
    """Return what of a gap lies at or behind the segment of number `first`."""
    return gap._replace(first=Segment(gap.first.timeline, max(gap.first.number, first)))
