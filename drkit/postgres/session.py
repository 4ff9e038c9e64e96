"""The session of a base backup: from `pg_backup_start` to `pg_backup_stop`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from drkit.errors import PostgresRefused
from drkit.model.lsn import Lsn
from drkit.postgres.facts import UTC_NOW, parse_time, read_timeline

if TYPE_CHECKING:
    from datetime import datetime

    from drkit.protocols import ServerSession

# The two files as the bytes that the server itself would have written.
_STOP = """
    SELECT lsn::text, convert_to(labelfile, getdatabaseencoding()),
        convert_to(spcmapfile, getdatabaseencoding())
"""

# A backup starts from the last checkpoint, on a standby the last restartpoint. The
# timeline of that one may be older than what the standby replays by now. All is asked
# for at once, since the answer is fetched later.
_START = f"""
    SELECT concat_ws(' ', lsn, (SELECT timeline_id FROM pg_control_checkpoint()),
        {UTC_NOW})
"""  # noqa: S608  made of constants
_LABEL_TIMELINE = re.compile(rb"^START TIMELINE: (\d+)$", re.MULTILINE)


class BackupStop(NamedTuple):
    """What ends a base backup: its last LSN, and two files to store with it."""

    lsn: Lsn
    backup_label: bytes
    tablespace_map: bytes


class BackupSession:
    """A base backup in the server's eyes: it lives and dies with one session.

    The session must stay open, and be used for nothing long, until `stop`.

    Attributes:
        timeline: the one that the backup started on; 0 before.
        time: of the start by the server's clock, in UTC; None before.
    """

    def __init__(self, session: ServerSession) -> None:
        self._session = session
        self.timeline = 0
        self.time: datetime | None = None

    def begin(self, label: str) -> None:
        """Ask for the backup, with a checkpoint at once; `start` waits for it.

        Args:
            label: what the backup label calls it.

        Raises:
            PostgresUnreachable: the session was lost.
        """
        function = "pg_backup_start($1, true)"
        if self._old_functions:
            function = "pg_start_backup($1, true, false)"
        self._session.send(f"{_START} FROM {function} AS lsn", (label,))

    def start(self) -> Lsn:
        """Return the start LSN of the backup that was begun.

        Raises:
            PostgresRefused: the server or the role's rights forbid it, or a standby
                has not come to a checkpoint of its new timeline yet.
            PostgresUnreachable: the session was lost.
        """
        lsn, timeline, time = self._session.received().split()
        self.timeline = int(timeline)
        self.time = parse_time(time)
        self._refuse_other_timeline()
        return Lsn.parse(lsn)

    def stop(self) -> BackupStop:
        """End the backup; does not wait for WAL to be archived.

        Raises:
            PostgresRefused: the standby was promoted, or changed its timeline,
                meanwhile.
            PostgresUnreachable: the session was lost, and the backup with it.
        """
        function = "pg_stop_backup" if self._old_functions else "pg_backup_stop"
        # the older function wants `exclusive` first
        arguments = "false, false" if self._old_functions else "false"
        row = self._session.query(f"{_STOP} FROM {function}({arguments})")[0]
        label = bytes(row[1])
        self.timeline = _started_on(label)
        self._refuse_other_timeline()
        return BackupStop(Lsn.parse(row[0]), label, bytes(row[2] or b""))

    def alive(self) -> bool:
        """Say whether the session, and with it the backup, is still there; cheap."""
        return self._session.alive()

    @property
    def _old_functions(self) -> bool:
        return self._session.version() < 150000

    def _refuse_other_timeline(self) -> None:
        """Refuse a backup whose WAL is not all of the timeline that it started on."""
        timeline = read_timeline(self._session)
        if timeline != self.timeline:
            raise PostgresRefused(
                f"the server went from timeline {self.timeline} to {timeline} since "
                "the checkpoint that the backup starts from, so it would be of two "
                "histories",
                hint="take a new backup; on a standby, run CHECKPOINT on the primary "
                "first",
            )


def _started_on(label: bytes) -> int:
    """Return the timeline of the checkpoint that a backup started from."""
    match = _LABEL_TIMELINE.search(label)
    if match is None:
        raise PostgresRefused("the server's backup_label names no timeline")
    return int(match[1])
