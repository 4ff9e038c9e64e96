"""From the archives that a server streams to the files that are in them."""

from __future__ import annotations

import os
import re
from functools import partial
from typing import TYPE_CHECKING

from drkit.errors import PostgresRefused
from drkit.model.copied import CopiedFile
from drkit.model.manifest import FileKind
from drkit.postgres.exclusions import Fork, relation_file
from drkit.postgres.incremental_file import PREFIX, HeaderReader
from drkit.postgres.stream_parent import SERVER_MANIFEST
from drkit.postgres.stream_pieces import StreamedFile, Stretch
from drkit.postgres.stream_sinks import Beside, Filling, Nowhere, Opening
from drkit.postgres.tar import Member, MemberKind, TarSplitter

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from drkit.postgres.exclusions import RelationFile
    from drkit.postgres.incremental_file import IncrementalHeader
    from drkit.postgres.stream_parent import StreamParent
    from drkit.postgres.stream_pieces import Exchange
    from drkit.postgres.stream_sinks import Sink
    from drkit.workers import Stop

_MODE = 0o777
_TABLESPACE = re.compile(rb"pg_tblspc/[0-9]+\Z")
_KEPT_BESIDE = {b"backup_label", b"tablespace_map"}
_ENDLESS = 1 << 62


class Receiving:
    """Takes a backup's bytes as they come; used by one thread.

    Args:
        tablespaces: for each archive the oid of its tablespace, or None.
        parent: of an incremental; None for a full backup.
        segment_blocks: how many blocks a relation's file has at most.

    Attributes:
        beside: the files that the server made for this backup.
        dropped_maps: how many visibility maps were left out.
    """

    def __init__(
        self,
        exchange: Exchange,
        tablespaces: Sequence[int | None],
        parent: StreamParent | None,
        segment_blocks: int,
    ) -> None:
        self.beside: dict[bytes, bytearray] = {}
        self.dropped_maps = 0
        self._files: list[CopiedFile] = []
        self._manifest: Filling | None = None
        self._exchange = exchange
        self._tablespaces = tablespaces
        self._parent = parent
        self._segment_blocks = segment_blocks
        self._splitter = TarSplitter()
        self._archive: int | None = 0
        self._paths: set[bytes] = set()
        self._sink: Sink = Nowhere()

    def take(self, archive: int | None, data: memoryview, stop: Stop) -> None:
        """Take the next bytes of an archive, or of the server's manifest."""
        if archive != self._archive:
            self._next_archive(archive)
        if archive is None:
            self._sink.take(data, stop)
            return
        for item in self._splitter.feed(data):
            if isinstance(item, Member):
                self._member(item)
            else:
                self._sink.take(item, stop)

    def finish(self) -> None:
        """Hand over what is left when the stream has ended."""
        self._next_archive(-1)
        if self._manifest is not None:
            size = self._manifest.taken
            self._files[-1] = self._files[-1]._replace(size=size)  # it comes last

    def files(self, unchanged: Collection[int]) -> list[CopiedFile]:
        """Return what has come.

        Args:
            unchanged: numbers of files that came whole, of which something was found
                to be as the parent has it and was not written.
        """
        found = list(self._files)
        if self._parent:
            for number in unchanged:
                file = found[number]
                kept = min(file.size, self._parent.size(file.path))
                found[number] = file._replace(kept=kept)
        return found

    def _next_archive(self, archive: int | None) -> None:
        self._end_file()
        if not self._splitter.at_end():
            raise PostgresRefused("the server's base backup ended inside a file")
        self._splitter = TarSplitter()
        self._archive = archive
        if archive is None:
            self._manifest = self._fill(
                CopiedFile(SERVER_MANIFEST, FileKind.ATTACHMENT, 0o600, 0, 0),
                [Stretch(0, _ENDLESS)],
            )
            self._sink = self._manifest

    def _end_file(self) -> None:
        self._sink.end()
        self._sink = Nowhere()

    def _member(self, member: Member) -> None:
        self._end_file()
        path = self._path(member.name)
        if path in _KEPT_BESIDE:
            self._sink = Beside(self.beside.setdefault(path, bytearray()))
        elif member.kind is MemberKind.FILE:
            self._begin_file(path, member)
        elif path:
            # The server sends what is in a tablespace, but not pg_tblspc/<oid> itself.
            above = path.rpartition(b"/")[0]
            for each in (above, path) if _TABLESPACE.match(above) else (path,):
                self._directory(each, member)

    def _directory(self, path: bytes, member: Member) -> None:
        if path not in self._paths:  # a tablespace's comes again in its own archive
            mode = member.mode & _MODE or 0o700
            self._add(CopiedFile(path, FileKind.DIRECTORY, mode, 0, member.mtime))

    def _begin_file(self, path: bytes, member: Member) -> None:
        directory, slash, name = path.rpartition(b"/")
        stands_for = directory + slash + name.removeprefix(PREFIX)
        relation = relation_file(stands_for)
        if path in self._paths:
            return
        if self._parent and relation and name.startswith(PREFIX):
            begin = partial(
                self._begin_incremental, stands_for, relation, member, self._parent
            )
            place, blocks = os.fsdecode(stands_for), self._segment_blocks
            self._sink = Opening(HeaderReader(place, member.size, blocks), begin)
        else:
            self._sink = self._begin_whole(path, member)

    def _begin_whole(self, path: bytes, member: Member) -> Filling:
        mode, size = member.mode & _MODE, member.size
        stretches: Iterable[Stretch] = [Stretch(0, size)]
        if self._parent:
            pages = relation_file(path) is not None
            stretches = self._parent.stretches(path, size, pages=pages)
        file = CopiedFile(path, FileKind.FILE, mode, size, member.mtime)
        return self._fill(file, stretches)

    def _begin_incremental(
        self,
        path: bytes,
        relation: RelationFile,
        member: Member,
        parent: StreamParent,
        header: IncrementalHeader,
    ) -> Filling:
        stretches = [Stretch(*one) for one in header.stretches()]
        if relation.fork is Fork.VM:
            # What clears its bits is not all in the WAL summaries. A server without
            # the map makes a new one.
            self.dropped_maps += 1
            return Filling(
                self._exchange, StreamedFile(None, path, relation), stretches
            )
        mode, kept = member.mode & _MODE, parent.kept(path, relation, header)
        return self._fill(
            CopiedFile(path, FileKind.FILE, mode, header.size, member.mtime, 0, kept),
            stretches,
        )

    def _fill(self, file: CopiedFile, stretches: Iterable[Stretch]) -> Filling:
        number = self._add(file)
        streamed = StreamedFile(number, file.path, relation_file(file.path))
        return Filling(self._exchange, streamed, stretches)

    def _add(self, file: CopiedFile) -> int:
        self._paths.add(file.path)
        self._files.append(file)
        return len(self._files) - 1

    def _path(self, name: bytes) -> bytes:
        """Return a member's path under the data directory."""
        name = name.rstrip(b"/").removeprefix(b"./")
        oid = None if self._archive is None else self._tablespaces[self._archive]
        if oid is None:
            return b"" if name == b"." else name
        prefix = f"pg_tblspc/{oid}".encode()
        return prefix if name in (b"", b".") else prefix + b"/" + name
