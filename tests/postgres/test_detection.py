"""What an incremental backup reads of each file: the rules, one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pytest

from drkit.model.changes import NO_LIMIT, PLACE_SHIFT, Relation, Summary, unite
from drkit.model.manifest import (
    DAMAGED,
    FILE,
    FRAME,
    PACK,
    RUN,
    FileKind,
    Manifest,
    empty,
)
from drkit.model.page import PAGE
from drkit.model.pagemap import Chain
from drkit.postgres.detection import Detection, FilePlan, How, stretches
from drkit.postgres.scan import FoundFile
from tests.builders import manifest_head, rows_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from drkit.model.changes import ChangedBlocks
    from drkit.model.manifest import Row

SEGMENT = 131072
DATABASE = b"base/5/PG_VERSION"
TABLE = b"base/5/1000"


class Was(NamedTuple):
    """A file of the parent."""

    size: int
    identity: int = 7
    kind: FileKind = FileKind.FILE


class Parent:
    """A backup to compare with: sizes, identities, and what is damaged."""

    def __init__(
        self,
        files: dict[bytes, Was],
        lost: dict[bytes, list[tuple[int, int]]] | None = None,
    ) -> None:
        paths = sorted(files)
        rows = [
            (files[path].kind, 0o600, files[path].size, 0, files[path].identity, 0, 0)
            for path in paths
        ]
        manifest = Manifest(
            manifest_head(),
            paths,
            rows_of(FILE, *rows),
            *map(empty, (PACK, FRAME, RUN, DAMAGED)),
        )
        self._chain = Chain((manifest,))
        self._lost = lost or {}

    @property
    def chain(self) -> Chain:
        return self._chain

    def unchanged(self, piece: Row, data: object) -> bool:
        raise AssertionError("planning compares nothing")

    def read(self, number: int, position: int, length: int) -> bytes:
        raise AssertionError("planning reads nothing")

    def damaged(self, number: int) -> Sequence[tuple[int, int]]:
        return self._lost.get(self._chain.paths[number], [])


def now(
    path: bytes, size: int, identity: int = 7, kind: FileKind = FileKind.FILE
) -> FoundFile:
    return FoundFile(path, b"/data/" + path, b"/data", kind, 0o600, size, 0, identity)


def plan(
    file: FoundFile,
    was: Was | None,
    changed: ChangedBlocks | None = None,
    lost: dict[bytes, list[tuple[int, int]]] | None = None,
    *,
    audit: bool = False,
) -> FilePlan:
    """How one file is read; its database is the parent's."""
    files = {DATABASE: Was(3)} | ({file.path: was} if was else {})
    found = [now(DATABASE, 3), file]
    detection = Detection(Parent(files, lost), changed, lambda _: audit)
    return detection.plans(found)[1]


def summary(*blocks: int, limit: int = NO_LIMIT, relation: int = 1000) -> ChangedBlocks:
    """What changed, of one relation of database 5."""
    return unite(
        [
            Summary(
                [Relation(1663, 5, relation)],
                np.array([limit], dtype=np.uint32),
                np.array([0 << PLACE_SHIFT | block for block in blocks], np.int64),
            )
        ],
        SEGMENT,
    )


# -- whatever tells what changed

