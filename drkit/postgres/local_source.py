"""A base backup read from the data directory, on the database's own host.

What reading takes is in `drkit.postgres.local_copy`, which is imported while the server
makes the checkpoint that the backup starts from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from drkit.errors import PostgresUnreachable
from drkit.model.copied import BackupEnd, Copied, Started
from drkit.model.head import WalPosition
from drkit.postgres.facts import read_time
from drkit.postgres.session import BackupSession

if TYPE_CHECKING:
    from collections.abc import Sequence

    from drkit.postgres.detection import Detection
    from drkit.postgres.local_cluster import LocalCluster
    from drkit.protocols import (
        Clock,
        ContentWriter,
        ParentContent,
        Progress,
        ServerSession,
    )


class LocalSource:
    """Reads a cluster's files in parallel, between pg_backup_start and pg_backup_stop.

    Args:
        session: held open for as long as the backup runs.
    """

    def __init__(
        self, session: ServerSession, cluster: LocalCluster, clock: Clock
    ) -> None:
        self._session = session
        self._clock = clock
        self._backup = BackupSession(session)
        self._cluster = cluster
        self._start: WalPosition | None = None
        self._detection: Detection | None = None

    def begin(self, label: str) -> None:
        """Send pg_backup_start, with an immediate checkpoint."""
        self._backup.begin(label)

    def start(self, parent: ParentContent | None) -> Started:
        """Wait for pg_backup_start, and find out what changed since the parent."""
        from drkit.postgres.local_copy import changed_since  # noqa: PLC0415

        lsn, backup = self._backup.start(), self._backup
        if backup.time is None:
            raise ValueError("start before begin")
        self._start = start = WalPosition(lsn, backup.timeline, backup.time)
        if parent is None:
            return Started(start)
        found = changed_since(parent, self._session, self._cluster, start, self._clock)
        if isinstance(found, str):
            return Started(start, found)
        self._detection = found
        return Started(start)

    def copy(self, writers: Sequence[ContentWriter], progress: Progress) -> Copied:
        """Read all files, one thread per writer, and `pg_control` after all others."""
        from drkit.postgres.local_copy import copy_cluster  # noqa: PLC0415

        if self._start is None:
            raise ValueError("copy before start")
        return copy_cluster(
            self._session,
            self._cluster,
            self._start,
            self._detection,
            self._check_session,
            writers,
            progress,
        )

    def stop(self) -> BackupEnd:
        """Run pg_backup_stop; its WAL is switched, not waited for."""
        lsn, label, tablespace_map = self._backup.stop()
        timeline = self._backup.timeline
        position = WalPosition(lsn, timeline, read_time(self._session))
        return BackupEnd(position, label, tablespace_map)

    def close(self) -> None:
        """End the session; the server ends a backup that was not stopped."""
        self._session.end()

    def _check_session(self) -> None:
        if not self._backup.alive():
            raise PostgresUnreachable(
                "the session that holds the backup open was lost, and the backup with "
                "it",
                hint="see the server's log for the reason, then take a new backup",
            )
