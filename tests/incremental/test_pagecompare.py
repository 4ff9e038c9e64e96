"""The comparison itself: it finds what differs, and minds nothing else."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.incremental.pagecompare import (
    PAGE,
    AccessMethod,
    access_method,
    compare,
    masked,
    relations,
)
from tests.incremental.workload import BETWEEN, SETTINGS, Workload
from tests.pg import copy_tree, versions_under_test

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.operations.scene import Scene

NEWEST = max(versions_under_test())
_MAKE = """
    CREATE TABLE kept AS SELECT g AS n, md5(g::text) AS filler, ARRAY[g, g % 7] AS tags,
        point(g, g) AS place FROM generate_series(1, 3000) AS g;
    CREATE INDEX ON kept (n);
    CREATE INDEX ON kept USING hash (filler);
    CREATE INDEX ON kept USING gin (tags);
    CREATE INDEX ON kept USING gist (place);
    CREATE INDEX ON kept USING spgist (filler);
    CREATE INDEX ON kept USING brin (n) WITH (pages_per_range = 2);
    CREATE SEQUENCE counted;
    CREATE UNLOGGED TABLE unlogged (n int PRIMARY KEY);
    SELECT count(*) FROM kept;
    CHECKPOINT;
"""
_METHODS = {
    "kept": AccessMethod.HEAP,
    "kept_n_idx": AccessMethod.BTREE,
    "kept_filler_idx": AccessMethod.HASH,
    "kept_tags_idx": AccessMethod.GIN,
    "kept_place_idx": AccessMethod.GIST,
    "kept_filler_idx1": AccessMethod.SPGIST,
    "kept_n_idx1": AccessMethod.BRIN,
    "counted": AccessMethod.SEQUENCE,
}


@dataclass
class Stopped:
    """A stopped cluster's directory, a copy of it to spoil, and paths by relation."""

    directory: Path
    copy: Path
    paths: dict[str, str]

    def spoil(self, relation: str, at: int, new: bytes) -> None:
        with (self.copy / self.paths[relation]).open("r+b") as file:
            file.seek(at)
            file.write(new)

    def page(self, relation: str, block: int = 0) -> bytes:
        content = (self.directory / self.paths[relation]).read_bytes()
        return content[block * PAGE : (block + 1) * PAGE]

    def found(self) -> set[tuple[str, int]]:
        """Compare; return the relations and blocks that differ."""
        names = {path: name for name, path in self.paths.items()}
        differences = compare(self.directory, self.copy)
        return {(names.get(one.path, one.path), one.block) for one in differences}


@pytest.fixture(scope="module")
def original(scene: Scene) -> Stopped:
    cluster = scene.factory.make(NEWEST, SETTINGS)
    scene.clusters.append(cluster)
    cluster.psql(_MAKE)
    paths = {name: cluster.sql(_PATH.format(name)) for name in _METHODS}
    paths["unlogged"] = cluster.sql(_PATH.format("unlogged"))
    cluster.stop()
    return Stopped(Path(cluster.data_directory), Path(), paths)


_PATH = "SELECT pg_relation_filepath('{}')"


@pytest.fixture
def stopped(scene: Scene, original: Stopped) -> Stopped:
    copy = scene.directory() / "copy"
    copy_tree(original.directory, copy)
    return Stopped(original.directory, copy, original.paths)


def test_a_copy_is_the_same(stopped: Stopped) -> None:
    assert compare(stopped.directory, stopped.copy) == []
    assert len(relations(stopped.directory)) > 700


def test_a_brin_map_may_lose_entries_and_no_more(stopped: Stopped) -> None:
    """PostgreSQL itself loses them, where it replays a database's copy."""
    index = "kept_n_idx1"
    entries = stopped.page(index, 1)[24:]
    assert any(entries[:6])
    assert any(entries[6:12])
    stopped.spoil(index, PAGE + 24, bytes(6))
    assert stopped.found() == set()
    stopped.spoil(index, PAGE + 24, bytes(12))
    assert stopped.found() == set()
    stopped.spoil(index, PAGE + 24, bytes(6) + entries[6:9] + b"\1" + entries[10:12])
    assert stopped.found() == {(index, 1)}


def test_every_page_tells_its_access_method(original: Stopped) -> None:
    for name, method in _METHODS.items():
        count = (original.directory / original.paths[name]).stat().st_size // PAGE
        pages = [(block, original.page(name, block)) for block in range(count)]
        used = [(block, page) for block, page in pages if any(page)]
        assert {access_method(page, block) for block, page in used} == {method}, name


@pytest.mark.parametrize("relation", [name for name in _METHODS if name != "counted"])
def test_one_byte_of_an_entry_is_found(stopped: Stopped, relation: str) -> None:
    block = 3 if relation == "kept_filler_idx1" else 1
    page = stopped.page(relation, block)
    entry = int.from_bytes(page[24:26], "little") & 0x7FFF
    if relation in ("kept_n_idx1", "kept_tags_idx"):
        entry = 24  # a range map's or a posting tree's page has no line pointers
    at = entry + 2
    stopped.spoil(relation, block * PAGE + at, bytes([page[at] ^ 1]))
    assert stopped.found() == {(relation, block)}