SAME = Was(4 * PAGE)
EITHER = [
    ("new", now(TABLE, 4 * PAGE), None, How.WHOLE),
    ("was a directory", now(TABLE, PAGE), Was(0, 0, FileKind.DIRECTORY), How.WHOLE),
    ("was an attachment", now(TABLE, 9), Was(9, 0, FileKind.ATTACHMENT), How.WHOLE),
    (
        "is a directory",
        now(b"base/5", 0, 0, FileKind.DIRECTORY),
        Was(0, 0, FileKind.DIRECTORY),
        How.WHOLE,
    ),
    ("part of a page now", now(TABLE, 4 * PAGE + 512), SAME, How.WHOLE),
    ("part of a page then", now(TABLE, 4 * PAGE), Was(4 * PAGE + 1), How.WHOLE),
    ("visibility map", now(TABLE + b"_vm", PAGE), Was(PAGE), How.CONTENT),
    ("free space map", now(TABLE + b"_fsm", PAGE), Was(PAGE), How.CONTENT),
    ("init fork", now(TABLE + b"_init", PAGE), Was(PAGE), How.CONTENT),
    ("its second file", now(TABLE + b"_vm.1", PAGE), Was(PAGE), How.CONTENT),
    ("relation map", now(b"base/5/pg_filenode.map", 512), Was(512), How.CONTENT),
    ("transaction status", now(b"pg_xact/0000", PAGE), Was(PAGE), How.CONTENT),
    ("multixacts", now(b"pg_multixact/members/0000", PAGE), SAME, How.CONTENT),
    ("configuration", now(b"postgresql.conf", 900), Was(900, 3), How.CONTENT),
    ("named as a relation", now(b"somewhere/1000", PAGE), Was(PAGE), How.CONTENT),
]


@pytest.mark.parametrize("summaries", [True, False], ids=["summaries", "lsn"])
@pytest.mark.parametrize("case", EITHER, ids=lambda case: case[0])
def test_rules_for_any_server(
    case: tuple[str, FoundFile, Was | None, How], summaries: bool
) -> None:
    _, file, was, how = case
    changed = summary(1) if summaries else None
    found = plan(file, was, changed)
    assert (found.how, found.kept) == (how, 0)
    assert not found.audit


# -- by the pages' LSNs


@pytest.mark.parametrize(
    ("size", "before", "kept"),
    [(4, 4, 4), (6, 4, 4), (2, 4, 2), (0, 4, 0), (4, 0, 0), (0, 0, 0)],
)
def test_pages_up_to_the_shorter_length_may_be_kept(
    size: int, before: int, kept: int
) -> None:
    found = plan(now(TABLE, size * PAGE), Was(before * PAGE))
    assert (found.how, found.kept) == (How.SCAN, kept * PAGE)
    assert found.blocks.tolist() == []


@pytest.mark.parametrize(
    "path",
    [TABLE, TABLE + b".3", b"global/1262", b"pg_tblspc/16385/PG_15_202209061/5/1000"],
)
def test_main_forks_are_scanned_wherever_they_are(path: bytes) -> None:
    assert plan(now(path, PAGE), Was(PAGE)).how is How.SCAN


def test_another_file_of_the_same_name_is_stored_whole() -> None:
    assert plan(now(TABLE, 4 * PAGE, 8), Was(4 * PAGE, 7)).how is How.WHOLE
    assert plan(now(TABLE, 4 * PAGE, 8), Was(4 * PAGE, 0)).how is How.WHOLE


@pytest.mark.parametrize("was", [None, Was(3, 6)])
def test_a_database_that_is_another_is_stored_whole(was: Was | None) -> None:
    """Pages that CREATE DATABASE copied have the LSNs of where they came from."""
    fork, elsewhere = TABLE + b"_vm", b"base/6/1000"
    parent = {
        TABLE: SAME,
        fork: Was(PAGE),
        elsewhere: SAME,
        b"base/6/PG_VERSION": Was(3),
    }
    parent |= {DATABASE: was} if was else {}
    found = [
        now(DATABASE, 3),
        now(TABLE, 4 * PAGE),
        now(fork, PAGE),
        now(b"base/6/PG_VERSION", 3),
        now(elsewhere, 4 * PAGE),
    ]
    plans = Detection(Parent(parent), None, lambda _: False).plans(found)
    assert [one.how for one in plans[1:]] == [
        How.WHOLE, How.CONTENT, How.CONTENT, How.SCAN
    ]  # fmt: skip


def test_what_is_damaged_in_the_parent_is_stored_again_by_lsn() -> None:
    lost = {TABLE: [(0, PAGE), (2 * PAGE + 5, 3 * PAGE + 1)]}
    found = plan(now(TABLE, 4 * PAGE), SAME, None, lost)
    assert found.blocks.tolist() == [0, 2, 3]


