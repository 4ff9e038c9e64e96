"""Waiting until the WAL that a backup needs is in the repository."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from drkit.errors import WalMissing
from drkit.model.wal import WalFileName, segments_between
from drkit.operations.backup_wal import BackupWal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from datetime import timedelta

    from drkit.model.backup import WalRange
    from drkit.model.copied import BackupEnd
    from drkit.model.head import ServerDescription, WalPosition
    from drkit.model.wal import Segment
    from drkit.protocols import Progress
    from drkit.repository.repository import Repository

_FIRST_PAUSE, _LAST_PAUSE = 0.005, 2.0
_PAUSE_SHARE = 0.1  # of what was waited so far: archiving takes 0.1 s or a minute
_TELL_AFTER = 10.0  # seconds
_TELL_OF_PRIMARY_AFTER = 2.0

_SEE_LOG = "see the server's log for the output of `drkit wal push`, then `drkit check`"
_UNFINISHED = (
    "the primary has not ended or not archived it yet, which no standby can do; run "
    "`SELECT pg_switch_wal();` on the primary, or wait for its archive_timeout"
)
_SWITCH = (
    "set archive_timeout on the primary, or let whatever starts the backup run "
    "`SELECT pg_switch_wal();` there"
)


class _Wait(NamedTuple):
    """One segment that is waited for.

    Attributes:
        why: asked what it may be that holds it up, as a clause.
        tell_after: seconds until a person is told.
        hint: what to do when it did not come.
    """

    file: WalFileName
    why: Callable[[], str]
    tell_after: float
    hint: str


def wait_for_wal(
    repository: Repository,
    server: ServerDescription,
    start: WalPosition,
    end: BackupEnd,
    timeout: timedelta,
    archiver: Callable[[], str],
    progress: Progress,
    pg_wal: str | None = None,
) -> WalRange | None:
    """Return when every segment from `start` to the backup's end is archived.

    Args:
        timeout: how long to wait for each; a long backlog may take its time as long as
            it makes headway.
        archiver: asks the server why archiving may be stuck, for the message.
        progress: is told so as well, long before the time is over.
        pg_wal: where the server still has some of it, to compare.

    Returns:
        What all of it is; None if not all is signed.

    Raises:
        WalMissing: one did not come within `timeout`.
        WalRefused: what came is not what the server wrote.
        Corrupt: what came must be signed, and is not.
    """
    looked = BackupWal(repository, None if end.from_standby else pg_wal)
    for wait in _waits(server.wal_segment_size, start, end, archiver):
        if not _wait(repository, wait, timeout, progress):
            raise _missing(wait, timeout)
        looked.add(wait.file)
    return looked.found()


def came(
    repository: Repository,
    segments: Iterable[Segment],
    size: int,
    timeout: timedelta,
    archiver: Callable[[], str],
    progress: Progress,
) -> bool:
    """Wait until segments are archived; say whether they were.

    Args:
        size: of a segment.
        timeout, archiver, progress: as for `wait_for_wal`.
    """
    waits = (
        _Wait(WalFileName.parse(one.name(size)), archiver, _TELL_AFTER, _SEE_LOG)
        for one in segments
    )
    return all(_wait(repository, wait, timeout, progress) for wait in waits)


def _wait(
    repository: Repository, wait: _Wait, timeout: timedelta, progress: Progress
) -> bool:
    """Wait for a segment; say whether it has come."""
    begun = repository.clock.monotonic()
    told = False
    while not repository.wal.has(wait.file):
        waited = repository.clock.monotonic() - begun
        if waited >= timeout.total_seconds():
            return False
        if waited >= wait.tell_after and not told:
            progress.warning(f"still waiting for {wait.file.name}: {wait.why()}")
            told = True
        pause = min(max(waited * _PAUSE_SHARE, _FIRST_PAUSE), _LAST_PAUSE)
        repository.clock.sleep(pause)
    return True


def _waits(
    size: int, start: WalPosition, end: BackupEnd, archiver: Callable[[], str]
) -> Iterator[_Wait]:
    stop = end.position
    segments = list(segments_between(start.lsn, stop.lsn, stop.timeline, size))
    for segment in segments:
        file = WalFileName.parse(segment.name(size))
        if end.from_standby and segment == segments[-1]:
            yield _Wait(file, lambda: _UNFINISHED, _TELL_OF_PRIMARY_AFTER, _SWITCH)
        else:
            yield _Wait(file, archiver, _TELL_AFTER, _SEE_LOG)


def _missing(wait: _Wait, timeout: timedelta) -> WalMissing:
    return WalMissing(
        f"WAL segment {wait.file.name} was not archived within {timeout}, so the "
        f"backup can't be restored and was given up; {wait.why()}",
        hint=wait.hint,
    )
