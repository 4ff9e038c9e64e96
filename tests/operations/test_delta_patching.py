"""Comparing files with a chain of backups, and writing no more than what differs."""

from __future__ import annotations

import os
import tempfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drkit.operations.delta import Patched, differing, patch_files
from drkit.operations.delta_plan import existing_directory
from drkit.postgres.target_checks import MARKER
from drkit.repository.chain import read_chain
from tests.builders import World, back_up
from tests.chains import Changed, back_up_over, laid_over, whole
from tests.operations import badblocks
from tests.operations.backup_tools import Listener

if TYPE_CHECKING:
    from collections.abc import Iterator

    from drkit.model.log import Commit
    from drkit.repository.repository import Repository
    from tests.chains import Files

PAGE = 8192


@dataclass
class Target:
    """A directory that a restore left incomplete, so that it may be overwritten."""

    root: Path

    def fill(self, files: Files) -> None:
        (self.root / MARKER).write_text("{}")
        for path, content in files.items():
            place = self.root / os.fsdecode(path)
            if content is None:
                place.mkdir()
            else:
                place.write_bytes(content)

    def patch(self, repository: Repository, commit: Commit, jobs: int = 2) -> Patched:
        page_map = read_chain(repository, commit)
        with closing(existing_directory(page_map, str(self.root), {}, None)) as target:
            target.begin()
            return patch_files(repository, page_map, target, Listener(), jobs)

    def files(self) -> Files:
        return {
            os.fsencode(path.relative_to(self.root)): path.read_bytes()
            for path in sorted(self.root.rglob("*"))
            if path.is_file() and path.name != MARKER
        }


@pytest.fixture
def target(tmp_path: Path) -> Target:
    return Target(tmp_path)


def pages(text: bytes, count: int) -> bytes:
    """Content of which no two pages are alike."""
    return b"".join(
        (text + str(number).encode()).ljust(PAGE, b".") for number in range(count)
    )


def chain(repository: Repository) -> tuple[Commit, Files]:
    """A full backup and two incrementals that cover parts of its runs."""
    files: Files = {b"big": pages(b"b", 600), b"small": b"text", b"void": b""}
    commit = back_up(repository, files)
    for link, start in enumerate((100, 101)):
        new = pages(b"new%d" % link, 3)
        size = 600 * PAGE
        runs = ((start * PAGE, new), (500 * PAGE, new))
        changed = {b"big": Changed(size, size, runs), b"added": whole(new)}
        commit = back_up_over(repository, commit, changed)
        files = laid_over(files, changed)
    return commit, files


def test_equal_content_is_neither_fetched_nor_written(target: Target) -> None:
    repository = World().repository()
    files: Files = {b"big": pages(b"b", 600), b"small": b"text", b"void": b""}
    commit = back_up(repository, files)
    target.fill(files)
    found = target.patch(repository, commit)
    assert (found.kept_bytes, found.written_bytes) == (600 * PAGE + 4, 0)
    assert (found.fetched_bytes, found.files, found.deleted_files) == (0, 3, 0)


def test_of_runs_that_an_incremental_cuts_only_blocks_are_written(
    target: Target,
) -> None:
    repository = World().repository()
    commit, files = chain(repository)
    target.fill(files)
    with (target.root / "big").open("r+b") as file:
        file.seek(200 * PAGE + 7)
        file.write(b"?")
    found = target.patch(repository, commit)
    assert target.files() == files
    assert found.written_bytes == PAGE
    assert found.kept_bytes == 603 * PAGE - PAGE + 4
    assert found.fetched_bytes > 0


def test_nothing_there_is_everything_written(target: Target) -> None:
    repository = World().repository()
    commit, files = chain(repository)
    target.fill({b"other": b"x", b"another": b"y"})
    found = target.patch(repository, commit)
    assert target.files() == files
    assert (found.kept_bytes, found.deleted_files) == (0, 2)


