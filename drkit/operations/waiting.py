"""Waiting until the WAL that a backup needs is in the repository."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drkit.errors import WalMissing
from drkit.model.wal import WalFileName, segments_between

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

    from drkit.model.manifest import ServerDescription, WalPosition
    from drkit.protocols import Progress
    from drkit.repository.repository import Repository

_FIRST_PAUSE, _LAST_PAUSE = 0.05, 2.0
_TELL_AFTER = 10.0  # seconds


def wait_for_wal(
    repository: Repository,
    server: ServerDescription,
    start: WalPosition,
    stop: WalPosition,
    timeout: timedelta,
    archiver: Callable[[], str],
    progress: Progress,
) -> None:
    """Return when every segment from `start` to `stop` is archived.

    Args:
        timeout: how long to wait for each; a long backlog may take its time as long as
            it makes headway.
        archiver: asks the server why archiving may be stuck, for the message.
        progress: is told so as well, long before the time is over.

    Raises:
        WalMissing: one did not come within `timeout`.
    """
    size = server.wal_segment_size
    for segment in segments_between(start.lsn, stop.lsn, stop.timeline, size):
        file = WalFileName.parse(segment.name(size))
        begun = repository.clock.monotonic()
        pause, told = _FIRST_PAUSE, False
        while not repository.wal.has(file):
            waited = repository.clock.monotonic() - begun
            if waited >= timeout.total_seconds():
                raise _missing(file.name, timeout, archiver())
            if waited >= _TELL_AFTER and not told:
                progress.warning(f"still waiting for {file.name}: {archiver()}")
                told = True
            repository.clock.sleep(pause)
            pause = min(pause * 1.5, _LAST_PAUSE)


def _missing(name: str, timeout: timedelta, why: str) -> WalMissing:
    return WalMissing(
        f"WAL segment {name} was not archived within {timeout}, so the backup "
        f"can't be restored and was given up; {why}",
        hint="see the server's log for the output of `drkit wal push`, then "
        "`drkit check`",
    )
