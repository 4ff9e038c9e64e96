"""Reading a cluster's files: all of them, or what an incremental backup needs."""

from __future__ import annotations

import os
import queue
import threading
from typing import TYPE_CHECKING

import numpy as np

from drkit.errors import SourceUnreadable
from drkit.model.copied import Copied, CopiedFile
from drkit.model.frames import FilePages
from drkit.model.page import PAGE
from drkit.ownership import acting_as
from drkit.postgres.comparing import Comparing
from drkit.postgres.detection import FilePlan, How, stretches
from drkit.postgres.exclusions import of_the_cluster, relation_file
from drkit.postgres.files import NotRegular, open_below, read_full, unreadable
from drkit.postgres.pages import page_lsns
from drkit.postgres.steps import Piece, cut

if TYPE_CHECKING:
    from collections.abc import Callable, Container

    import numpy.typing as npt

    from drkit import workers
    from drkit.model.owner import Owner
    from drkit.postgres.damage import PageChecker
    from drkit.postgres.detection import Detection
    from drkit.postgres.exclusions import RelationFile
    from drkit.postgres.scan import Found, FoundFile
    from drkit.protocols import ContentWriter, Progress

    Blocks = npt.NDArray[np.int64]

_SCAN = 1 << 20  # stays in a core's cache


