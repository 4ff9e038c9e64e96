"""Is this file what its name says? Asked before WAL is archived or given back.

This module runs within `archive_command`, so it imports next to nothing.

Source of the page header: `src/include/access/xlog_internal.h`; of the backup history
file: `build_backup_content` in `src/backend/access/transam/xlogbackup.c` (in versions
13 and 14 `do_pg_stop_backup` in `xlog.c`).
"""

from __future__ import annotations

import re
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

from drkit.errors import WalRefused
from drkit.model.timeline import TimelineHistory
from drkit.model.wal import (
    WalFileKind,
    WalFileName,
    parse_segment,
    valid_segment_size,
)

if TYPE_CHECKING:
    Buffer = bytes | bytearray | memoryview

# XLOG_PAGE_MAGIC of each major version.
MAJOR_VERSIONS = {
    0xD106: 13,
    0xD10D: 14,
    0xD110: 15,
    0xD113: 16,
    0xD116: 17,
    0xD118: 18,
}

LONG_HEADER = Struct("<HHIQI4xQII")
"""Magic, flags, timeline, page address, remaining length; system identifier, segment
size, page size: the first page of each segment."""

_LONG_HEADER_FLAG = 0x0002
_ALL_FLAGS = 0x000F
_MAX_TEXT = 1 << 20
_BACKUP_START = re.compile(
    r"START WAL LOCATION: [0-9A-F]+/([0-9A-F]+) \(file ([0-9A-F]{24})\)\n"
)
_BACKUP_LINES = ("STOP WAL LOCATION: ", "CHECKPOINT LOCATION: ", "START TIME: ")
_ASK_SERVER = "look at the file in pg_wal; this copy must not be archived"


class WalFileFacts(NamedTuple):
    """What a WAL file says of itself; 0 where its kind says nothing of the sort."""

    name: WalFileName
    major_version: int = 0
    system_identifier: int = 0
    segment_size: int = 0


def check_wal_file(
    name: str, data: Buffer, system_identifier: int | None = None
) -> WalFileFacts:
    """Check a WAL file's content against its name, and against its cluster.

    Args:
        name: the bare file name, of a segment (`.partial` or not), a timeline history
            or a backup history.
        data: the whole content.
        system_identifier: the cluster it must come from, where that is known; only
            segments tell.

    Raises:
        WalRefused: the name or the content is wrong; says in what.
    """
    try:
        parsed = WalFileName.parse(name)
    except ValueError as error:
        raise WalRefused(str(error), hint="pass a file of pg_wal") from None
    if parsed.kind is WalFileKind.HISTORY:
        return _check_history(parsed, _text(name, data))
    if parsed.kind is WalFileKind.BACKUP:
        return _check_backup(parsed, _text(name, data))
    return _check_segment(parsed, data, system_identifier)


def _check_segment(
    name: WalFileName, data: Buffer, system_identifier: int | None
) -> WalFileFacts:
    shown = name.name
    if len(data) < LONG_HEADER.size:
        raise WalRefused(f"{shown} has only {len(data)} bytes", hint=_ASK_SERVER)
    magic, flags, timeline, address, _, system, segment_size, page_size = (
        LONG_HEADER.unpack_from(data)
    )
    major = MAJOR_VERSIONS.get(magic)
    if major is None:
        raise _unknown_magic(shown, data, magic)
    if not flags & _LONG_HEADER_FLAG or flags & ~_ALL_FLAGS:
        raise WalRefused(f"{shown} does not begin as a segment does", hint=_ASK_SERVER)
    if not valid_segment_size(segment_size) or not _valid_page_size(page_size):
        raise WalRefused(
            f"{shown} claims segments of {segment_size} and pages of {page_size} bytes",
            hint=_ASK_SERVER,
        )
    if len(data) != segment_size:
        raise WalRefused(
            f"{shown} has {len(data)} bytes, not the {segment_size} of its segments",
            hint=_ASK_SERVER,
        )
    _check_place(shown, timeline, address, segment_size)
    _check_system(shown, system, system_identifier)
    return WalFileFacts(name, major, system, segment_size)


def _unknown_magic(name: str, data: Buffer, magic: int) -> WalRefused:
    if not any(data):
        return WalRefused(f"{name} holds nothing but zeros", hint=_ASK_SERVER)
    return WalRefused(
        f"{name} begins with {magic:#06x}, which is WAL of no version drkit knows",
        hint="drkit archives PostgreSQL 13 to 18; is this a file of pg_wal?",
    )


def _check_place(name: str, timeline: int, address: int, segment_size: int) -> None:
    """Hold the first page's own place against the name.

    The first segment of a timeline begins with a copy of its parent's WAL, so a page
    may be of an older timeline than the name, never of a newer one.
    """
    try:
        segment = parse_segment(name[:24], segment_size)
    except ValueError as error:
        raise WalRefused(str(error), hint=_ASK_SERVER) from None
    if address != segment.start(segment_size):
        raise WalRefused(
            f"{name} holds WAL from {address >> 32:X}/{address & 0xFFFFFFFF:X}, not "
            f"from {segment.start(segment_size)}: a recycled file, or a renamed one",
            hint=_ASK_SERVER,
        )
    if not 0 < timeline <= segment.timeline:
        raise WalRefused(
            f"{name} holds WAL of timeline {timeline}, later than its name says",
            hint=_ASK_SERVER,
        )


def _check_system(name: str, found: int, expected: int | None) -> None:
    if expected is not None and found != expected:
        raise WalRefused(
            f"{name} comes from the cluster with system identifier {found}, and this "
            f"archive belongs to {expected}",
            hint="each cluster needs a policy of its own; a cluster made anew by "
            "initdb is another cluster",
        )


def _valid_page_size(size: int) -> bool:
    return 1 << 10 <= size <= 1 << 16 and size & (size - 1) == 0


def _text(name: str, data: Buffer) -> str:
    """Decode a text file; labels and reasons in it may be of any encoding."""
    if len(data) > _MAX_TEXT:
        raise WalRefused(f"{name} has {len(data)} bytes: too many for such a file")
    text = bytes(data).decode("utf-8", "surrogateescape")
    if not text.strip() or "\0" in text:
        raise WalRefused(f"{name} is empty or no text", hint=_ASK_SERVER)
    return text


def _check_history(name: WalFileName, text: str) -> WalFileFacts:
    try:
        history = TimelineHistory.parse(name.timeline, text)
    except ValueError as error:
        raise WalRefused(f"{name.name}: {error}", hint=_ASK_SERVER) from None
    if not history.switches:
        raise WalRefused(f"{name.name} names no parent timeline", hint=_ASK_SERVER)
    return WalFileFacts(name)


def _check_backup(name: WalFileName, text: str) -> WalFileFacts:
    """Check a backup history file: its name is its start segment and offset."""
    start = _BACKUP_START.match(text)
    lines = text.splitlines()
    if start is None or not all(
        any(line.startswith(prefix) for line in lines) for prefix in _BACKUP_LINES
    ):
        raise WalRefused(f"{name.name} is no backup history file", hint=_ASK_SERVER)
    segment, offset = name.name[:24], int(name.name[25:33], 16)
    # The segment size is not known here; its smallest tells as much of the offset.
    if start[2] != segment or (int(start[1], 16) ^ offset) & 0xFFFFF:
        raise WalRefused(
            f"{name.name} tells of a backup that starts in {start[2]}",
            hint=_ASK_SERVER,
        )
    return WalFileFacts(name)
