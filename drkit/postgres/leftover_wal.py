"""WAL that a data directory holds, and perhaps nobody else."""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

from drkit.model.wal import Segment, parse_segment
from drkit.postgres.control import ClusterState
from drkit.postgres.files import open_regular
from drkit.postgres.walfile import LONG_HEADER

if TYPE_CHECKING:
    from drkit.postgres.control import ControlFile


def unarchived_segments(directory: str, control: ControlFile) -> list[Segment]:
    """Return the WAL segments that a data directory's archiver has not yet passed on.

    Not among them are segments that were made ready for later use, whose content is of
    an older name, and one that holds nothing but the record of a clean shutdown.
    """
    size = control.wal_segment_size
    place = os.path.join(directory, "pg_wal")
    done = set(_names(os.path.join(place, "archive_status")))
    found = []
    for name in _names(place):
        try:
            segment = parse_segment(name, size)
        except ValueError:
            continue
        path = os.path.join(place, name)
        if f"{name}.done" not in done and _is_in_use(path, segment, control):
            found.append(segment)
    return [one for one in sorted(found) if not _only_shutdown(one, control)]


def _is_in_use(path: str, segment: Segment, control: ControlFile) -> bool:
    try:
        with open(open_regular(path), "rb") as file:
            header = LONG_HEADER.unpack(file.read(LONG_HEADER.size))
    except (OSError, struct.error):
        return False
    timeline, address, system = header[2], header[3], header[5]
    start = segment.start(control.wal_segment_size)
    # The first segment of a new timeline begins as a copy of the old one's.
    own = timeline <= segment.timeline and address == start
    return bool(own and system == control.system_identifier)


def _only_shutdown(segment: Segment, control: ControlFile) -> bool:
    first = segment.start(control.wal_segment_size) + LONG_HEADER.size
    return control.state is ClusterState.SHUT_DOWN and control.checkpoint == first


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []
