"""What an incremental backup reads of each file, and what it leaves to its parent.

The rules, and where they come from, are in docs/repository-format.md, "Page maps".
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from drkit.model.manifest import FileKind
from drkit.model.page import PAGE
from drkit.postgres.exclusions import Fork, holds_relations, relation_file
from drkit.postgres.scan import DATABASE_VERSION

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import numpy.typing as npt

    from drkit.model.changes import ChangedBlocks
    from drkit.postgres.scan import FoundFile
    from drkit.protocols import ParentContent

    Blocks = npt.NDArray[np.int64]


_NONE = np.empty(0, np.int64)


class How(Enum):
    """How a file is read.

    WHOLE: all of it is stored.
    SCAN: all of it is read; pages with a newer LSN are stored.
    BLOCKS: only the pages that are known to have changed are read.
    CONTENT: compared with the parent's, and stored whole if it differs.
    """

    WHOLE = auto()
    SCAN = auto()
    BLOCKS = auto()
    CONTENT = auto()


class FilePlan(NamedTuple):
    """How one file is read.

    Attributes:
        kept: below here, what is not stored is as the parent has it.
        number: the file's in the parent's page map.
        blocks: BLOCKS: all that are stored; SCAN: those stored whatever their LSN.
        audit: whether what is not stored is compared with the parent's too.
    """

    how: How
    kept: int = 0
    number: int = -1
    blocks: Blocks = _NONE
    audit: bool = False


_WHOLE = FilePlan(How.WHOLE)


class Detection:
    """Tells what to read, against one parent.

    Args:
        changed: from WAL summaries; None to go by the pages' LSNs.
        audit: says whether it is a file's turn.
    """

    def __init__(
        self,
        parent: ParentContent,
        changed: ChangedBlocks | None,
        audit: Callable[[bytes], bool],
    ) -> None:
        self.parent = parent
        self.changed = changed
        self.since = parent.chain.head.start.lsn
        self._audit = audit
        self._files = parent.chain.files

    def plans(self, files: Sequence[FoundFile]) -> list[FilePlan]:
        """Return a plan for each file that was found."""
        replaced = self._replaced_databases(files)
        return [self._plan(file, replaced) for file in files]

    def _plan(self, file: FoundFile, replaced: set[bytes]) -> FilePlan:
        number = self._in_parent(file)
        if number is None:
            return _WHOLE
        relation = relation_file(file.path)
        if relation is None or relation.fork is not Fork.MAIN:
            # Clearing a bit of a visibility map, for one, is in no summary.
            return FilePlan(How.CONTENT, number=number)
        before = int(self._files["size"][number])
        if file.size % PAGE or before % PAGE:
            return _WHOLE
        kept = min(before, file.size)
        if self.changed is not None:
            return self._by_summaries(file, number, kept)
        if (
            _database(file.path) in replaced
            or file.identity != self._files["identity"][number]
        ):
            return _WHOLE
        lost = _blocks_of(self.parent.damaged(number))
        return FilePlan(How.SCAN, kept, number, lost, self._audit(file.path))

    def _in_parent(self, file: FoundFile) -> int | None:
        number = self.parent.chain.find(file.path)
        if file.kind is not FileKind.FILE or number is None:
            return None
        return number if self._files["kind"][number] == FileKind.FILE else None

    def _by_summaries(self, file: FoundFile, number: int, kept: int) -> FilePlan:
        assert self.changed is not None
        changes = self.changed.of(file.path)
        if changes.whole:
            return _WHOLE
        if changes.limit is not None:
            kept = min(kept, changes.limit * PAGE)
        end, blocks = file.size // PAGE, _NONE
        damaged = self.parent.damaged(number)
        if len(changes.blocks) or damaged or kept < file.size:  # most files are idle
            added, lost = np.arange(kept // PAGE, end), _blocks_of(damaged)
            changed = changes.blocks[changes.blocks < end]
            blocks = _united(changed, added, lost[lost < end])
        return FilePlan(How.BLOCKS, kept, number, blocks, self._audit(file.path))

    def _replaced_databases(self, files: Iterable[FoundFile]) -> set[bytes]:
        """Return the OIDs of databases that are others than the parent's.

        Their pages may have been copied from another database with their old LSNs, in
        all tablespaces; only the directory in their own has a `PG_VERSION`.
        """
        found = set()
        for file in files:
            directory, _, name = file.path.rpartition(b"/")
            if name != DATABASE_VERSION or not holds_relations(directory):
                continue
            number = self.parent.chain.find(file.path)
            if number is None or self._files["identity"][number] != file.identity:
                found.add(_database(file.path))
        return found


def _database(path: bytes) -> bytes:
    """Return the OID of the database whose directory a file is in, or `global`."""
    return path.rpartition(b"/")[0].rpartition(b"/")[2]


def _blocks_of(stretches: Iterable[tuple[int, int]]) -> Blocks:
    """Return the blocks that stretches of a file, (start, end), lie in."""
    return _united(
        *(np.arange(start // PAGE, -(-end // PAGE)) for start, end in stretches)
    )


def _united(*parts: Blocks) -> Blocks:
    """Return the blocks that are in any of the parts, ascending."""
    filled = [part for part in parts if len(part)]
    if len(filled) <= 1:
        return filled[0] if filled else _NONE
    # many times faster than np.unique
    blocks = np.sort(np.concatenate(filled))
    return blocks[np.concatenate(([True], blocks[1:] != blocks[:-1]))]


def stretches(blocks: Blocks) -> list[tuple[int, int]]:
    """Return ascending blocks as stretches of neighbours, (first, behind the last)."""
    if not len(blocks):
        return []
    breaks = np.flatnonzero(np.diff(blocks) != 1)
    firsts = blocks[np.concatenate(([0], breaks + 1))]
    lasts = blocks[np.concatenate((breaks, [len(blocks) - 1]))]
    return list(zip(firsts.tolist(), (lasts + 1).tolist(), strict=True))
