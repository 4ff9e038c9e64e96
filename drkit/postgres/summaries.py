"""What WAL summaries tell of the pages that changed since another backup.

Where they can't tell, the answer is the reason, for a person to read: a full backup is
taken then. As in PostgreSQL's `src/backend/backup/basebackup_incremental.c`, every byte
of WAL between the two starts must be summarized, on each timeline that it is of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from drkit.errors import Corrupt
from drkit.model.changes import unite
from drkit.model.lsn import Lsn
from drkit.postgres.summaryfile import list_summaries, read_summary

if TYPE_CHECKING:
    from datetime import timedelta

    from drkit.model.changes import ChangedBlocks
    from drkit.model.timeline import TimelineHistory
    from drkit.postgres.summaryfile import SummaryFile
    from drkit.protocols import Clock, ServerSession

SINCE_VERSION = 170000

_STATE = """
    SELECT current_setting('summarize_wal') = 'on', summarized_lsn::text,
        pending_lsn::text
    FROM pg_get_wal_summarizer_state()
"""
_FIRST_PAUSE, _LAST_PAUSE = 0.02, 1.0


class _Stretch(NamedTuple):
    timeline: int
    start: Lsn
    end: Lsn

    def __str__(self) -> str:
        return f"{self.start} to {self.end} on timeline {self.timeline}"


def changed_blocks(
    session: ServerSession,
    data_directory: str,
    history: TimelineHistory,
    since: Lsn,
    until: Lsn,
    segment_blocks: int,
    timeout: timedelta,
    clock: Clock,
) -> ChangedBlocks | str:
    """Return what changed in [`since`, `until`), or why that is not known.

    Args:
        data_directory: of the server that is asked; its summary files are read.
        history: of the timeline that `until` is on; `since` lies on it.
        since: where the other backup starts.
        until: where this backup starts.
        segment_blocks: blocks in one file of a large relation.
        timeout: how long the server may make no headway with summarizing.

    Raises:
        PostgresUnreachable: the session was lost.
        PostgresRefused: the role may not ask.
    """
    reason = _wait_until_summarized(session, until, timeout, clock)
    if reason is not None:
        return reason
    try:
        chosen = _choose(list_summaries(data_directory), history, since, until)
        if isinstance(chosen, str):
            return chosen
        return unite((read_summary(one.path) for one in chosen), segment_blocks)
    except OSError as error:
        # the server removes them after wal_summary_keep_time, perhaps just now
        return f"WAL summary {error.filename} can't be read: {error.strerror}"
    except Corrupt as error:
        return error.message


def _wait_until_summarized(
    session: ServerSession, until: Lsn, timeout: timedelta, clock: Clock
) -> str | None:
    """Wait; return what is in the way, or None when summaries reach `until`."""
    version = session.version()
    if version < SINCE_VERSION:
        return f"PostgreSQL {version // 10000} makes no WAL summaries; 17 and later do"
    pause, furthest, moved = _FIRST_PAUSE, -1, clock.monotonic()
    while True:
        on, *positions = session.query(_STATE)[0]
        summarized, pending = map(Lsn.parse, positions)
        if not on:
            return "summarize_wal is off, so the server does not note what changes"
        if summarized >= until:
            return None
        if pending > furthest:
            furthest, moved = pending, clock.monotonic()
        elif clock.monotonic() - moved >= timeout.total_seconds():
            return (
                f"the server has summarized WAL up to {summarized} only, not to "
                f"{until}, and made no headway for {timeout}"
            )
        clock.sleep(pause)
        pause = min(pause * 1.5, _LAST_PAUSE)


def _choose(
    files: list[SummaryFile], history: TimelineHistory, since: Lsn, until: Lsn
) -> list[SummaryFile] | str:
    """Return the summaries of [`since`, `until`), or where one is missing."""
    chosen: list[SummaryFile] = []
    for stretch in _stretches(history, since, until):
        mine = [
            one
            for one in files
            if one.timeline == stretch.timeline
            and one.start < stretch.end
            and one.end > stretch.start
        ]
        hole = _first_hole(mine, stretch)
        if hole is not None:
            return (
                f"WAL from {stretch} is not summarized without a gap: nothing tells "
                f"what changed at {hole}"
            )
        chosen += mine
    return chosen


def _stretches(history: TimelineHistory, since: Lsn, until: Lsn) -> list[_Stretch]:
    """Return [`since`, `until`), cut where one timeline left the other."""
    found = []
    start = since
    for timeline, end in history.switches:
        if start < min(end, until):
            found.append(_Stretch(timeline, start, min(end, until)))
        start = max(start, end)
    if start < until:
        found.append(_Stretch(history.timeline, start, until))
    return found


def _first_hole(files: list[SummaryFile], stretch: _Stretch) -> Lsn | None:
    """Return the first LSN of a stretch that no file covers; files ascend by start."""
    reached = stretch.start
    for one in files:
        if one.start > reached:
            break
        reached = max(reached, one.end)
    return None if reached >= stretch.end else reached
