"""Which blocks of which relations changed between two backups."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Blocks = npt.NDArray[np.int64]
Limits = npt.NDArray[np.uint32]

PLACE_SHIFT = 32  # a block number has 32 bits
NO_LIMIT = 0xFFFFFFFF
"""The limit of a relation that was neither made nor truncated: no block's number."""

_DEFAULT_TABLESPACE, _GLOBAL_TABLESPACE = 1663, 1664
_MAIN_FORK = re.compile(
    rb"(?:global|(?:base|pg_tblspc/(?P<tablespace>\d+)/PG_[^/]+)/(?P<database>\d+))/"
    rb"(?P<number>\d+)(?:\.(?P<segment>\d+))?\Z"
)

NO_BLOCKS: Blocks = np.empty(0, dtype=np.int64)
_FOLD_FROM = 1 << 20  # blocks that are worth the sorting


class Relation(NamedTuple):
    """A relation by its files: OIDs of tablespace and database, and its number.

    A shared relation has database 0. Number 0 stands for all relations of the
    database in the tablespace.
    """

    tablespace: int
    database: int
    number: int

    @property
    def whole_database(self) -> Relation:
        """What stands for all relations beside this one."""
        return self._replace(number=0)


class FileChanges(NamedTuple):
    """What changed in one file of a relation's main fork.

    Attributes:
        whole: nothing of an earlier version is left.
        limit: blocks from here on are none of an earlier version's; None if no block
            of the file is such.
        blocks: those that changed, ascending; they and `limit` count from the file's
            first.
    """

    whole: bool
    limit: int | None
    blocks: Blocks


_WHOLE = FileChanges(whole=True, limit=0, blocks=NO_BLOCKS)
_UNTOUCHED = FileChanges(whole=False, limit=None, blocks=NO_BLOCKS)


class Summary(NamedTuple):
    """What changed in main forks over one stretch of WAL.

    Attributes:
        limits: for each relation the shortest length in blocks that it had meanwhile,
            or NO_LIMIT.
        blocks: place of the relation << PLACE_SHIFT | block, in any order.
    """

    relations: list[Relation]
    limits: Limits
    blocks: Blocks


@dataclass(frozen=True, slots=True, eq=False)
class ChangedBlocks:
    """What changed in the main forks of all relations over many stretches of WAL.

    Attributes:
        places: where in `limits` each relation that changed stands.
        limits: as in `Summary`.
        blocks: as in `Summary`, but ascending and each once.
        segment_blocks: blocks in one file of a large relation.
    """

    places: Mapping[Relation, int]
    limits: Limits
    blocks: Blocks
    segment_blocks: int

    def of(self, path: bytes) -> FileChanges:
        """Return what changed in the file at `path`, which is one of a main fork.

        Raises:
            ValueError: it is another path.
        """
        relation, segment = parse_relation_path(path)
        if relation.whole_database in self.places:
            return _WHOLE
        place = self.places.get(relation)
        if place is None:
            return _UNTOUCHED
        first = segment * self.segment_blocks
        limit = int(self.limits[place])
        if limit <= first:
            return _WHOLE
        within = limit - first if limit < first + self.segment_blocks else None
        return FileChanges(whole=False, limit=within, blocks=self._in(place, first))

    def _in(self, place: int, first: int) -> Blocks:
        start = (place << PLACE_SHIFT) + first
        bounds = np.searchsorted(self.blocks, (start, start + self.segment_blocks))
        return self.blocks[bounds[0] : bounds[1]] - start


def parse_relation_path(path: bytes) -> tuple[Relation, int]:
    """Return which relation's main fork a file is of, and its number there.

    Raises:
        ValueError: it is no such file.
    """
    match = _MAIN_FORK.match(path)
    if match is None:
        raise ValueError(f"{path!r} is no file of a relation's main fork")
    tablespace = int(match["tablespace"] or _DEFAULT_TABLESPACE)
    if match["database"] is None:
        tablespace = _GLOBAL_TABLESPACE
    relation = Relation(tablespace, int(match["database"] or 0), int(match["number"]))
    return relation, int(match["segment"] or 0)


def unite(summaries: Iterable[Summary], segment_blocks: int) -> ChangedBlocks:
    """Return the union of the changed blocks, and the lowest limit of each relation.

    Blocks past a limit stay: they are of the present version, as all past a limit are.
    """
    places: dict[Relation, int] = {}
    limits: list[tuple[Blocks, Limits]] = []
    union, pending, waiting = NO_BLOCKS, [NO_BLOCKS], 0
    for summary in summaries:
        mine = _places(places, summary.relations)
        limits.append((mine, summary.limits))
        pending.append(_moved(summary.blocks, mine))
        waiting += len(summary.blocks)
        if waiting > max(len(union), _FOLD_FROM):
            union, pending, waiting = _fold(union, pending), [], 0
    lowest = _lowest(limits, len(places))
    return ChangedBlocks(places, lowest, _fold(union, pending), segment_blocks)


def _places(places: dict[Relation, int], relations: list[Relation]) -> Blocks:
    """Return where each relation stands, giving places to those that are new."""
    found = [places.setdefault(one, len(places)) for one in relations]
    return np.array(found, dtype=np.int64)


def _moved(blocks: Blocks, places: Blocks) -> Blocks:
    """Return blocks with the places of their relations exchanged for others."""
    moved: Blocks = (places[blocks >> PLACE_SHIFT] << PLACE_SHIFT) | (blocks & NO_LIMIT)
    return moved


def _fold(union: Blocks, pending: list[Blocks]) -> Blocks:
    """Return all blocks, ascending and each once; `np.unique` takes far longer."""
    blocks = np.concatenate((union, *pending))
    blocks.sort()
    first = np.ones(len(blocks), dtype=np.bool_)
    np.not_equal(blocks[1:], blocks[:-1], out=first[1:])
    return blocks[first]


def _lowest(limits: list[tuple[Blocks, Limits]], count: int) -> Limits:
    lowest = np.full(count, NO_LIMIT, dtype=np.uint32)
    for places, values in limits:
        lowest[places] = np.minimum(lowest[places], values)
    return lowest
