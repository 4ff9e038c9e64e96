"""A server that exists in memory alone, and backups of it that drkit takes in earnest.

Its files have pages of 64 bytes, it knows which page changed in which WAL segment, and
it archives the segments that it has filled. It keeps what each backup read, by the
backup's start, so that anybody can tell later whether the repository still holds it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from drkit.model.copied import BackupEnd, Copied, CopiedFile, Present, Started
from drkit.model.head import WalPosition
from drkit.model.lsn import Lsn
from drkit.model.manifest import FileKind
from drkit.model.timeline import TimelineHistory
from drkit.model.wal import Segment, WalFileName
from tests.builders import EPOCH, SEGMENT, server

if TYPE_CHECKING:
    from collections.abc import Sequence

    from drkit.protocols import ContentWriter, ParentContent, Progress
    from drkit.repository.wal import WalArchive
    from tests.chains import Files

PAGE = 64
Pages = list[tuple[int, bytes]]  # the segment in which it changed, and the content


class MadeUpServer:
    """A primary on timeline 1 that archives into `archive`.

    Attributes:
        segment: the number of the WAL segment that it writes to.
        read: what each backup read, by its start LSN.
    """

    def __init__(self, archive: WalArchive) -> None:
        self._archive = archive
        self._changes = 0
        self._lagging = 0
        self.segment = 1
        self.files: dict[bytes, Pages] = {}
        self.read: dict[int, Files] = {}
        for name in (b"16384", b"16385", b"PG_VERSION"):
            self.write(name, 0)

    @property
    def lsn(self) -> Lsn:
        return Lsn(self.segment * SEGMENT + 0x28)

    def lsn_before(self, segments: int) -> Lsn:
        """Return a position so many segments back, another one each time."""
        self._lagging += 1
        number = max(self.segment - segments, 1)
        return Lsn(number * SEGMENT + 0x28 + 0x200 * self._lagging)

    @property
    def present(self) -> Present:
        return Present(server(), TimelineHistory(1), self.lsn)

    def write(self, name: bytes, block: int) -> None:
        """Change a page, or add the next one."""
        pages = self.files.setdefault(name, [])
        self._changes += 1
        page = (self.segment, b"%s %d" % (name, self._changes))
        place = min(block, len(pages))
        pages[place : place + 1] = [(page[0], page[1].ljust(PAGE))]

    def truncate(self, name: bytes, blocks: int) -> None:
        """Leave the first pages of a file."""
        del self.files.get(name, [])[blocks:]

    def drop(self, name: bytes) -> None:
        self.files.pop(name, None)

    def switch_wal(self) -> None:
        """End the segment, and archive it."""
        file = WalFileName.parse(Segment(1, self.segment).name(SEGMENT))
        self._archive.push(file, bytes(7), EPOCH)
        self.segment += 1

    def content(self) -> Files:
        return {
            name: b"".join(content for _, content in pages)
            for name, pages in sorted(self.files.items())
        }


class MadeUpSource:
    """One backup of a `MadeUpServer`; see `drkit.protocols.BaseBackupSource`.

    Args:
        lag: by how many segments its start lies back, as on a standby whose last
            restart point is old. Its files are the primary's all the same.
    """

    def __init__(self, server: MadeUpServer, lag: int = 0) -> None:
        self._server = server
        self._lag = lag
        self._parent: ParentContent | None = None
        self._start = Lsn(0)

    def begin(self, label: str) -> None:
        self._server.switch_wal()
        self._server.write(b"pg_control", 0)  # the checkpoint
        self._start = self._server.lsn
        if self._lag:
            self._start = self._server.lsn_before(self._lag)

    def start(self, parent: ParentContent | None) -> Started:
        position = WalPosition(self._start, 1, EPOCH)
        if parent is not None and self._start < parent.chain.head.stop.lsn:
            return Started(position, "the parent ends behind the start")
        self._parent = parent
        return Started(position)

    def copy(self, writers: Sequence[ContentWriter], progress: Progress) -> Copied:
        copied: list[CopiedFile | None] = []
        for number, (name, pages) in enumerate(sorted(self._server.files.items())):
            kept = self._write(writers[0], number, name, pages)
            size = len(pages) * PAGE
            copied.append(CopiedFile(name, FileKind.FILE, 0o600, size, 0, 0, kept))
        self._server.read[self._start] = self._server.content()
        return Copied(copied, [], [], [])

    def stop(self) -> BackupEnd:
        end = WalPosition(Lsn(self._server.lsn + 0x100), 1, EPOCH)
        if self._lag:
            end = WalPosition(Lsn(self._start + 0x100), 1, EPOCH)
        self._server.switch_wal()
        return BackupEnd(end, b"START WAL LOCATION: made up\n", b"")

    def close(self) -> None:
        self._parent = None

    def _write(
        self, writer: ContentWriter, number: int, name: bytes, pages: Pages
    ) -> int:
        """Store what is not the parent's; return how much of the file may be."""
        below = self._size_in_parent(name)
        since = 0
        if self._parent is not None:
            since = self._parent.chain.head.start.lsn // SEGMENT
        for block, (changed, content) in enumerate(pages):
            if changed >= since or (block + 1) * PAGE > below:
                writer.add(number, block * PAGE, content)
        return min(below, len(pages) * PAGE)

    def _size_in_parent(self, name: bytes) -> int:
        if self._parent is None:
            return 0
        chain = self._parent.chain
        number = chain.find(name)
        return 0 if number is None else int(chain.files["size"][number])
