"""Which relations were truncated between two backups, asked of the server.

A server's incremental backup does not tell all: where a relation shrank and grew again,
the pages that were added and never written to since are in no WAL, so the incremental
has nothing of them, and its truncation block length is the file's new length. Laid over
the parent, the file would show what it held before it shrank. The shortest length that
the relation had meanwhile is in the WAL summaries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from drkit.model.changes import NO_BLOCKS, Relation, Summary, unite
from drkit.model.lsn import Lsn

if TYPE_CHECKING:
    from drkit.model.changes import ChangedBlocks
    from drkit.protocols import ServerSession

_OVERLAPPING = """
    SELECT start_lsn::text, end_lsn::text FROM pg_available_wal_summaries()
    WHERE tli = %s AND end_lsn > %s::pg_lsn AND start_lsn < %s::pg_lsn
    ORDER BY start_lsn
"""
# What was made or emptied has a limit of 0, and comes whole.
_LIMITS = """
    SELECT reltablespace::bigint, reldatabase::bigint, relfilenode::bigint,
        min(relblocknumber)
    FROM unnest(%s::pg_lsn[], %s::pg_lsn[]) AS s (start_lsn, end_lsn),
        pg_wal_summary_contents(%s, s.start_lsn, s.end_lsn)
    WHERE is_limit_block AND relforknumber = 0
    GROUP BY 1, 2, 3 HAVING min(relblocknumber) > 0
"""


def truncations(
    session: ServerSession,
    timeline: int,
    since: Lsn,
    until: Lsn,
    segment_blocks: int,
) -> ChangedBlocks | str:
    """Return the limits of what was truncated in [`since`, `until`), without blocks.

    Args:
        timeline: of all that WAL.
        since: where the parent starts.
        until: where this backup starts.
        segment_blocks: blocks in one file of a large relation.

    Returns:
        The limits; or where a summary is missing, for a person to read.

    Raises:
        PostgresUnreachable: the connection was lost.
        PostgresRefused: the role may not ask, or a summary has just been removed.
    """
    found = session.query(_OVERLAPPING, (timeline, str(since), str(until)))
    reached = since
    for start, end in found:
        if Lsn.parse(start) > reached:
            break
        reached = max(reached, Lsn.parse(end))
    if reached < until:
        return f"WAL from {reached} to {until} is not summarized"
    starts, ends = [start for start, _ in found], [end for _, end in found]
    rows = session.query(_LIMITS, (starts, ends, timeline))
    relations = [Relation(*row[:3]) for row in rows]
    limits = np.array([row[3] for row in rows], dtype=np.uint32)
    return unite([Summary(relations, limits, NO_BLOCKS)], segment_blocks)
