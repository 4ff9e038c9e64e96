"""The parent of a streamed incremental: whether it will do, and what is kept of it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from drkit.errors import PostgresRefused
from drkit.model.manifest import FileKind
from drkit.model.page import PAGE
from drkit.postgres.exclusions import Fork, relation_file
from drkit.postgres.stream_pieces import BUFFER, Stretch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from drkit.model.changes import ChangedBlocks
    from drkit.model.manifest import Row
    from drkit.postgres.exclusions import RelationFile
    from drkit.postgres.facts import ServerFacts
    from drkit.postgres.incremental_file import IncrementalHeader
    from drkit.protocols import ParentContent

SERVER_MANIFEST = b"backup_manifest"
_SINCE_MAJOR = 17


def why_full(parent: ParentContent, facts: ServerFacts) -> str | None:
    """Return why the server can't stream an incremental to this parent, or None.

    A timeline switch in between is a reason: summaries of the timeline that was left
    may tell of truncations which this server never replayed, and the server's
    incremental then lacks blocks.
    """
    head = parent.chain.head
    if facts.major_version < _SINCE_MAJOR:
        return (
            f"PostgreSQL {facts.major_version} streams full backups only; 17 and later "
            "stream incrementals, and the source `local` takes them of any version"
        )
    if head.source != "stream" or parent.chain.find(SERVER_MANIFEST) is None:
        return (
            f"backup {head.label} was not streamed, so there is no backup manifest of "
            "the server's own to compare with"
        )
    if not facts.summarize_wal:
        return "summarize_wal is off, so the server does not note what changes"
    if not head.start.timeline == head.stop.timeline == facts.timeline:
        return (
            f"the server went from timeline {head.start.timeline} to {facts.timeline} "
            f"since backup {head.label} began"
        )
    return _lost_relation(parent)


def _lost_relation(parent: ParentContent) -> str | None:
    """Name a relation of which the parent lacks pages: the server won't send them."""
    for number, path in enumerate(parent.chain.paths):
        relation = relation_file(path) if parent.damaged(number) else None
        if relation is not None and relation.fork in (Fork.MAIN, Fork.INIT):
            return (
                f"backup {parent.chain.head.label} holds damaged pages of "
                f"{os.fsdecode(path)}"
            )
    return None


def read_server_manifest(parent: ParentContent) -> bytes:
    """Fetch the manifest that the server made of the parent.

    Raises:
        Corrupt: what holds it is missing or damaged.
    """
    number = parent.chain.find(SERVER_MANIFEST)
    if number is None:
        raise ValueError("the parent was not streamed")
    return parent.read(number, 0, int(parent.chain.files["size"][number]))


class StreamParent:
    """What a streamed incremental leaves to its parent.

    Args:
        truncated: limits of the relations that were truncated since.
    """

    def __init__(self, content: ParentContent, truncated: ChangedBlocks) -> None:
        self.content = content
        self._truncated = truncated
        self._chain = content.chain

    def size(self, path: bytes) -> int:
        """Return the parent's length of a file; 0 if it has none."""
        number = self._chain.find(path)
        return 0 if number is None else int(self._chain.files["size"][number])

    def kept(
        self, path: bytes, relation: RelationFile, header: IncrementalHeader
    ) -> int:
        """Return below which position a file is the parent's where no block came.

        Raises:
            PostgresRefused: the parent has no such file.
        """
        if self._chain.find(path) is None:
            raise PostgresRefused(
                f"the server sent changes to {os.fsdecode(path)}, which backup "
                f"{self._chain.head.label} does not have",
                hint="take a full backup",
            )
        blocks = min(self.size(path) // PAGE, header.truncation)
        if relation.fork is Fork.MAIN:
            changes = self._truncated.of(path)
            blocks = min(blocks, blocks if changes.limit is None else changes.limit)
        return blocks * PAGE

    def stretches(self, path: bytes, size: int, *, pages: bool) -> Iterator[Stretch]:
        """Cut a file that comes whole where the parent's pieces are, to compare them.

        Args:
            size: of the file, in bytes.
            pages: whether stretches must be whole pages.
        """
        position = 0
        for start, length, piece in self._comparable(path, size, pages):
            if position < start:
                yield Stretch(position, start - position)
            yield Stretch(start, length, piece)
            position = start + length
        if position < size:
            yield Stretch(position, size - position)

    def _comparable(
        self, path: bytes, size: int, pages: bool
    ) -> Iterator[tuple[int, int, Row]]:
        number = self._chain.find(path)
        if number is None or self._chain.files["kind"][number] != FileKind.FILE:
            return
        if self.content.damaged(number):
            return
        pieces = self._chain.pieces_of(number)
        places = pieces[["position", "length"]].tolist()
        for piece, (start, length) in zip(pieces, places, strict=True):
            aligned = start % PAGE == 0 and (
                length % PAGE == 0 or start + length == size
            )
            if length <= BUFFER and start + length <= size and (aligned or not pages):
                yield start, length, piece