def test_holes_are_made_zeros(target: Target) -> None:
    repository = World().repository()
    commit = back_up(repository, {b"a": pages(b"a", 4)})
    runs = ((2 * PAGE, pages(b"r", 1)),)
    changed = {b"a": Changed(6 * PAGE, PAGE, runs), b"b": Changed(700 * PAGE)}
    commit = back_up_over(repository, commit, changed)
    target.fill({b"a": b"\xff" * 9 * PAGE, b"b": b"\0" * 50 * PAGE + b"\xff"})
    target.patch(repository, commit)
    expected = pages(b"a", 1) + bytes(PAGE) + pages(b"r", 1) + bytes(3 * PAGE)
    assert target.files() == {b"a": expected, b"b": bytes(700 * PAGE)}


def test_blocks_that_cannot_be_read_are_written(target: Target) -> None:
    repository = World().repository()
    commit, files = chain(repository)
    target.fill(files)
    with (target.root / "big").open("r+b") as file:
        file.truncate(599 * PAGE)
        file.write(b"?")
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            badblocks.fail_reads_from(300 * PAGE)
            found = target.patch(repository, commit)
            # the pieces from page 500 on, and the page that differs
            code = 0 if found.written_bytes == 101 * PAGE else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert target.files() == files


# -- at random


def contents() -> st.SearchStrategy[bytes]:
    """Small alphabets and whole blocks, so that chance makes equal stretches too."""
    return st.lists(
        st.tuples(st.sampled_from(b"\0ab"), st.sampled_from([1, 100, PAGE, 3 * PAGE])),
        max_size=4,
    ).map(lambda parts: b"".join(bytes([byte]) * count for byte, count in parts))


@st.composite
def changes(draw: st.DrawFn, before: Files) -> dict[bytes, Changed]:
    found = {}
    for path in draw(st.sets(st.sampled_from([b"a", b"b", b"c"]), min_size=1)):
        runs, position = [], 0
        for content in filter(None, draw(st.lists(contents(), max_size=2))):
            position += draw(st.sampled_from([0, 5, PAGE]))
            runs.append((position, content))
            position += len(content)
        size = position + draw(st.sampled_from([0, 0, 9, PAGE]))
        kept = draw(st.integers(0, min(size, len(before.get(path) or b""))))
        found[path] = Changed(size, kept, tuple(runs))
    return found


def there() -> st.SearchStrategy[Files]:
    names = st.sampled_from([b"a", b"b", b"c", b"surplus"])
    return st.dictionaries(names, contents(), max_size=4)


@given(st.data(), st.integers(1, 3))
@settings(max_examples=25, deadline=None)
def test_any_directory_becomes_any_backup(data: st.DataObject, jobs: int) -> None:
    repository = World().repository()
    files: Files = {path: data.draw(contents()) for path in (b"a", b"b", b"c")}
    commit = back_up(repository, files)
    for _ in range(data.draw(st.integers(0, 2))):
        changed = data.draw(changes(files))
        commit = back_up_over(repository, commit, changed)
        files = laid_over(files, changed)
    local = {path: files[path] for path in files if data.draw(st.booleans())}
    with tempfile.TemporaryDirectory() as root:
        target = Target(Path(root))
        target.fill(local | data.draw(there()))
        target.patch(repository, commit, jobs)
        assert target.files() == files
        again = target.patch(repository, commit, jobs)
        assert (again.written_bytes, again.deleted_files) == (0, 0)
        assert target.files() == files


@given(st.binary(max_size=3), st.data())
def test_differing_stretches_are_exact(tail: bytes, data: st.DataObject) -> None:
    blocks = data.draw(st.lists(st.booleans(), max_size=6))
    left = b"".join(os.urandom(PAGE) for _ in blocks) + tail
    right = bytearray(left)
    for number, flip in enumerate(blocks):
        at = number * PAGE + data.draw(st.integers(0, PAGE - 1))
        right[at] ^= flip
    expected = [number for number, flip in enumerate(blocks) if flip]
    found = differing(memoryview(left), memoryview(right))
    assert list(numbers(found)) == expected
    flipped = bytes(byte ^ 1 for byte in tail)
    whole_blocks = len(left) - len(tail)
    ends = differing(memoryview(tail), memoryview(flipped))
    assert ends == ([(0, len(tail))] if tail else [])
    assert all(end <= whole_blocks for _, end in found)


def numbers(stretches: list[tuple[int, int]]) -> Iterator[int]:
    for start, end in stretches:
        yield from range(start // PAGE, end // PAGE)
