"""Proving that every page of every relation on disk is one that a server wrote."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from drkit import workers
from drkit.model.page import PAGE
from drkit.operations.proving.subject import Finding, failed, not_done, passed
from drkit.postgres.control import read_control
from drkit.postgres.exclusions import Fork, relation_file
from drkit.postgres.files import open_regular
from drkit.postgres.page_header import empty, misshapen
from drkit.postgres.pages import failing
from drkit.postgres.scan import scan

if TYPE_CHECKING:
    from drkit.operations.proving.subject import Run
    from drkit.postgres.exclusions import RelationFile
    from drkit.postgres.scan import FoundFile
    from drkit.workers import Stop

_AT_ONCE = 256 * PAGE
_REREADS = 3
_PAUSE = 0.05  # seconds; a page that was being written is whole within that
_FORKS = (Fork.MAIN, Fork.INIT)  # the maps may be torn, and are made anew then


class _Relation(NamedTuple):
    """A file of a relation; `base` is its first block's number."""

    path: str
    place: bytes
    size: int
    base: int


class _Tally:
    """What all threads have found."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.pages = 0
        self.empty = 0
        self.wrong: list[str] = []

    def count(self, pages: int, empty: int, wrong: list[str]) -> None:
        """Add what was found in some pages."""
        with self._lock:
            self.pages += pages
            self.empty += empty
            self.wrong += wrong


def check_pages(run: Run) -> Finding:
    """Read every page of main forks, and verify its checksum and its header.

    But for unlogged relations, which recovery empties, and temporary ones.
    """
    refusal = _prepare(run)
    if refusal is not None:
        return refusal
    relations, warnings = _relations(run)
    run.progress.phase("pages", sum(one.size for one in relations))
    tally, queue = _Tally(), deque(relations)
    reader = _Reader(run, tally)
    workers.run([lambda stop: reader.work(queue, stop)] * run.rules.jobs)
    if tally.wrong:
        return failed(sorted(tally.wrong), tally.pages)
    if reader.late:
        return not_done(
            f"the time limit was reached after {tally.pages} pages, which were sound"
        )
    return passed(_detail(run, len(relations), tally), tally.pages, warnings)


def _detail(run: Run, files: int, tally: _Tally) -> str:
    judged = "checksums and headers" if run.subject.checksums else "headers only"
    return (
        f"{tally.pages} pages in {files} files, {tally.empty} of them empty; {judged}"
    )


def _prepare(run: Run) -> Finding | None:
    """Bring all pages to the disk; return why they can't be judged."""
    with run.session() as connection:
        on, size = connection.query(
            "SELECT current_setting('data_checksums')::bool,"
            " current_setting('block_size')::int",
        )[0]
        connection.query("CHECKPOINT")
    if size != PAGE:
        return not_done(f"pages have {size} bytes; only those of {PAGE} can be judged")
    if run.subject.checksums and not on:
        return failed(["checksums are off, though the backup's cluster had them"])
    return None


def _relations(run: Run) -> tuple[list[_Relation], tuple[str, ...]]:
    """List the files, largest first, and tell what is in no list.

    So no thread is left with a large one at the end.
    """
    root = run.subject.data_directory
    control = read_control(os.path.join(root, "global", "pg_control"))[0]
    found = scan(root, None, control.catalog_version)
    relations = [
        _Relation(
            os.fsdecode(file.path),
            file.place,
            file.size,
            relation.segment * run.subject.segment_blocks,
        )
        for file, relation in ((one, _relation(one)) for one in found.files)
        if relation is not None
    ]
    relations.sort(key=lambda one: one.size, reverse=True)
    return relations, tuple(found.warnings)


def _relation(file: FoundFile) -> RelationFile | None:
    relation = relation_file(file.path)
    return relation if relation is not None and relation.fork in _FORKS else None


class _Reader:
    """Reads files and judges their pages; its methods run on several threads.

    Attributes:
        late: whether the time was over before all was read.
    """

    def __init__(self, run: Run, tally: _Tally) -> None:
        self._run = run
        self._tally = tally
        self.late = False

    def work(self, queue: deque[_Relation], stop: Stop) -> None:
        """Take files from a queue until it is empty."""
        while not stop.is_set():
            try:
                relation = queue.popleft()
            except IndexError:
                return
            with open(open_regular(relation.place), "rb", buffering=0) as file:
                self._read(relation, file.fileno(), stop)

    def _read(self, relation: _Relation, descriptor: int, stop: Stop) -> None:
        position = 0
        while not stop.is_set():
            if self._run.left() <= 0:
                self.late = True
                return
            data = os.pread(descriptor, _AT_ONCE, position)
            if not data:
                return
            self._take(relation, descriptor, position // PAGE, data)
            if len(data) % PAGE:
                return
            position += len(data)
            self._run.progress.advance(len(data))

    def _take(
        self, relation: _Relation, descriptor: int, block: int, data: bytes
    ) -> None:
        pages = len(data) // PAGE
        whole = memoryview(data)[: pages * PAGE]
        suspects = self._suspects(whole, relation.base + block)
        wrong = [
            f"{relation.path} block {block + index} is damaged"
            for index in self._stable(relation, descriptor, block, suspects)
        ]
        if len(data) % PAGE:
            wrong.append(f"{relation.path} ends within block {block + pages}")
        self._tally.count(pages, empty(whole), wrong)

    def _suspects(self, pages: memoryview | bytes, block: int) -> list[int]:
        """Return the indexes of pages that are wrong as they were read."""
        wrong = set(misshapen(pages))
        if self._run.subject.checksums:
            wrong.update(failing(pages, block))
        return sorted(wrong)

    def _stable(
        self, relation: _Relation, descriptor: int, first: int, suspects: list[int]
    ) -> list[int]:
        """Return the suspects that stay wrong: none that was just being written."""
        for _ in range(_REREADS):
            if not suspects:
                break
            time.sleep(_PAUSE)
            suspects = [
                index
                for index in suspects
                if self._suspects(
                    os.pread(descriptor, PAGE, (first + index) * PAGE),
                    relation.base + first + index,
                )
            ]
        return suspects
