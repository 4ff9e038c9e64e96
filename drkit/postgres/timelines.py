"""The history of the timeline that a running server is on."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from drkit.errors import Corrupt, PostgresRefused, PostgresUnreachable, SourceUnreadable
from drkit.model.timeline import TimelineHistory
from drkit.postgres.files import read_regular

if TYPE_CHECKING:
    from psycopg.pq.abc import PGconn

    from drkit.errors import DrkitError

_FIRST = 1  # the timeline that initdb makes, without a history
_CONTENT = 1  # the column; 0 is the file's name
_HINT = "take a full backup, which needs no history"


def read_history(data_directory: str, timeline: int) -> TimelineHistory:
    """Read a timeline's history from the server's `pg_wal`.

    Raises:
        SourceUnreadable: it is not there, or can't be read.
        Corrupt: it is no history.
    """
    if timeline == _FIRST:
        return TimelineHistory(timeline)
    path = os.path.join(data_directory, "pg_wal", f"{timeline:08X}.history")
    try:
        content = read_regular(path)
    except OSError as error:
        raise SourceUnreadable(
            f"can't read the history of timeline {timeline}, {path}: {error.strerror}",
            hint=_HINT,
        ) from error
    return _parse(timeline, content, path)


def ask_history(replication: PGconn, timeline: int) -> TimelineHistory:
    """Ask for a timeline's history on an idle replication connection.

    Raises:
        PostgresRefused: the server does not have it.
        PostgresUnreachable: the connection was lost.
        Corrupt: it is no history.
    """
    from psycopg import pq  # noqa: PLC0415  `read_history` goes without it

    if timeline == _FIRST:
        return TimelineHistory(timeline)
    result = replication.exec_(f"TIMELINE_HISTORY {timeline}".encode())
    if result.status != pq.ExecStatus.TUPLES_OK:
        raise _refused(
            replication, timeline, usable=replication.status == pq.ConnStatus.OK
        )
    content = result.get_value(0, _CONTENT) or b""
    return _parse(timeline, content, f"{timeline:08X}.history of the server")


def _refused(replication: PGconn, timeline: int, *, usable: bool) -> DrkitError:
    why = replication.get_error_message().strip()
    what = f"can't get the history of timeline {timeline} from the server: {why}"
    if not usable:
        return PostgresUnreachable(what, hint="see the server's log for the reason")
    return PostgresRefused(what, hint=_HINT)


def _parse(timeline: int, content: bytes, where: str) -> TimelineHistory:
    try:
        # a reason for the switch is in the encoding of some database
        text = content.decode(errors="surrogateescape")
        return TimelineHistory.parse(timeline, text)
    except ValueError as error:
        raise Corrupt(f"{where} is damaged: {error}", hint=_HINT) from error
