"""One WAL segment on its whole way: written, archived, fetched back, found right."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from drkit.errors import Corrupt, WalMissing
from drkit.model.lsn import Lsn
from drkit.model.wal import Segment, WalFileName, segment_at
from drkit.postgres.archiver import archiver_state
from drkit.postgres.facts import read_facts
from drkit.postgres.walfile import check_wal_file
from drkit.postgres.walrecords import EventKind, SegmentScan, scan_segment

if TYPE_CHECKING:
    from datetime import timedelta

    from drkit.postgres.connection import Connection
    from drkit.repository.repository import Repository

_FIRST_PAUSE, _LAST_PAUSE = 0.05, 1.0  # seconds


@dataclass(frozen=True, slots=True)
class RoundTrip:
    """A segment that came back as it was written; `seconds` until it was archived."""

    segment: str
    seconds: float


def wal_round_trip(
    repository: Repository, connection: Connection, timeout: timedelta
) -> RoundTrip:
    """Write a restore point, and find it again in what the repository gives back.

    Raises:
        WalMissing: the segment was not archived in time; says what the server knows.
        WalRefused, Corrupt: another content came back than was written.
        PostgresRefused: the role may not write a restore point or switch WAL.
    """
    facts = read_facts(connection)
    size = facts.wal_segment_size
    name = f"drkit check {os.urandom(4).hex()}"
    end = connection.query("SELECT pg_create_restore_point(%s)::text", (name,))[0][0]
    connection.query("SELECT pg_switch_wal()")
    segment = segment_at(Lsn.parse(end) - 1, facts.timeline, size)
    seconds = _wait(repository, connection, segment.name(size), timeout)
    found = _scan(repository, segment, size, facts.system_identifier, None)
    if not _holds(found, name):
        found = _scan_with_previous(repository, segment, size, facts.system_identifier)
    if not _holds(found, name):
        raise Corrupt(
            f"segment {segment.name(size)} came back without the restore point "
            f"{name!r} that was written into it",
            hint="does another server archive under this policy's name?",
        )
    return RoundTrip(segment.name(size), seconds)


def _wait(
    repository: Repository, connection: Connection, name: str, timeout: timedelta
) -> float:
    clock, file = repository.clock, WalFileName.parse(name)
    begun, pause = clock.monotonic(), _FIRST_PAUSE
    while not repository.wal.has(file):
        waited = clock.monotonic() - begun
        if waited >= timeout.total_seconds():
            raise WalMissing(
                f"WAL segment {name} was not archived within "
                f"{timeout.total_seconds():g} s; {archiver_state(connection)}",
                hint="see the server's log for what `drkit wal push` printed, or run "
                "it by hand as the server's user on a file of pg_wal",
            )
        clock.sleep(pause)
        pause = min(pause * 1.5, _LAST_PAUSE)
    return clock.monotonic() - begun


def _scan(
    repository: Repository,
    segment: Segment,
    size: int,
    system_identifier: int,
    previous: SegmentScan | None,
) -> SegmentScan:
    name = segment.name(size)
    data = repository.wal.get(WalFileName.parse(name))
    check_wal_file(name, data, system_identifier)
    carry = previous.carry if previous is not None else None
    return scan_segment(data, segment.start(size), carry, verify=True)


def _scan_with_previous(
    repository: Repository, segment: Segment, size: int, system_identifier: int
) -> SegmentScan:
    """Scan again, for a record that began in the segment before."""
    before = Segment(segment.timeline, segment.number - 1)
    if not repository.wal.has(WalFileName.parse(before.name(size))):
        return SegmentScan([], None, segment.start(size), complete=False)
    previous = _scan(repository, before, size, system_identifier, None)
    return _scan(repository, segment, size, system_identifier, previous)


def _holds(scan: SegmentScan, name: str) -> bool:
    return any(
        event.kind is EventKind.RESTORE_POINT and event.name == name
        for event in scan.events
    )
