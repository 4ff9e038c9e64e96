"""How far archived WAL reaches, along the timelines that lead to one of them."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from drkit.model.lsn import Lsn
from drkit.model.wal import Segment

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from drkit.model.timeline import TimelineHistory


class Reach(NamedTuple):
    """The stretch of WAL that a recovery can replay without a hole.

    Attributes:
        segments: the files it needs, in order.
        end: the LSN behind the last of them.
        missing: the first segment that is not there.
        gap: whether later segments of the same history are there behind it.
    """

    segments: tuple[Segment, ...]
    end: Lsn
    missing: Segment
    gap: bool


def reach(
    start: int, history: TimelineHistory, archived: Collection[Segment], size: int
) -> Reach:
    """Follow a history from `start` for as long as its segments are archived.

    A segment in which a timeline was left exists on both timelines, and the newer one
    repeats what came before the switch; where only the older one is there, the WAL
    reaches up to the switch.

    Args:
        archived: the segments there are, of all timelines.
        size: bytes in a segment.
    """
    number = start // size
    chosen: list[Segment] = []
    while True:
        wanted = Segment(history.timeline_at((number + 1) * size - 1), number)
        if wanted not in archived:
            break
        chosen.append(wanted)
        number += 1
    end, older = _up_to_switch(number, history, archived, size)
    if older is not None:
        chosen.append(older)
    gap = _any_behind(number, history, archived, size)
    return Reach(tuple(chosen), Lsn(max(end, start)), wanted, gap)


def _up_to_switch(
    number: int, history: TimelineHistory, archived: Collection[Segment], size: int
) -> tuple[int, Segment | None]:
    for switch in reversed(history.switches):
        older = Segment(switch.timeline, number)
        if number * size < switch.end < (number + 1) * size and older in archived:
            return switch.end, older
    return number * size, None


def _any_behind(
    number: int, history: TimelineHistory, archived: Collection[Segment], size: int
) -> bool:
    return any(
        segment.number > number
        and history.contains(segment.timeline, segment.number * size)
        for segment in archived
    )


class Gap(NamedTuple):
    """Segments that are missing between two that are there, on one timeline."""

    first: Segment
    last: Segment


def gaps(archived: Iterable[Segment]) -> list[Gap]:
    """Return the holes on each timeline between its first and its last segment."""
    found: list[Gap] = []
    ordered = sorted(archived)
    for before, segment in pairwise(ordered):
        same = before.timeline == segment.timeline
        if same and segment.number > before.number + 1:
            last = Segment(segment.timeline, segment.number - 1)
            found.append(Gap(before.next(), last))
    return found
