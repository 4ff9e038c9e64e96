"""Names of WAL files and the arithmetic between them and LSNs.

Source of the grammar: PostgreSQL's `src/include/access/xlog_internal.h`. Segment names
are computed here and not asked of the server: `pg_walfile_name` changed at segment
boundaries in version 17 and fails on standbys.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from drkit.model.lsn import Lsn

if TYPE_CHECKING:
    from collections.abc import Iterator

MIN_SEGMENT_SIZE = 1 << 20
MAX_SEGMENT_SIZE = 1 << 30
DEFAULT_SEGMENT_SIZE = 16 << 20

_SEGMENT = re.compile(r"([0-9A-F]{8})([0-9A-F]{8})([0-9A-F]{8})\Z")
_NAME = re.compile(
    r"(?P<timeline>[0-9A-F]{8})"
    r"(?:(?P<high>[0-9A-F]{8})(?P<low>[0-9A-F]{8})"
    r"(?P<suffix>\.partial|\.[0-9A-F]{8}\.backup)?|(?P<history>\.history))\Z"
)


class Segment(NamedTuple):
    """One WAL segment: its timeline and its number counted from LSN 0."""

    timeline: int
    number: int

    def name(self, size: int) -> str:
        """Return the file name under a segment size in bytes."""
        per_id = (1 << 32) // size
        high, low = divmod(self.number, per_id)
        return f"{self.timeline:08X}{high:08X}{low:08X}"

    def start(self, size: int) -> Lsn:
        """Return the LSN of the segment's first byte."""
        return Lsn(self.number * size)

    def next(self) -> Segment:
        """Return the segment that follows on the same timeline."""
        return Segment(self.timeline, self.number + 1)


class WalFileKind(StrEnum):
    """What a name in an archive stands for."""

    SEGMENT = "segment"
    PARTIAL = "partial"
    BACKUP = "backup"
    HISTORY = "history"


class WalFileName(NamedTuple):
    """A name that PostgreSQL may ask to archive or to fetch."""

    name: str
    kind: WalFileKind
    timeline: int

    @classmethod
    def parse(cls, name: str) -> WalFileName:
        """Read a bare file name.

        Raises:
            ValueError: PostgreSQL never asks to archive or fetch such a name.
        """
        match = _NAME.match(name)
        if match is None:
            raise ValueError(f"{name!r} is no name of a WAL file")
        return cls(name, _kind(match), int(match["timeline"], 16))


def _kind(match: re.Match[str]) -> WalFileKind:
    if match["history"]:
        return WalFileKind.HISTORY
    if match["suffix"] is None:
        return WalFileKind.SEGMENT
    if match["suffix"] == ".partial":
        return WalFileKind.PARTIAL
    return WalFileKind.BACKUP


def parse_segment(name: str, size: int) -> Segment:
    """Read a segment's 24-digit name under a segment size in bytes.

    Raises:
        ValueError: not 24 digits, or a low part that no segment of that size has.
    """
    match = _SEGMENT.match(name)
    if match is None:
        raise ValueError(f"{name!r} is no name of a WAL segment")
    timeline, high, low = (int(part, 16) for part in match.groups())
    per_id = (1 << 32) // size
    if low >= per_id or timeline == 0:
        raise ValueError(f"{name!r} is no WAL segment of {size} bytes")
    return Segment(timeline, high * per_id + low)


def timeline_of(name: str) -> int:
    """Return the timeline of a segment's 24-digit name, whatever the segments' size.

    Raises:
        ValueError: not such a name.
    """
    match = _SEGMENT.match(name)
    if match is None or not int(match[1], 16):
        raise ValueError(f"{name!r} is no name of a WAL segment")
    return int(match[1], 16)


def valid_segment_size(size: int) -> bool:
    """Say whether PostgreSQL can run with WAL segments of `size` bytes."""
    return MIN_SEGMENT_SIZE <= size <= MAX_SEGMENT_SIZE and size & (size - 1) == 0


def segment_at(lsn: int, timeline: int, size: int) -> Segment:
    """Return the segment that holds the byte at `lsn`."""
    return Segment(timeline, lsn // size)


def segments_between(
    start: int, stop: int, timeline: int, size: int
) -> Iterator[Segment]:
    """Yield the segments that hold WAL from `start` up to, not including, `stop`.

    A stop on a segment boundary does not need the segment that begins there.
    """
    last = (stop - 1) // size if stop > start else start // size
    for number in range(start // size, last + 1):
        yield Segment(timeline, number)
