"""Filling a directory from packs: what was never read is zeros, modes are exact."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from drkit.model.manifest import FileKind
from drkit.model.pagemap import compose
from drkit.operations.filling import write_files
from drkit.postgres.target_checks import MARKER
from drkit.postgres.target_directory import TargetDirectory
from drkit.repository.packing import Packed, PackWriter
from tests.builders import World, begin, manifest_head, manifest_of, packing

if TYPE_CHECKING:
    from pathlib import Path

PAGE = 8192


class Counter:
    """A `Progress` that counts bytes."""

    def __init__(self) -> None:
        self.total = 0

    def phase(self, name: str, total: int | None = None) -> None: ...

    def advance(self, count: int) -> None:
        self.total += count

    def event(self, name: str, **fields: object) -> None: ...

    def warning(self, message: str, **fields: object) -> None: ...


def fill(
    target: Path,
    sizes: dict[bytes, int],
    runs: list[tuple[int, int, bytes]],
    jobs: int,
) -> Counter:
    """Back up runs of (file number, position, content) by two writers; restore them."""
    repository = World().repository()
    dek = repository.keyring.create("backup")
    begun = begin(repository, keys=[("backup", dek.key_id.hex())])
    shared = packing(repository, dek, begun.label, begun.attempt)
    writers = [PackWriter(shared, 8 << 20) for _ in range(2)]
    for turn, (number, position, content) in enumerate(runs):
        writers[turn % 2].add(number, position, content)
    packed = Packed()
    for writer in writers:
        packed.extend(writer.close())
    files = [(path, FileKind.FILE, size) for path, size in sizes.items()]
    head = manifest_head(begun, dek.key_id.hex())
    manifest = manifest_of(head, files, packed, mode=0o640)
    directory = TargetDirectory(str(target), {}, None)
    directory.begin()
    counter = Counter()
    page_map = compose((manifest,))
    write_files(repository, page_map, directory, counter, jobs)
    directory.close()
    return counter


def test_a_file_that_was_cut_and_grew_again_while_it_was_read(tmp_path: Path) -> None:
    """Its middle was never read; recovery writes there, over zeros."""
    first, last = b"a" * PAGE, b"z" * PAGE
    runs = [(0, 0, first), (0, 5 * PAGE, last)]
    for jobs in (1, 4):
        target = tmp_path / str(jobs)
        fill(target, {b"relation": 9 * PAGE}, runs, jobs)
        content = (target / "relation").read_bytes()
        expected = first + bytes(4 * PAGE) + last + bytes(3 * PAGE)
        assert content == expected


def test_a_file_of_which_nothing_could_be_read_has_its_length(tmp_path: Path) -> None:
    target = tmp_path / "made"
    fill(target, {b"empty": 0, b"hole": 3 * PAGE}, [], 2)
    assert (target / "empty").read_bytes() == b""
    assert (target / "hole").read_bytes() == bytes(3 * PAGE)


def test_many_files_in_runs_that_come_in_any_order(tmp_path: Path) -> None:
    """More files than a worker keeps open, each in several runs of both writers."""
    sizes = {f"file{number:03d}".encode(): 3 * PAGE for number in range(150)}
    runs = [
        (number, place * PAGE, bytes([number, place]) * (PAGE // 2))
        for place in (2, 0, 1)
        for number in range(150)
    ]
    target = tmp_path / "made"
    counter = fill(target, sizes, runs, 3)
    assert counter.total == 150 * 3 * PAGE
    for number in range(150):
        pages = [bytes([number, place]) * (PAGE // 2) for place in range(3)]
        path = target / f"file{number:03d}"
        assert path.read_bytes() == b"".join(pages)
        assert path.stat().st_mode & 0o7777 == 0o640
    assert MARKER in os.listdir(target)
