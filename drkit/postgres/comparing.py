"""Comparing a cluster's files with what a backup has stored of them."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

import numpy as np

from drkit.errors import Corrupt
from drkit.model.page import PAGE
from drkit.ownership import acting_as
from drkit.postgres.exclusions import relation_file
from drkit.postgres.files import NotRegular, open_below, read_full, unreadable
from drkit.postgres.hints import same_but_hints
from drkit.postgres.pages import page_lsn
from drkit.postgres.visibility import map_stretch, newly_visible

if TYPE_CHECKING:
    from drkit.model.owner import Owner
    from drkit.postgres.detection import Detection, FilePlan
    from drkit.postgres.exclusions import RelationFile
    from drkit.postgres.scan import FoundFile
    from drkit.protocols import Progress

_REREADS = 3
_PAUSE = 0.05  # seconds; a torn read is of a write that ends within that


class Comparing:
    """Compares with one parent; used by several threads.

    Args:
        owner: whom root acts as to open files.

    Attributes:
        alarms: what audits found, for the manifest.
    """

    def __init__(
        self,
        detection: Detection,
        start_lsn: int,
        progress: Progress,
        owner: Owner | None,
    ) -> None:
        self.alarms: list[str] = []
        self._detection = detection
        self._parent = detection.parent
        self._changed_from = detection.since if detection.changed is None else start_lsn
        self._by_summaries = detection.changed is not None
        self._start_lsn = start_lsn
        self._progress = progress
        self._owner = owner
        self._lock = threading.Lock()

    def same_content(self, descriptor: int, file: FoundFile, plan: FilePlan) -> bool:
        """Say whether a file holds, byte by byte, what the parent stored of it."""
        chain = self._parent.chain
        if file.size != chain.files["size"][plan.number]:
            return False
        if self._parent.damaged(plan.number):
            return False
        place, position = os.fsdecode(file.place), 0
        for piece in chain.pieces_of(plan.number):
            if piece["position"] != position:
                return False  # a hole in what was stored
            data = memoryview(bytearray(int(piece["length"])))
            if read_full(place, descriptor, data, position) < len(data):
                return False
            if not self._parent.unchanged(piece, data):
                return False
            position += len(data)
        return position == file.size

    def with_visible(
        self, file: FoundFile, plan: FilePlan, start: int, end: int
    ) -> FilePlan:
        """Add the pages of a stretch that became all visible to those that are stored.

        See `drkit.postgres.visibility`; with page checksums their LSNs tell.
        """
        relation, server = relation_file(file.path), self._parent.chain.head.server
        if relation is None or server.data_checksums or start == end:
            return plan
        offset = relation.segment * server.relation_segment_size
        first, behind = offset + start // PAGE, offset + end // PAGE
        position, length = map_stretch(first, behind)
        with acting_as(self._owner):
            new = _read_map(file, relation, position, length)
        old = self._old_map(file.path, relation, position, length) if new else b""
        blocks = newly_visible(old, new, first, behind, self._detection.since) - offset
        return plan._replace(blocks=np.union1d(plan.blocks, blocks))

    def _old_map(
        self, path: bytes, relation: RelationFile, position: int, length: int
    ) -> bytes:
        """Fetch a stretch of the parent's visibility map; nothing if it is lost."""
        number = self._parent.chain.find(relation.beside(path, b"_vm"))
        if number is None or self._parent.damaged(number):
            return b""
        try:
            return self._parent.read(number, position, length)
        except Corrupt:
            return b""

    def passes_audit(self, descriptor: int, file: FoundFile, plan: FilePlan) -> bool:
        """Compare the pages that are about to be left to the parent with its own.

        One that differs in more than hints is an alarm: its change was not detected.
        """
        try:
            wrong = self._undetected(descriptor, file, plan)
        except Corrupt as error:
            self._alarm(
                f"{os.fsdecode(file.path)} could not be compared with the backup "
                f"before ({error.message}); it was stored whole"
            )
            return False
        if not wrong:
            return True
        pages = ", ".join(map(str, wrong[:5])) + (", …" if wrong[5:] else "")
        self._alarm(
            f"{os.fsdecode(file.path)} changed without a trace at page {pages}: "
            "it was stored whole; something wrote to it behind PostgreSQL's back, or "
            "the backup before is wrong"
        )
        return False

    def _undetected(
        self, descriptor: int, file: FoundFile, plan: FilePlan
    ) -> list[int]:
        place, wrong = os.fsdecode(file.place), []
        stored = set(plan.blocks.tolist())
        for piece in self._parent.chain.pieces_of(plan.number):
            start = int(piece["position"])
            end = min(start + int(piece["length"]), plan.kept)
            data = memoryview(bytearray(max(end - start, 0)))
            if read_full(place, descriptor, data, start) < len(data):
                break  # truncated meanwhile
            if not data or self._parent.unchanged(piece, data):
                continue
            old = self._parent.read(plan.number, start, len(data))
            for at in _differing(old, data):
                block = start // PAGE + at
                if block not in stored and self._differs(
                    place, descriptor, block, old[at * PAGE : (at + 1) * PAGE]
                ):
                    wrong.append(block)
        return wrong

    def _differs(self, place: str, descriptor: int, block: int, old: bytes) -> bool:
        """Say whether a page differs though nothing says that it has changed."""
        page = memoryview(bytearray(PAGE))
        for _ in range(_REREADS):
            if read_full(place, descriptor, page, block * PAGE) < PAGE:
                return False  # truncated meanwhile
            lsn = page_lsn(page)
            if lsn >= self._changed_from or (not self._by_summaries and lsn == 0):
                return False
            if same_but_hints(old, bytes(page)):
                return False
            time.sleep(_PAUSE)
        return True

    def _alarm(self, message: str) -> None:
        with self._lock:
            self.alarms.append(message)
        self._progress.warning(message)


def _read_map(
    file: FoundFile, relation: RelationFile, position: int, length: int
) -> bytes:
    """Read a stretch of a table's visibility map, as far as there is one."""
    path = relation.beside(file.place, b"_vm")
    try:
        descriptor = open_below(file.root, path)
    except (FileNotFoundError, NotRegular):
        return b""
    except OSError as error:
        raise unreadable(os.fsdecode(path), position, error) from error
    try:
        into = memoryview(bytearray(length))
        count = read_full(os.fsdecode(path), descriptor, into, position)
        return bytes(into[:count])
    finally:
        os.close(descriptor)


def _differing(old: bytes, new: memoryview) -> list[int]:
    """Return the pages, counted here, in which two stretches differ."""
    length = len(new) // PAGE * PAGE
    one = np.frombuffer(old, np.uint64, length // 8).reshape(-1, PAGE // 8)
    other = np.frombuffer(new, np.uint64, length // 8).reshape(-1, PAGE // 8)
    found: list[int] = np.flatnonzero((one != other).any(axis=1)).tolist()
    return found
