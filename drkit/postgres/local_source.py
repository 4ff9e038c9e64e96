"""A base backup read from the data directory, on the database's own host."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from drkit import workers
from drkit.errors import PostgresUnreachable, SourceUnreadable
from drkit.model.audit import audit_due
from drkit.model.copied import BackupEnd, Copied, Started
from drkit.model.head import WalPosition
from drkit.model.manifest import CONTROL_FILE
from drkit.postgres.control import read_control
from drkit.postgres.damage import PageChecker
from drkit.postgres.detection import Detection
from drkit.postgres.facts import read_facts, read_time
from drkit.postgres.reading import Reading
from drkit.postgres.scan import Found, scan, unlogged_since
from drkit.postgres.session import BackupSession
from drkit.postgres.summaries import SINCE_VERSION, changed_blocks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from drkit.model.changes import ChangedBlocks
    from drkit.model.head import ServerDescription
    from drkit.model.timeline import TimelineHistory
    from drkit.postgres.connection import Connection
    from drkit.postgres.facts import ServerFacts
    from drkit.protocols import Clock, ContentWriter, ParentContent, Progress

_SUMMARIZER_STALLS = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class LocalCluster:
    """The server that a backup is read from, and where its files are.

    Attributes:
        facts: of the server that runs on `data_directory`.
        server: the same server, as the manifest describes it.
        history: of the timeline that it is on.
        audit_every: how often each file that seems unchanged is compared in full.
    """

    facts: ServerFacts
    server: ServerDescription
    history: TimelineHistory
    data_directory: str
    audit_every: timedelta


class LocalSource:
    """Reads a cluster's files in parallel, between pg_backup_start and pg_backup_stop.

    Args:
        connection: held open for as long as the backup runs.
    """

    def __init__(
        self, connection: Connection, cluster: LocalCluster, clock: Clock
    ) -> None:
        self._connection = connection
        self._clock = clock
        self._session = BackupSession(connection)
        self._cluster = cluster
        self._start: WalPosition | None = None
        self._detection: Detection | None = None

    def start(self, label: str, parent: ParentContent | None) -> Started:
        """Run pg_backup_start with an immediate checkpoint."""
        lsn = self._session.start(label)
        timeline = self._session.timeline
        self._start = WalPosition(lsn, timeline, read_time(self._connection))
        if parent is None:
            return Started(self._start)
        return Started(self._start, self._compare_with(parent, self._start))

    def copy(self, writers: Sequence[ContentWriter], progress: Progress) -> Copied:
        """Read all files, one thread per writer, and `pg_control` after all others."""
        if self._start is None:
            raise ValueError("copy before start")
        cluster = self._cluster
        names = {one.oid: one.name for one in cluster.facts.tablespaces}
        found = scan(cluster.data_directory, names, cluster.server.catalog_version)
        reading = Reading(
            found, self._detection, self._start.lsn, self._checker(), progress
        )
        progress.phase("copy", reading.total())
        tasks = [reading.worker(writer) for writer in writers]
        workers.run(tasks, watch=self._check_session)
        self._check_session()
        control = self._copy_control(found, writers[0])
        return reading.copied(control, unlogged_since(found))

    def stop(self) -> BackupEnd:
        """Run pg_backup_stop; its WAL is switched, not waited for."""
        lsn, label, tablespace_map = self._session.stop()
        timeline = self._session.timeline
        position = WalPosition(lsn, timeline, read_time(self._connection))
        return BackupEnd(position, label, tablespace_map)

    def close(self) -> None:
        """Close the connection; the server ends a backup that was not stopped."""
        self._connection.close()

    def _compare_with(self, parent: ParentContent, start: WalPosition) -> str | None:
        """Find out what changed since the parent; return why that can't be told."""
        head, facts = parent.chain.head, self._cluster.facts
        if start.lsn < head.stop.lsn:
            return f"this server has not come to the end of backup {head.label} yet"
        changed: ChangedBlocks | None = None
        if facts.version_num >= SINCE_VERSION and facts.summarize_wal:
            found = changed_blocks(
                self._connection,
                self._cluster.data_directory,
                self._cluster.history,
                head.start.lsn,
                start.lsn,
                self._cluster.server.relation_segment_size,
                _SUMMARIZER_STALLS,
                self._clock,
            )
            if isinstance(found, str):
                return found
            changed = found
        elif head.source != "local":
            return (
                f"backup {head.label} was streamed, so without WAL summaries its files "
                "can't be told from others of the same names"
            )

        def due(path: bytes) -> bool:
            every = self._cluster.audit_every
            return audit_due(path, head.start.time, start.time, every)

        self._detection = Detection(parent, changed, due)
        return None

    def _check_session(self) -> None:
        if not self._session.alive():
            raise PostgresUnreachable(
                "the session that holds the backup open was lost, and the backup with "
                "it",
                hint="see the server's log for the reason, then take a new backup",
            )

    def _insert_lsn(self) -> int:
        return read_facts(self._connection).insert_lsn

    def _checker(self) -> PageChecker | None:
        cluster = self._cluster
        if not cluster.facts.data_checksums or self._start is None:
            return None
        segment = cluster.server.relation_segment_size
        return PageChecker(self._start.lsn, self._insert_lsn, segment)

    def _copy_control(self, found: Found, writer: ContentWriter) -> dict[int, int]:
        for number, file in enumerate(found.files):
            if file.path == CONTROL_FILE:
                _, content = read_control(os.fsdecode(file.place))
                writer.add(number, 0, content)
                return {number: len(content)}
        raise SourceUnreadable(
            f"there is no global/pg_control in {self._cluster.data_directory}",
            hint="check `cluster.data_directory` in the policy",
        )