HINTS = {
    "LSN": (0, 8),
    "checksum": (8, 2),
    "page is full": (10, 1),
    "prune xid": (20, 4),
}


@pytest.mark.parametrize("hint", HINTS)
def test_what_every_page_may_differ_in_is_not(stopped: Stopped, hint: str) -> None:
    at, length = HINTS[hint]
    for relation in ("kept", "kept_n_idx", "kept_place_idx"):
        page = stopped.page(relation, 1)
        new = bytes(one ^ 2 for one in page[at : at + length])
        stopped.spoil(relation, PAGE + at, new)
    assert stopped.found() == set()


def test_a_hint_bit_is_no_difference_but_a_lock_is(stopped: Stopped) -> None:
    page = stopped.page("kept", 1)
    infomask = (int.from_bytes(page[24:26], "little") & 0x7FFF) + 20
    assert page[infomask + 1] & 0x01, "the reading set no hint"
    hint = bytes([page[infomask + 1] ^ 0x01])  # HEAP_XMIN_COMMITTED
    stopped.spoil("kept", PAGE + infomask + 1, hint)
    assert stopped.found() == set()
    lock = bytes([page[infomask] ^ 0x40])  # HEAP_XMAX_EXCL_LOCK
    stopped.spoil("kept", PAGE + infomask, lock)
    assert stopped.found() == {("kept", 1)}


def test_a_dead_index_entry_is_no_difference(stopped: Stopped) -> None:
    page = stopped.page("kept_n_idx", 1)
    pointer = int.from_bytes(page[28:32], "little") | 3 << 15
    stopped.spoil("kept_n_idx", PAGE + 28, pointer.to_bytes(4, "little"))
    assert stopped.found() == set()


def test_a_dead_line_pointer_of_a_table_is_one(stopped: Stopped) -> None:
    page = stopped.page("kept", 1)
    pointer = int.from_bytes(page[28:32], "little") | 3 << 15
    stopped.spoil("kept", PAGE + 28, pointer.to_bytes(4, "little"))
    assert stopped.found() == {("kept", 1)}


def test_another_page_of_the_same_file_is_found(stopped: Stopped) -> None:
    stopped.spoil("kept", 2 * PAGE, stopped.page("kept", 1))
    assert stopped.found() == {("kept", 2)}


def test_pages_that_were_never_used_may_be_absent(stopped: Stopped) -> None:
    path = stopped.directory / stopped.paths["kept"]
    size = path.stat().st_size
    try:
        with path.open("ab") as file:
            file.write(bytes(PAGE))
            file.write(_empty_page())
        assert stopped.found() == set()
        assert len(compare(stopped.copy, stopped.directory)) == 1
    finally:
        with path.open("r+b") as file:
            file.truncate(size)


def _empty_page() -> bytes:
    page = bytearray(PAGE)
    page[12:20] = b"\x18\x00\x00\x20\x00\x20\x04\x20"
    return bytes(page)


SPOILING: dict[str, Callable[[Path], object]] = {
    "page": lambda path: os.truncate(path, path.stat().st_size - PAGE),
    "file": lambda path: path.unlink(),
    "half a page": lambda path: os.truncate(path, path.stat().st_size - 100),
}


@pytest.mark.parametrize("what", SPOILING)
def test_what_lacks_is_found(stopped: Stopped, what: str) -> None:
    SPOILING[what](stopped.copy / stopped.paths["kept_n_idx"])
    assert {name for name, _ in stopped.found()} == {"kept_n_idx"}


def test_unlogged_and_extra_files(stopped: Stopped) -> None:
    stopped.spoil("unlogged", 0, b"anything")
    assert stopped.found() == set()
    extra = stopped.paths["kept"] + "9"
    (stopped.copy / extra).write_bytes(bytes(PAGE))
    (stopped.copy / f"{extra}8").write_bytes(b"")  # dropped, not unlinked yet
    (stopped.copy / (stopped.paths["unlogged"] + "_init")).unlink()
    unlogged = stopped.paths["unlogged"]
    assert stopped.found() == {
        (extra, -1),
        (unlogged + "_init", -1),
        ("unlogged", -1),
    }


@given(seed=st.integers(0, 1 << 32))
def test_masking_twice_masks_no_more(original: Stopped, seed: int) -> None:
    chosen = random.Random(seed)
    relation = chosen.choice(list(_METHODS))
    path = original.directory / original.paths[relation]
    block = chosen.randrange(path.stat().st_size // PAGE)
    once = masked(original.page(relation, block), block)
    assert masked(once, block) == once


def test_a_workload_does_all_its_steps(scene: Scene) -> None:
    cluster = scene.factory.make(NEWEST, SETTINGS)
    scene.clusters.append(cluster)
    work = Workload(cluster, random.Random(1), scene.directory())
    work.prepare()
    work.run(BETWEEN)
    assert cluster.sql("SELECT timeline_id FROM pg_control_checkpoint()") == 2
