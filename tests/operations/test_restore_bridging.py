"""Filling from chains: what is outdated is written over, and newer pages come after it.

Held against the reference, which lays whole files over each other.
"""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drkit.errors import Corrupt
from drkit.operations.bridging import bridge, passes
from drkit.operations.filling import write_files
from drkit.postgres.target_checks import MARKER
from drkit.postgres.target_directory import TargetDirectory
from drkit.repository.chain import read_chain
from drkit.storage.memory import MemoryStorage
from tests.builders import World, back_up
from tests.chains import Changed, back_up_over, laid_over, whole
from tests.operations.backup_tools import Listener

if TYPE_CHECKING:
    from collections.abc import Iterable

    from drkit.model.log import Commit
    from drkit.model.pagemap import PageMap
    from drkit.repository.repository import Repository
    from tests.chains import Files

PAGE = 8192
PATHS = (b"a", b"b", b"c")


def fill(repository: Repository, page_map: PageMap, root: Path, jobs: int = 2) -> int:
    """Fill a directory; return how many bytes were told of."""
    told: list[int] = []
    with closing(TargetDirectory(str(root), {}, None)) as target:
        target.begin()
        write_files(
            repository, page_map, target, Listener(on_advance=told.append), jobs
        )
    return sum(told)


def files_in(root: Path) -> Files:
    return {
        os.fsencode(path.name): path.read_bytes()
        for path in sorted(root.iterdir())
        if path.name != MARKER
    }


def pages(text: bytes, count: int) -> bytes:
    """Content of which no two pages are alike."""
    return b"".join(
        (text + str(number).encode()).ljust(PAGE, b".") for number in range(count)
    )


def chain(
    repository: Repository, *links: Iterable[int], count: int = 200
) -> tuple[Commit, Files]:
    """A full backup of a file of some pages, and an incremental for each set of them.

    Each incremental also brings a file of its own.
    """
    files: Files = {b"big": pages(b"old", count), b"small": b"text"}
    commit = back_up(repository, files)
    for number, places in enumerate(links):
        new = pages(b"new%d-" % number, count)
        size = count * PAGE
        runs = tuple((at * PAGE, new[at * PAGE : (at + 1) * PAGE]) for at in places)
        added = {b"link%d" % number: whole(b"%d" % number)}
        changed = {b"big": Changed(size, size, runs), **added}
        commit = back_up_over(repository, commit, changed)
        files = laid_over(files, changed)
    return commit, files