class Reading:
    """The shared state of the threads that read one cluster.

    Args:
        detection: for an incremental; None to read everything.
        start_lsn: where this backup began.
        owner: whom root acts as to open files.
    """

    def __init__(
        self,
        found: Found,
        detection: Detection | None,
        start_lsn: int,
        checker: PageChecker | None,
        progress: Progress,
        owner: Owner | None,
    ) -> None:
        self._found = found
        self._owner = owner
        self._detection = detection
        self._plans = (
            detection.plans(found.files)
            if detection
            else [FilePlan(How.WHOLE)] * len(found.files)
        )
        self._comparing = (
            Comparing(detection, start_lsn, progress, owner) if detection else None
        )
        self._checker = checker
        self._progress = progress
        self._lock = threading.Lock()
        self._ends: dict[int, int] = {}
        self._kept: dict[int, int] = {}
        self._vanished: set[int] = set()
        self._warnings: list[str] = []
        self._damaged: list[tuple[int, int]] = []
        self._steps: queue.SimpleQueue[list[Piece]] = queue.SimpleQueue()
        for step in cut(found.files, self._plans):
            self._steps.put(step)

    def total(self) -> int:
        """Return how many bytes are looked at."""
        return sum(
            len(plan.blocks) * PAGE if plan.how is How.BLOCKS else file.size
            for plan, file in zip(self._plans, self._found.files, strict=True)
        )

    def worker(self, writer: ContentWriter) -> Callable[[workers.Stop], None]:
        """Return a task that reads pieces until none is left."""

        def work(stop: workers.Stop) -> None:
            scratch = memoryview(bytearray(_SCAN))
            while not stop.is_set():
                try:
                    step = self._steps.get_nowait()
                except queue.Empty:
                    return
                if self._read_elsewhere(step, writer):
                    continue
                for piece in step:
                    self._read(_Reader(self, piece, writer, scratch, stop))

        return work

    def copied(
        self, control: dict[int, int], left_out: Container[bytes] = ()
    ) -> Copied:
        """Return what was read, sizes as they were read and not as they were listed.

        Args:
            control: size by number of a file that was read elsewhere.
            left_out: paths of files that turned out not to belong into a backup.
        """
        ends = self._ends | control
        files: list[CopiedFile | None] = []
        for number, file in enumerate(self._found.files):
            gone = number in self._vanished and number not in ends
            gone = gone or file.path in left_out
            files.append(None if gone else self._copied(number, file, ends))
        found = self._found
        warnings = found.warnings + self._warnings
        if self._comparing:
            warnings = warnings + self._comparing.alarms
        return Copied(files, found.tablespaces, sorted(self._damaged), warnings)

    def _copied(self, number: int, file: FoundFile, ends: dict[int, int]) -> CopiedFile:
        listed = self._plans[number].how in (How.BLOCKS, How.CONTENT)
        size = ends.get(number, file.size if listed else 0)
        kept = min(self._kept.get(number, self._plans[number].kept), size)
        return CopiedFile(
            file.path, file.kind, file.mode, size, file.mtime, file.identity, kept
        )

    def _read_elsewhere(self, step: list[Piece], writer: ContentWriter) -> bool:
        """Let pages be read by another process; say whether they were."""
        pages = [
            FilePages(
                piece.number,
                piece.file.place,
                piece.file.root,
                self._owner,
                piece.blocks,
                self._first(piece.file),
            )
            for piece in step
            if piece.blocks is not None
        ]
        done = bool(pages) and writer.read_pages(
            pages, verify=self._checker is not None
        )
        if done:
            self.advance(PAGE * sum(len(one.blocks) for one in pages))
        return done

    def _first(self, file: FoundFile) -> int:
        relation = relation_file(file.path)
        return self._checker.first(relation) if self._checker and relation else 0

    def _read(self, reader: _Reader) -> None:
        file = reader.piece.file
        try:
            with acting_as(self._owner):
                descriptor = open_below(file.root, file.place)
        except FileNotFoundError:
            self._gone(reader.piece.number)
            return
        except NotRegular:
            self._replaced(reader.piece.number, file)
            return
        except OSError as error:
            path = os.fsdecode(file.place)
            raise unreadable(path, reader.piece.start, error) from error
        try:
            self._read_open(reader, descriptor)
        finally:
            os.close(descriptor)

    def _read_open(self, reader: _Reader, descriptor: int) -> None:
        piece, plan = reader.piece, self._plans[reader.piece.number]
        if plan.how is How.WHOLE:
            reader.store(descriptor, piece.start, piece.end)
            return
        assert self._comparing is not None
        if plan.how is How.SCAN:
            plan = self._comparing.with_visible(
                piece.file, plan, piece.start, piece.end
            )
        if plan.how is How.CONTENT:
            same = self._comparing.same_content(descriptor, piece.file, plan)
        else:
            same = not plan.audit or self._comparing.passes_audit(
                descriptor, piece.file, plan
            )
        if not same:
            self._keep(piece.number, 0)
            reader.store(descriptor, 0, piece.file.size)
        elif plan.how is How.CONTENT:
            self._keep(piece.number, piece.file.size)
            self.advance(piece.file.size)
        elif plan.how is How.SCAN:
            reader.scan(descriptor, plan)
        else:
            reader.store_blocks(
                descriptor, plan.blocks if piece.blocks is None else piece.blocks
            )

    def _gone(self, number: int) -> bool:
        """Note that a file is there no more; say whether that is news."""
        with self._lock:
            news = number not in self._vanished
            self._vanished.add(number)
        return news

    def _replaced(self, number: int, file: FoundFile) -> None:
        """Leave out what is a file no more, as the walk leaves out what never was."""
        if of_the_cluster(file.path):
            raise SourceUnreadable(
                f"{os.fsdecode(file.place)} is no file any more, and a restored server "
                "could not do without it",
                hint="see who put something else into its place; no backup was made",
            )
        if not self._gone(number):
            return  # another piece of it was told of
        warning = f"{os.fsdecode(file.path)} is no file any more and was left out"
        with self._lock:
            self._warnings.append(warning)
        self._progress.warning(warning, file=os.fsdecode(file.path))

    def _keep(self, number: int, kept: int) -> None:
        with self._lock:
            self._kept[number] = kept

    def note(self, number: int, end: int, count: int) -> None:
        """Count bytes of a file that were read, up to `end`."""
        with self._lock:
            self._ends[number] = max(self._ends.get(number, 0), end)
        self.advance(count)

    def advance(self, count: int) -> None:
        """Count bytes that were looked at."""
        self._progress.advance(count)

    def since(self) -> int:
        """Return the LSN from which on a page has changed since the parent."""
        return self._detection.since if self._detection else 0

    def verify(
        self,
        file: FoundFile,
        number: int,
        relation: RelationFile,
        pages: memoryview,
        blocks: Blocks,
        descriptor: int,
    ) -> None:
        """Check the pages that are about to be stored; a damaged one is reported."""
        if self._checker is None:
            return
        place = os.fsdecode(file.place)

        def reread(page: memoryview, at: int) -> int:
            return read_full(place, descriptor, page, at)

        for block in self._checker.damaged_among(relation, pages, blocks, reread):
            with self._lock:
                self._damaged.append((number, block))
            self._progress.warning(
                f"page {block} of {os.fsdecode(file.path)} is damaged: its "
                "checksum stayed wrong when it was read again",
                file=os.fsdecode(file.path),
                block=block,
            )


