"""A base backup that the server streams over a replication connection.

One thread reads the stream and hands buffers to the others, which verify pages, compare
with the parent and write. The server itself tells what an incremental has to hold: it
is given the manifest that it made of the parent, and sends `INCREMENTAL.*` files.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from drkit import workers
from drkit.errors import Corrupt, PostgresRefused
from drkit.model.copied import BackupEnd, Copied, Started
from drkit.model.head import Tablespace, WalPosition
from drkit.postgres.damage import PageChecker
from drkit.postgres.exclusions import superseded_by_init
from drkit.postgres.facts import read_facts, read_time
from drkit.postgres.receiving import Receiving
from drkit.postgres.stream_parent import (
    StreamParent,
    read_server_manifest,
    why_full,
)
from drkit.postgres.stream_pieces import Exchange, Storing
from drkit.postgres.truncations import truncations

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from drkit.model.head import ServerDescription
    from drkit.postgres.facts import ServerFacts
    from drkit.postgres.replication import BaseBackupStream, StreamStart
    from drkit.protocols import (
        ContentWriter,
        ParentContent,
        Progress,
        ServerSession,
    )

# A server refuses to start from a backup that says of itself that it is not whole.
_NOT_WHOLE = re.compile(rb"^INCREMENTAL FROM (?:LSN|TLI): [^\n]*\n", re.MULTILINE)


class StreamSource:
    """Reads a cluster through `BASE_BACKUP`, as from another host or container.

    Args:
        session: an ordinary one, for what the stream does not tell.
        stream: on a replication connection.
    """

    def __init__(
        self,
        session: ServerSession,
        stream: BaseBackupStream,
        facts: ServerFacts,
        server: ServerDescription,
    ) -> None:
        self._session = session
        self._stream = stream
        self._facts = facts
        self._server = server
        self._label = ""
        self._begun: StreamStart | None = None
        self._parent: StreamParent | None = None
        self._receiving: Receiving | None = None
        self._storing: Storing | None = None

    def begin(self, label: str) -> None:
        """Remember the label; the server must know the parent before it begins."""
        self._label = label

    def start(self, parent: ParentContent | None) -> Started:
        """Send `BASE_BACKUP` with an immediate checkpoint."""
        refusal = None
        if parent is not None:
            refusal = why_full(parent, self._facts)
            refusal = refusal or self._start_incremental(parent)
        begun = self._begun = self._begun or self._stream.begin(self._label)
        time = read_time(self._session)
        return Started(WalPosition(begun.lsn, begun.timeline, time), refusal)

    def copy(self, writers: Sequence[ContentWriter], progress: Progress) -> Copied:
        """Receive everything; one thread per writer beside the one that receives."""
        if self._begun is None:
            raise ValueError("copy before start")
        progress.phase("copy")
        exchange = Exchange(len(writers))
        self._receiving = receiving = Receiving(
            exchange,
            [oid for oid, _ in self._begun.archives],
            self._parent,
            self._server.relation_segment_size,
        )
        content = self._parent.content if self._parent else None
        self._storing = Storing(exchange, self._checker(), content, progress)
        receive = self._receiver(receiving, exchange)
        workers.run([receive, *(self._storing.worker(writer) for writer in writers)])
        if receiving.dropped_maps:
            progress.event("visibility maps left out", count=receiving.dropped_maps)
        files = receiving.files(self._storing.unchanged)
        left_out = superseded_by_init(file.path for file in files)
        damaged = sorted(self._storing.damaged)
        there = [None if file.path in left_out else file for file in files]
        return Copied(there, self._tablespaces(), damaged, [])

    def stop(self) -> BackupEnd:
        """Read the end of the backup from the stream."""
        lsn, timeline, corrupted = self._stream.end()
        if self._receiving is None or self._begun is None:
            raise ValueError("stop before copy")
        if corrupted and not self._met_damage():
            raise Corrupt(
                "the server met pages with a wrong checksum that drkit did not: "
                + "; ".join(self._stream.notices),
                hint="check the cluster with pg_checksums or amcheck",
            )
        if timeline != self._begun.timeline:
            raise PostgresRefused(
                f"the server went from timeline {self._begun.timeline} to {timeline} "
                "during the backup",
                hint="take a new backup",
            )
        beside = self._receiving.beside
        return BackupEnd(
            WalPosition(lsn, timeline, read_time(self._session)),
            _NOT_WHOLE.sub(b"", beside.get(b"backup_label", b"")),
            bytes(beside.get(b"tablespace_map", b"")),
        )

    def close(self) -> None:
        """End both sessions; the server ends an unfinished backup."""
        self._stream.close()
        self._session.end()

    def _start_incremental(self, parent: ParentContent) -> str | None:
        """Begin an incremental; return why the server does not stream one."""
        head = parent.chain.head
        try:
            manifest = read_server_manifest(parent)
            begun = self._stream.begin_incremental(self._label, manifest)
            truncated = truncations(
                self._session,
                head.start.timeline,
                head.start.lsn,
                begun.lsn,
                self._server.relation_segment_size,
            )
        except (Corrupt, PostgresRefused) as error:
            truncated = error.message
        else:
            if begun.timeline != head.start.timeline:
                truncated = f"the server has just gone to timeline {begun.timeline}"
        if isinstance(truncated, str):
            self._stream.reconnect()
            return truncated
        self._begun = begun
        self._parent = StreamParent(parent, truncated)
        return None

    def _receiver(
        self, receiving: Receiving, exchange: Exchange
    ) -> Callable[[workers.Stop], None]:
        def receive(stop: workers.Stop) -> None:
            archives = len(self._begun.archives) if self._begun else 0
            try:
                for archive, data in self._stream.data(archives, stop.is_set):
                    receiving.take(archive, data, stop)
                if not stop.is_set():
                    receiving.finish()
            finally:
                exchange.end()

        return receive

    def _met_damage(self) -> bool:
        storing = self._storing
        return storing is not None and storing.met_damage()

    def _checker(self) -> PageChecker | None:
        if not self._facts.data_checksums or self._begun is None:
            return None
        return PageChecker(
            self._begun.lsn, self._insert_lsn, self._server.relation_segment_size
        )

    def _insert_lsn(self) -> int:
        return read_facts(self._session).insert_lsn

    def _tablespaces(self) -> list[Tablespace]:
        names = {one.oid: one.name for one in self._facts.tablespaces}
        begun = self._begun.archives if self._begun else []
        return [
            Tablespace(
                oid, location, names.get(oid, str(oid)), not location.startswith("/")
            )
            for oid, location in begun
            if oid is not None
        ]