# -- by WAL summaries


def blocks(found: FilePlan) -> tuple[How, int, list[int]]:
    return found.how, found.kept // PAGE, found.blocks.tolist()


def test_only_the_blocks_that_changed_are_read() -> None:
    file = now(TABLE, 4 * PAGE)
    assert blocks(plan(file, SAME, summary(1, 3))) == (How.BLOCKS, 4, [1, 3])
    assert blocks(plan(file, SAME, summary(1, relation=9))) == (How.BLOCKS, 4, [])
    assert blocks(plan(file, SAME, summary(1, 4, 99))) == (How.BLOCKS, 4, [1])


def test_blocks_past_the_parents_length_are_all_stored() -> None:
    file = now(TABLE, 6 * PAGE)
    assert blocks(plan(file, SAME, summary())) == (How.BLOCKS, 4, [4, 5])
    assert blocks(plan(file, Was(0), summary(0))) == (
        How.BLOCKS, 0, [0, 1, 2, 3, 4, 5]
    )  # fmt: skip


def test_blocks_past_the_limit_are_all_stored() -> None:
    """Truncated to two blocks meanwhile, and grown again."""
    file = now(TABLE, 6 * PAGE)
    assert blocks(plan(file, SAME, summary(limit=2))) == (
        How.BLOCKS, 2, [2, 3, 4, 5]
    )  # fmt: skip
    shorter = now(TABLE, PAGE)
    assert blocks(plan(shorter, SAME, summary(limit=2))) == (How.BLOCKS, 1, [])


def test_a_relation_made_anew_is_stored_whole() -> None:
    assert plan(now(TABLE, 4 * PAGE), SAME, summary(limit=0)).how is How.WHOLE


def test_a_limit_counts_through_all_files_of_a_relation() -> None:
    third = now(TABLE + b".2", 4 * PAGE)
    changed = summary(2 * SEGMENT + 1, limit=2 * SEGMENT + 3)
    assert blocks(plan(third, SAME, changed)) == (How.BLOCKS, 3, [1, 3])
    changed = summary(limit=2 * SEGMENT)
    assert plan(third, SAME, changed).how is How.WHOLE
    second = now(TABLE + b".1", 4 * PAGE)
    assert blocks(plan(second, SAME, changed)) == (How.BLOCKS, 4, [])


def test_a_database_that_was_copied_is_stored_whole() -> None:
    changed = summary(limit=0, relation=0)
    assert plan(now(TABLE, 4 * PAGE), SAME, changed).how is How.WHOLE


def test_what_is_damaged_in_the_parent_is_stored_again_by_summaries() -> None:
    lost = {TABLE: [(0, PAGE), (3 * PAGE, 9 * PAGE)]}
    found = plan(now(TABLE, 4 * PAGE), SAME, summary(1), lost)
    assert blocks(found) == (How.BLOCKS, 4, [0, 1, 3])


# -- audits, stretches


@pytest.mark.parametrize("changed", [None, summary(1)], ids=["lsn", "summaries"])
def test_a_file_is_audited_in_its_turn(changed: ChangedBlocks | None) -> None:
    file = now(TABLE, 4 * PAGE)
    assert plan(file, SAME, changed, audit=True).audit
    assert not plan(file, SAME, changed).audit
    assert not plan(file, None, changed, audit=True).audit  # it is stored whole


def test_changes_are_sought_from_the_parents_start() -> None:
    """What changed while the parent was taken may be in it, or not."""
    detection = Detection(Parent({}), None, lambda _: False)
    assert detection.since == manifest_head().start.lsn


@pytest.mark.parametrize(
    ("blocks", "expected"),
    [
        ([], []),
        ([5], [(5, 6)]),
        ([0, 1, 2], [(0, 3)]),
        ([0, 2, 3, 9], [(0, 1), (2, 4), (9, 10)]),
    ],
)
def test_neighbours_are_one_stretch(
    blocks: list[int], expected: list[tuple[int, int]]
) -> None:
    assert stretches(np.array(blocks, dtype=np.int64)) == expected
