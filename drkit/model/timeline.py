"""Timelines: the branches of WAL that recoveries and promotions open.

Source of the file format: PostgreSQL's `src/backend/access/transam/timeline.c`.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from drkit.model.lsn import Lsn

_LINE = re.compile(r"\s*([0-9]+)\s+([0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8})(?:\s|\Z)")


class Switch(NamedTuple):
    """An ancestor timeline and the LSN at which its successor left it."""

    timeline: int
    end: Lsn


class TimelineHistory(NamedTuple):
    """A timeline with its ancestors, oldest first."""

    timeline: int
    switches: tuple[Switch, ...] = ()

    @classmethod
    def parse(cls, timeline: int, text: str) -> TimelineHistory:
        """Read a `.history` file.

        Raises:
            ValueError: a line is malformed, or the ancestors are not in order.
        """
        switches: list[Switch] = []
        # A reason may hold other line ends: the server reads lines up to "\n".
        for line in text.split("\n"):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            match = _LINE.match(line)
            if match is None:
                raise ValueError(f"malformed line in a timeline history: {line!r}")
            switch = Switch(int(match[1]), Lsn.parse(match[2]))
            if switches and switch.timeline <= switches[-1].timeline:
                raise ValueError("timelines in a history must ascend")
            switches.append(switch)
        if switches and switches[-1].timeline >= timeline:
            raise ValueError("a timeline's history names itself or a later one")
        return cls(timeline, tuple(switches))

    def end_of(self, timeline: int) -> Lsn | None:
        """Return where `timeline` was left; None if it is this history's own.

        Raises:
            KeyError: `timeline` is not part of this history.
        """
        if timeline == self.timeline:
            return None
        for switch in self.switches:
            if switch.timeline == timeline:
                return switch.end
        raise KeyError(timeline)

    def contains(self, timeline: int, lsn: int) -> bool:
        """Say whether the position (`timeline`, `lsn`) lies on this history."""
        try:
            end = self.end_of(timeline)
        except KeyError:
            return False
        return end is None or lsn <= end

    def timeline_at(self, lsn: int) -> int:
        """Return the timeline on which this history wrote the byte at `lsn`."""
        for switch in self.switches:
            if lsn < switch.end:
                return switch.timeline
        return self.timeline
