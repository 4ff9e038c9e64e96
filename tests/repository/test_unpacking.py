"""What reading packs fetches: what is needed, once, and little else."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pytest

from drkit.repository.chain import read_chain
from drkit.repository.codec import FRAME_BYTES
from drkit.repository.unpacking import Pack, PackReader
from tests.builders import World, back_up
from tests.chains import Changed, back_up_over, laid_over, read_files

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from drkit.model.log import Commit
    from drkit.model.objects import ObjectInfo
    from drkit.model.pagemap import PageMap
    from drkit.protocols import Buffer, Storage
    from drkit.repository.repository import Repository
    from tests.chains import Files

PAGE = 8192
HEADER = 96
FRAMES = 10
BIG = os.urandom(FRAMES * FRAME_BYTES)  # does not compress: a frame stores 2 MiB


@dataclass
class Counting:
    """A storage that notes which ranges of packs were asked for."""

    inner: Storage
    ranges: list[tuple[str, int, int | None]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return self.inner.url

    def put(self, name: str, data: Buffer) -> None:
        self.inner.put(name, data)

    def get(
        self,
        name: str,
        offset: int = 0,
        length: int | None = None,
        *,
        limit: int | None = None,
    ) -> bytes:
        if "/packs/" in name:
            self.ranges.append((name, offset, length))
        return self.inner.get(name, offset, length, limit=limit)

    def size(self, name: str) -> int:
        return self.inner.size(name)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return self.inner.list(prefix)

    def delete(self, name: str) -> None:
        self.inner.delete(name)

    def hidden(self, prefix: str) -> Sequence[str] | None:
        return self.inner.hidden(prefix)

    def beneath(self, name: str, length: int) -> Sequence[bytes]:
        return self.inner.beneath(name, length)

    def fetched(self) -> int:
        """Bytes of packs that were read."""
        return sum(length or 0 for _, _, length in self.ranges)


@dataclass
class Scene:
    """A full backup of one big file in one pack, and an incremental over it."""

    storage: Counting
    repository: Repository
    full: Commit
    page_map: PageMap
    files: Files


def scene(*kept_frames: int) -> Scene:
    """Of the full backup only these frames are still needed."""
    storage = Counting(World().storage)
    repository = World(storage).repository()
    files: Files = {b"big": BIG, b"small": b"x" * 100}
    full = commit = back_up(repository, files, pack_size=64 << 20)
    if len(kept_frames) < FRAMES:
        runs = tuple(
            (frame * FRAME_BYTES, bytes([frame]) * FRAME_BYTES)
            for frame in range(FRAMES)
            if frame not in kept_frames
        )
        changed = {b"big": Changed(len(BIG), len(BIG), runs)}
        commit = back_up_over(repository, full, changed)
        files = laid_over(files, changed)
    page_map = read_chain(repository, commit)
    storage.ranges.clear()
    return Scene(storage, repository, full, page_map, files)


def test_a_page_is_read_with_its_frame_and_no_more() -> None:
    made = scene(*range(FRAMES))
    reader = PackReader(made.repository, made.page_map)
    at = 5 * FRAME_BYTES + 3 * PAGE
    assert reader.read(0, at, PAGE) == BIG[at : at + PAGE]
    stored = int(made.page_map.layers[0].frames["stored"][5])
    assert [length for _, _, length in made.storage.ranges] == [HEADER, stored]


def test_nothing_is_fetched_for_a_hole() -> None:
    storage = Counting(World().storage)
    repository = World(storage).repository()
    full = back_up(repository, {b"a": b"x" * PAGE})
    last = back_up_over(repository, full, {b"a": Changed(3 * PAGE, 10)})
    reader = PackReader(repository, read_chain(repository, last))
    storage.ranges.clear()
    assert reader.read(0, 10, 2 * PAGE) == bytes(2 * PAGE)
    assert storage.ranges == []


@pytest.mark.parametrize(
    "kept", [(0,), (9,), (4, 5), (0, 9), (0, 1, 2, 8), tuple(range(9)), ()], ids=str
)
def test_a_restore_fetches_what_is_live(kept: tuple[int, ...]) -> None:
    made = scene(*kept)
    assert read_files(made.repository, made.page_map) == made.files
    layout = made.repository.layout
    name = layout.pack(made.full.backup.label, made.full.attempt, 0)
    ranges = [(at, length) for pack, at, length in made.storage.ranges if pack == name]
    manifest = made.page_map.layers[0]
    # `small` is in the last frame, behind the big file's
    needed = sorted({*kept, len(manifest.frames) - 1})
    stored = manifest.frames["stored"].astype(int)
    size = int(manifest.packs["size"][0])
    if 2 * stored[needed].sum() >= size:
        assert ranges == [(0, size)]
    else:
        assert ranges[0] == (0, HEADER)
        assert sum(length for _, length in ranges[1:]) == stored[needed].sum()
        assert ranges[1:] == sorted(ranges[1:])
    fetched = PackReader(made.repository, made.page_map).fetched_bytes()
    assert made.storage.fetched() == fetched


def test_neighbours_are_asked_for_together() -> None:
    made = scene(3, 4, 5)
    reader = PackReader(made.repository, made.page_map)
    for _ in reader.frames(Pack(0, 0)):
        pass
    lengths = [length for _, _, length in made.storage.ranges]
    assert len(lengths) == 3  # the header, the three, the small file's
    assert lengths[1] == made.page_map.layers[0].frames["stored"][3:6].sum()


def test_what_lies_between_is_read_over_rather_than_asked_for_twice() -> None:
    """Frames that are no longer needed, but small."""
    storage = Counting(World().storage)
    repository = World(storage).repository()
    content = os.urandom(FRAME_BYTES) + bytes(FRAME_BYTES) + os.urandom(FRAME_BYTES)
    files: Files = {b"a": content, b"z": os.urandom(10 * FRAME_BYTES)}
    full = back_up(repository, files, pack_size=64 << 20)
    runs = ((FRAME_BYTES, b"\1" * FRAME_BYTES),)
    changed = {b"a": Changed(len(content), len(content), runs)}
    last = back_up_over(repository, full, changed, gone=(b"z",))
    page_map = read_chain(repository, last)
    storage.ranges.clear()
    assert read_files(repository, page_map) == laid_over(files, changed, (b"z",))
    stored = page_map.layers[0].frames["stored"]
    lengths = [length for name, _, length in storage.ranges if "-full-" in name]
    assert lengths == [HEADER, int(stored[:3].sum())]


def test_each_frame_is_read_once_and_only_if_it_is_needed() -> None:
    made = scene(1, 6)
    reader = PackReader(made.repository, made.page_map)
    seen = []
    for pack in reader.packs():
        for runs, plain in reader.frames(pack):
            assert runs
            seen.append((pack.layer, len(plain)))
    layers = [layer for layer, _ in seen]
    assert layers == sorted(layers)
    assert layers.count(0) == 3  # 1, 6 and the small file's
    assert layers.count(1) == len(made.page_map.layers[1].frames)


def test_packs_that_nothing_needs_are_left_alone() -> None:
    storage = Counting(World().storage)
    repository = World(storage).repository()
    files: Files = {b"%d" % n: os.urandom(3 << 20) for n in range(6)}
    full = back_up(repository, files)  # packs of 8 MB
    gone = tuple(sorted(files))[:-1]
    last = back_up_over(repository, full, {}, gone=gone)
    page_map = read_chain(repository, last)
    packs = PackReader(repository, page_map).packs()
    assert len(page_map.layers[0].packs) > len(packs)
    storage.ranges.clear()
    assert read_files(repository, page_map) == laid_over(files, {}, gone)
    names = {name for name, _, _ in storage.ranges}
    assert len(names) == len(packs)


def test_only_the_pieces_that_are_wanted_are_handed_out() -> None:
    made = scene(*range(FRAMES))
    wanted = np.zeros(len(made.page_map.pieces), dtype=bool)
    wanted[2] = True
    reader = PackReader(made.repository, made.page_map, wanted)
    ((runs, plain),) = [one for pack in reader.packs() for one in reader.frames(pack)]
    ((number, position, offset, length),) = runs
    row = made.page_map.pieces[2]
    assert (number, position, length) == (0, row["position"], row["length"])
    assert plain[offset : offset + length] == BIG[position : position + length]