def of_the_full(page_map: PageMap) -> list[tuple[int, int]]:
    """The first and the last page of each write of the full backup's in `big`."""
    pieces = page_map.pieces_of(0)
    mine = pieces[pieces["layer"] == 0]
    ends = mine["position"] + mine["length"]
    return list(
        zip(
            (mine["position"] // PAGE).tolist(),
            ((ends - 1) // PAGE).tolist(),
            strict=True,
        )
    )


def apart(page_map: PageMap) -> bool:
    """Say whether no two pieces of the same pass overlap."""
    owner = page_map.piece_files()
    for chosen in passes(page_map):
        mine, whose = page_map.pieces[chosen], owner[chosen]
        ends = mine["position"] + mine["length"]
        same = whose[1:] == whose[:-1]
        if (same & (ends[:-1] > mine["position"][1:])).any():
            return False
    return True


def test_small_gaps_are_written_over(tmp_path: Path) -> None:
    repository = World().repository()
    commit, files = chain(repository, range(3, 100, 2), (4, 199), range(150, 158))
    page_map = read_chain(repository, commit)
    bridged = bridge(page_map)
    assert len(of_the_full(page_map)) > 40
    assert of_the_full(bridged) == [(0, 198)]
    newer = page_map.pieces["layer"] != 0
    kept = bridged.pieces["layer"] != 0
    assert (page_map.pieces[newer] == bridged.pieces[kept]).all()
    assert int(bridged.files["runs"].sum()) == len(bridged.pieces)
    told = fill(repository, page_map, tmp_path)
    assert files_in(tmp_path) == files
    assert told == page_map.content_bytes()


def test_large_gaps_and_what_changed_at_the_edges_are_not() -> None:
    repository = World().repository()
    commit, _ = chain(repository, (0, 1, *range(20, 28), *range(60, 69), 199))
    page_map = read_chain(repository, commit)
    assert of_the_full(bridge(page_map)) == [(2, 59), (69, 198)]


def test_each_run_is_written_by_itself(tmp_path: Path) -> None:
    """They lie in different frames, or in one but not side by side."""
    repository = World().repository()
    commit, files = chain(repository, (250, 260), count=300)
    page_map = read_chain(repository, commit)
    assert of_the_full(bridge(page_map)) == [(0, 255), (256, 299)]
    fill(repository, page_map, tmp_path)
    assert files_in(tmp_path) == files


def test_a_hole_is_never_written_over() -> None:
    repository = World().repository()
    commit, _ = chain(repository, (3, 5))
    page_map = read_chain(repository, commit)
    pieces = page_map.pieces
    lacking = np.flatnonzero((pieces["layer"] == 1) & (pieces["position"] == 3 * PAGE))
    page_map.files["runs"][0] -= 1
    holed = replace(page_map, pieces=np.delete(pieces, lacking))
    assert of_the_full(bridge(holed)) == [(0, 2), (4, 199)]


def test_a_full_backup_is_written_in_one_pass() -> None:
    repository = World().repository()
    commit, _ = chain(repository)
    page_map = read_chain(repository, commit)
    bridged = bridge(page_map)
    assert bridged is page_map
    assert [chosen.all() for chosen in passes(bridged)] == [True]


class SlowFull(MemoryStorage):
    """A storage where packs of full backups take their time."""

    def get(
        self,
        name: str,
        offset: int = 0,
        length: int | None = None,
        *,
        limit: int | None = None,
    ) -> bytes:
        if "-full-" in name and "/packs/" in name:
            time.sleep(0.1)
        return super().get(name, offset, length, limit=limit)


def test_newer_pages_wait_for_all_older_ones(tmp_path: Path) -> None:
    repository = World(SlowFull()).repository()
    commit, files = chain(repository, range(10, 100, 3), range(11, 100, 3))
    page_map = read_chain(repository, commit)
    fill(repository, page_map, tmp_path, jobs=4)
    assert files_in(tmp_path) == files


def test_a_lost_pack_of_newer_pages_leaves_the_directory_marked(tmp_path: Path) -> None:
    repository = World().repository()
    commit, _ = chain(repository, range(10, 100, 3))
    page_map = read_chain(repository, commit)
    layout = repository.layout
    repository.storage.delete(layout.pack(commit.backup.label, commit.attempt, 0))
    with pytest.raises(Corrupt, match="is missing"):
        fill(repository, page_map, tmp_path)
    assert (tmp_path / "big").stat().st_size == 200 * PAGE
    assert (tmp_path / MARKER).exists()


# -- at random


@st.composite
def sizes(draw: st.DrawFn) -> int:
    return draw(st.integers(0, 60)) * PAGE + draw(st.sampled_from([0, 0, 9]))


@st.composite
def links(
    draw: st.DrawFn, there: dict[bytes, int]
) -> tuple[dict[bytes, Changed], tuple[bytes, ...]]:
    """Changes of single pages mostly, as updates make them, and truncations."""
    gone = tuple(path for path in there if draw(st.integers(0, 9)) == 0)
    changed = {}
    for path in draw(st.sets(st.sampled_from(PATHS))):
        if path in gone:
            continue
        before = there.get(path, 0)
        size = draw(st.sampled_from([before, before, None])) or draw(sizes())
        kept = draw(st.sampled_from([before, before, None]))
        kept = draw(st.integers(0, before)) if kept is None else kept
        chosen = draw(st.sets(st.integers(0, size // PAGE), max_size=20))
        runs = tuple(
            (at * PAGE, os.urandom(min(PAGE, size - at * PAGE)))
            for at in sorted(chosen)
            if at * PAGE < size
        )
        changed[path] = Changed(size, min(kept, size), runs)
    return changed, gone


@given(st.data(), st.integers(1, 4))
@settings(max_examples=25, deadline=None)
def test_any_chain_fills_a_directory_as_the_reference_does(
    data: st.DataObject, jobs: int
) -> None:
    repository = World().repository()
    files: Files = {path: os.urandom(data.draw(sizes())) for path in PATHS}
    commit = back_up(repository, files)
    for _ in range(data.draw(st.integers(0, 4))):
        there = {path: len(content or b"") for path, content in files.items()}
        changed, gone = data.draw(links(there))
        commit = back_up_over(repository, commit, changed, gone=gone)
        files = laid_over(files, changed, gone)
    page_map = read_chain(repository, commit)
    assert apart(bridge(page_map))
    with tempfile.TemporaryDirectory() as root:
        told = fill(repository, page_map, Path(root), jobs)
        assert files_in(Path(root)) == files
    assert int(page_map.pieces["length"].sum()) <= told <= page_map.content_bytes()