class _Reader:
    """One piece of one file on its way into a writer."""

    def __init__(
        self,
        reading: Reading,
        piece: Piece,
        writer: ContentWriter,
        scratch: memoryview,
        stop: workers.Stop,
    ) -> None:
        self.piece = piece
        self._reading = reading
        self._writer = writer
        self._scratch = scratch
        self._stop = stop
        self._path = os.fsdecode(piece.file.place)
        self._relation = relation_file(piece.file.path)

    def store(self, descriptor: int, start: int, end: int) -> None:
        """Store a stretch of the file, as far as it goes."""
        unit = PAGE if self._relation else 1
        position = start
        while position < end and not self._stop.is_set():
            space = self._writer.space(unit)
            want = min(len(space) // unit * unit, end - position)
            count = read_full(self._path, descriptor, space[:want], position)
            self._verify(space[:count], _following(position, count), descriptor)
            self._writer.took(self.piece.number, position, count)
            position += count
            self._reading.note(self.piece.number, position if count else 0, count)
            if count < want:
                return  # truncated since it was listed; WAL replay truncates it too

    def store_blocks(self, descriptor: int, blocks: Blocks) -> None:
        """Store pages by their numbers, many in one frame.

        Pages that are there no more are left out: WAL replay truncates the file too.
        """
        done = 0
        while done < len(blocks) and not self._stop.is_set():
            space = self._writer.space(PAGE)
            chosen = blocks[done : done + len(space) // PAGE]
            done += len(chosen)
            parts, filled = [], 0
            for first, behind in stretches(chosen):
                want = (behind - first) * PAGE
                into = space[filled : filled + want]
                count = read_full(self._path, descriptor, into, first * PAGE)
                count = count // PAGE * PAGE
                parts.append((first * PAGE, count))
                filled += count
                if count < want:
                    break
            self._take(parts, space[:filled], chosen[: filled // PAGE], descriptor)
            self._reading.advance(filled)

    def scan(self, descriptor: int, plan: FilePlan) -> None:
        """Read all of the piece, and store the pages that changed since the parent."""
        position = self.piece.start
        forced = set(plan.blocks.tolist())
        while position < self.piece.end and not self._stop.is_set():
            want = min(len(self._scratch), self.piece.end - position)
            count = read_full(self._path, descriptor, self._scratch[:want], position)
            whole = count // PAGE * PAGE
            self._store_changed(descriptor, position, whole, plan.kept, forced)
            if count > whole:  # being extended or truncated: WAL replay mends it
                self._writer.add(
                    self.piece.number, position + whole, self._scratch[whole:count]
                )
            position += count
            self._reading.note(self.piece.number, position if count else 0, count)
            if count < want:
                return

    def _store_changed(
        self, descriptor: int, position: int, length: int, kept: int, forced: set[int]
    ) -> None:
        pages = self._scratch[:length]
        lsns = page_lsns(pages)
        blocks = np.arange(position // PAGE, (position + length) // PAGE)
        changed = (
            (lsns >= self._reading.since()) | (lsns == 0) | (blocks >= kept // PAGE)
        )
        if forced:
            changed |= np.isin(blocks, list(forced))
        self._store_from(pages, position, blocks[changed], descriptor)

    def _store_from(
        self, pages: memoryview, position: int, blocks: Blocks, descriptor: int
    ) -> None:
        """Store pages that were read already, as many in one go as a frame holds."""
        done = 0
        while done < len(blocks):
            space = self._writer.space(PAGE)
            chosen = blocks[done : done + len(space) // PAGE]
            done += len(chosen)
            parts, filled = [], 0
            for first, behind in stretches(chosen):
                at, length = first * PAGE - position, (behind - first) * PAGE
                space[filled : filled + length] = pages[at : at + length]
                parts.append((first * PAGE, length))
                filled += length
            self._take(parts, space[:filled], chosen, descriptor)

    def _take(
        self,
        parts: list[tuple[int, int]],
        pages: memoryview,
        blocks: Blocks,
        descriptor: int,
    ) -> None:
        """Verify pages that are in the writer's space, and let it keep them."""
        self._verify(pages, blocks, descriptor)
        self._writer.took_all(self.piece.number, parts)

    def _verify(self, pages: memoryview, blocks: Blocks, descriptor: int) -> None:
        if self._relation is None:
            return
        whole = pages[: len(pages) // PAGE * PAGE]
        piece = self.piece
        self._reading.verify(
            piece.file, piece.number, self._relation, whole, blocks, descriptor
        )


def _following(position: int, length: int) -> Blocks:
    """Return the numbers of the whole pages in a stretch of a file."""
    return np.arange(position // PAGE, (position + length) // PAGE)
