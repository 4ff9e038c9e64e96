"""Which archived WAL is still needed: a pure function of what is kept.

WAL goes by its place: what lies before the first WAL that anything kept can need. The
newest kept backup's start, and a running attempt's, protect whatever follows on any
timeline; so does a timeline that no kept backup knows yet, for its first backup may be
under way. Histories always stay.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from datetime import UTC
from typing import TYPE_CHECKING, NamedTuple

from drkit.model.lsn import Lsn
from drkit.model.timeline import TimelineHistory
from drkit.model.wal import WalFileKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime, timedelta

    from drkit.model.backup import BackupSummary
    from drkit.model.wal import WalFileName

    Histories = Mapping[int, TimelineHistory]

_WHOLE = 16  # digits of a segment's name behind its timeline
_HIGH = 8  # those that don't depend on the segment size


class Stretch(NamedTuple):
    """WAL of any timeline, by the digits of names, both ends inclusive."""

    first: str
    last: str


class Onward(NamedTuple):
    """All WAL from a position on, wherever recovery can go from there."""

    timeline: int
    lsn: int
    first: str


@dataclass(frozen=True, slots=True)
class WalNeeds:
    """What WAL must stay.

    Attributes:
        digits: how many digits of a name behind its timeline say where it lies.
        floor: from here on everything stays, on every timeline.
        newest_timeline: of what is kept; later timelines stay whole.
        size: of a segment, in bytes.
        onward: where recoveries begin that can go anywhere from there.
        own: what single backups need to become consistent and to be compared with
            their fingerprints, in order and apart.
        histories: of the timelines that are known.
    """

    digits: int
    floor: str
    size: int
    newest_timeline: int
    onward: tuple[Onward, ...]
    own: tuple[Stretch, ...]
    histories: Histories = field(default_factory=dict)

    def test(self) -> Callable[[WalFileName], bool]:
        """Return what says whether nothing needs a file; it is quick for many."""
        end = 8 + self.digits
        limits: dict[int, str] = {}

        def expired(file: WalFileName) -> bool:
            if file.kind is WalFileKind.HISTORY:
                return False
            limit = limits.get(file.timeline)
            if limit is None:
                limit = limits[file.timeline] = self.limit(file.timeline)
            place = file.name[8:end]
            return place < limit and not self._owned(place)

        return expired

    def limit(self, timeline: int) -> str:
        """Return the place from which on all WAL of a timeline stays."""
        if timeline > self.newest_timeline:
            return ""
        history = _history(timeline, self.histories)
        reached = [
            one.first
            for one in self.onward
            if one.timeline <= timeline
            and (history is None or history.contains(one.timeline, one.lsn))
        ]
        return min([*reached, self.floor])

    def bounds(self, going: Iterable[WalFileName]) -> dict[int, Lsn]:
        """Return by timeline before which position no recovery can begin any more.

        A backup that starts there and ends before a timeline is left needs that one's
        WAL as well; so what goes of a timeline bounds those that lead to it.

        Args:
            going: the files that are to go.
        """
        ends: dict[int, Lsn] = {}
        for file in going:
            end = self._end(file)
            ends[file.timeline] = max(ends.get(file.timeline, end), end)
        found = dict(ends)
        for timeline, end in ends.items():
            for leading, left in self._leading(timeline, end):
                found[leading] = max(found.get(leading, left), left)
        return found

    def _end(self, file: WalFileName) -> Lsn:
        """Return the position behind a file, or behind all that may be meant by it."""
        high, low = int(file.name[8:16], 16), int(file.name[16:24], 16)
        inside = 1 << 32 if self.digits < _WHOLE else (low + 1) * self.size
        return Lsn((high << 32) + min(inside, 1 << 32))

    def _leading(self, timeline: int, end: Lsn) -> Iterator[tuple[int, Lsn]]:
        """Yield the timelines that lead to one, each with where it is left."""
        history = _history(timeline, self.histories)
        if history is not None:
            yield from history.switches
        else:
            yield from ((earlier, end) for earlier in range(1, timeline))

    def _owned(self, place: str) -> bool:
        at = bisect_right(self.own, place, key=lambda one: one.first)
        return at > 0 and place <= self.own[at - 1].last


def wal_needs(
    kept: Sequence[BackupSummary],
    former: Sequence[BackupSummary],
    running: Sequence[tuple[int, int]],
    histories: Histories,
    cutoff: datetime | None,
) -> WalNeeds | None:
    """Return what WAL must stay; None if nothing may go.

    Args:
        kept: base backups, in the log's order.
        former: those that have expired.
        running: timeline and start LSN of each running attempt.
        cutoff: before this moment kept backups need no more WAL than makes them
            consistent; None: every moment behind a kept backup stays in reach.
    """
    if not kept:
        return None
    whole = list(kept)
    if cutoff is not None:
        ever = sorted([*kept, *former], key=lambda one: one.stop_time)
        before_it = leading_backups(ever, histories, cutoff)
        if not before_it:
            return None  # nobody knows where WAL of that moment lies
        inside = [one for one in kept if one.stop_time > cutoff]
        whole = [*inside, *leading_backups(kept, histories, cutoff), *before_it]
    sizes = {one.wal_segment_size for one in (*kept, *whole)}
    names = _Names(min(sizes), _WHOLE if len(sizes) == 1 else _HIGH)
    starts = [kept[-1].start_lsn, *(lsn for _, lsn in running)]
    return WalNeeds(
        digits=names.digits,
        floor=min(map(names.of, starts)),
        size=names.size,
        newest_timeline=max(one.timeline for one in kept),
        onward=tuple(
            Onward(one.timeline, one.start_lsn, names.of(one.start_lsn))
            for one in whole
        ),
        own=tuple(_merged(sorted(map(names.own, kept)))),
        histories=histories,
    )


def leading_backups(
    backups: Sequence[BackupSummary], histories: Histories, cutoff: datetime
) -> list[BackupSummary]:
    """Return those with which recovery to the moments behind `cutoff` begins.

    That is the newest backup that had ended by then; where timelines part, the newest
    on the way to each timeline that goes on behind the moment.

    Args:
        backups: in the order in which they ended, as far as clocks were right.
    """
    early = [one for one in backups if one.stop_time <= cutoff]
    late = {one.timeline for one in backups if one.stop_time > cutoff}
    late |= {one.timeline for one in backups[-1:]} | {max(histories, default=1)}
    found: dict[str, BackupSummary] = {}
    for timeline in sorted(late):
        for one in _newest_towards(timeline, early, histories):
            found[one.label] = one
    return list(found.values())


def before(now: datetime, span: timedelta) -> datetime:
    """Return the moment `span` ago, or the first that can be told."""
    try:
        return now - span
    except OverflowError:
        return type(now).min.replace(tzinfo=UTC)


def _newest_towards(
    timeline: int, early: list[BackupSummary], histories: Histories
) -> Iterable[BackupSummary]:
    """Return the newest backup before a timeline; several if nobody knows which."""
    history = _history(timeline, histories)
    if history is None:
        each = {one.timeline: one for one in early if one.timeline <= timeline}
        return each.values()
    leading = [one for one in early if history.contains(one.timeline, one.stop_lsn)]
    return leading[-1:]


def _history(timeline: int, histories: Histories) -> TimelineHistory | None:
    """Return a timeline's history; None if it is not known."""
    if timeline == 1:
        return TimelineHistory(1)
    return histories.get(timeline)


class _Names(NamedTuple):
    """Places of LSNs as the names of segments have them."""

    size: int
    digits: int

    def of(self, lsn: int) -> str:
        high, low = lsn >> 32, (lsn & 0xFFFFFFFF) // self.size
        return f"{high:08X}{low:08X}"[: self.digits]

    def own(self, backup: BackupSummary) -> Stretch:
        """Return the WAL that a backup needs to be consistent, and to be proven."""
        last = max(backup.start_lsn, backup.stop_lsn - 1)
        if backup.fingerprint is not None:
            last = max(last, backup.fingerprint.lsn)
        return Stretch(self.of(backup.start_lsn), self.of(last))


def _merged(stretches: Iterable[Stretch]) -> Iterator[Stretch]:
    """Join stretches that overlap; they come sorted."""
    current: Stretch | None = None
    for one in stretches:
        if current is not None and one.first <= current.last:
            current = Stretch(current.first, max(current.last, one.last))
            continue
        if current is not None:
            yield current
        current = one
    if current is not None:
        yield current
