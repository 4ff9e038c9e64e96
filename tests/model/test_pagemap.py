"""Page maps against a model that lays whole files over each other, byte by byte."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drkit.model.head import ParentRef
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
from drkit.model.pagemap import FRAME_BITS, Chain, compose
from tests.builders import manifest_head, rows_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from drkit.model.pagemap import PageMap

PARENT = ParentRef("20260115-103000-full", "ab" * 32)
PATHS = [b"a", b"a/b", b"base", b"base/1", b"z"]


@dataclass
class Listed:
    """A file as one layer lists it; runs are (position, content)."""

    size: int = 0
    kept: int = 0
    runs: list[tuple[int, bytes]] = field(default_factory=list)
    kind: FileKind = FileKind.FILE
    mode: int = 0o600


@dataclass
class Layer:
    files: dict[bytes, Listed]
    gone: tuple[bytes, ...] = ()

    def manifest(self, *, full: bool = False) -> Manifest:
        """The layer as a manifest; run n lies in frame n."""
        paths = sorted(self.files)
        listed = [self.files[path] for path in paths]
        rows = [
            (one.kind, one.mode, one.size, 5, 0, one.kept, len(one.runs))
            for one in listed
        ]
        runs = [run for one in listed for run in one.runs]
        table = np.zeros(len(runs), dtype=RUN)
        table["position"] = [position for position, _ in runs]
        table["length"] = [len(content) for _, content in runs]
        table["frame"] = np.arange(len(runs))
        return Manifest(
            manifest_head(parent=None if full else PARENT),
            paths,
            rows_of(FILE, *rows),
            empty(PACK),
            empty(FRAME),
            table,
            empty(DAMAGED),
            self.gone,
        )

    def contents(self) -> list[bytes]:
        """The runs' content in the manifest's order."""
        return [run for path in sorted(self.files) for _, run in self.files[path].runs]


@dataclass
class State:
    """What there is after some layers, by the definition in the format's document."""

    files: dict[bytes, Listed] = field(default_factory=dict)
    contents: dict[bytes, bytes] = field(default_factory=dict)

    def lay(self, layer: Layer) -> None:
        for path in layer.gone:
            del self.files[path], self.contents[path]
        for path, listed in layer.files.items():
            before = self.contents.get(path, b"")
            content = bytearray(listed.size)
            content[: listed.kept] = before[: listed.kept]
            for position, run in listed.runs:
                content[position : position + len(run)] = run
            self.files[path], self.contents[path] = listed, bytes(content)


def laid(layers: Sequence[Layer]) -> PageMap:
    return compose([one.manifest(full=not n) for n, one in enumerate(layers)])


def read(page_map: PageMap, layers: Sequence[Layer]) -> dict[bytes, bytes]:
    """All files, read as the pieces say."""
    stored = [layer.contents() for layer in layers]
    found = {}
    for number, path in enumerate(page_map.paths):
        content = bytearray(int(page_map.files["size"][number]))
        reached = 0
        for position, length, layer, run, offset in page_map.pieces_of(number).tolist():
            assert position >= reached, "pieces overlap or do not ascend"
            reached = position + length
            assert 0 < length <= len(content) - position
            part = stored[layer][run][offset : offset + length]
            assert len(part) == length
            content[position:reached] = part
        found[path] = bytes(content)
    return found


def holds(layers: Sequence[Layer]) -> PageMap:
    """Compose layers, and hold the map against the model."""
    state = State()
    for layer in layers:
        state.lay(layer)
    page_map = laid(layers)
    assert page_map.paths == sorted(state.files)
    assert read(page_map, layers) == state.contents
    expected = [state.files[path] for path in page_map.paths]
    columns = ["kind", "mode", "size", "kept"]
    assert page_map.files[columns].tolist() == [
        (one.kind, one.mode, one.size, 0) for one in expected
    ]
    assert int(page_map.files["runs"].sum()) == len(page_map.pieces)
    return page_map


# -- random chains


@st.composite
def listings(draw: st.DrawFn, before: int, fill: Iterator[int]) -> Listed:
    """A file that may keep up to `before` bytes of its parent's."""
    mode = draw(st.sampled_from([0o600, 0o640]))
    kind = draw(st.sampled_from([FileKind.FILE] * 5 + list(FileKind)))
    if kind is FileKind.DIRECTORY:
        return Listed(kind=kind, mode=mode)
    size = draw(st.integers(0, 24))
    kept = draw(st.integers(0, min(before, size)))
    cuts = sorted(draw(st.sets(st.integers(0, size), max_size=8)))
    runs = [
        (start, bytes(next(fill) for _ in range(end - start)))
        for start, end in itertools.pairwise(cuts)
        if draw(st.booleans())
    ]
    return Listed(size, kept, runs, kind, mode)


@st.composite
def chains(draw: st.DrawFn) -> list[Layer]:
    layers: list[Layer] = []
    there: dict[bytes, int] = {}
    fill = itertools.cycle(range(1, 256))
    for number in range(draw(st.integers(1, 6))):
        gone = [path for path in there if number and draw(st.integers(0, 5)) == 0]
        for path in gone:
            del there[path]
        files = {
            path: draw(listings(there.get(path, 0), fill))
            for path in PATHS
            if path not in gone and draw(st.booleans())
        }
        there |= {path: one.size for path, one in files.items()}
        layers.append(Layer(files, tuple(sorted(gone))))
    return layers


@given(chains())
@settings(max_examples=250, deadline=None)
def test_a_chain_reads_back_as_the_model_lays_it(layers: list[Layer]) -> None:
    holds(layers)


@given(chains())
@settings(max_examples=50, deadline=None)
def test_every_piece_knows_its_file_and_its_frame(layers: list[Layer]) -> None:
    page_map = holds(layers)
    owners = page_map.piece_files().tolist()
    assert owners == [
        number
        for number in range(len(page_map.paths))
        for _ in page_map.pieces_of(number)
    ]
    frames = page_map.piece_frames().tolist()
    rows = page_map.pieces[["layer", "run"]].tolist()
    assert frames == [layer << FRAME_BITS | run for layer, run in rows]
    for place, (layer, run) in enumerate(rows):
        assert place in page_map.pieces_in(layer, [run])
    assert page_map.content_bytes() == int(page_map.files["size"].sum())


@given(chains())
@settings(max_examples=150, deadline=None)
def test_pieces_of_one_file_are_those_of_the_whole_map(layers: list[Layer]) -> None:
    chain = Chain([one.manifest(full=not n) for n, one in enumerate(layers)])
    page_map = laid(layers)
    assert chain.paths == page_map.paths
    for column in ("kind", "mode", "size", "mtime", "identity"):
        assert (chain.files[column] == page_map.files[column]).all()
    for number in range(len(chain.paths)):
        assert chain.pieces_of(number).tolist() == page_map.pieces_of(number).tolist()


# -- the cases that the format's document names


def test_a_full_backup_is_its_own_page_map() -> None:
    full = Layer({b"a": Listed(9, runs=[(0, b"abc"), (6, b"ghi")]), b"z": Listed(2)})
    page_map = holds([full])
    assert page_map.pieces["run"].tolist() == [0, 1]


def test_what_an_incremental_does_not_list_is_the_parents() -> None:
    full = Layer({b"a": Listed(3, runs=[(0, b"abc")])})
    page_map = holds([full, Layer({}), Layer({})])
    assert page_map.pieces["layer"].tolist() == [0]
    assert len(page_map.layers) == 3


def test_a_run_in_the_middle_cuts_its_parents_in_two() -> None:
    full = Layer({b"a": Listed(9, runs=[(0, b"abcdefghi")])})
    page_map = holds([full, Layer({b"a": Listed(9, 9, [(3, b"XYZ")])})])
    rows = page_map.pieces[["position", "length", "layer", "offset"]].tolist()
    assert rows == [(0, 3, 0, 0), (3, 3, 1, 0), (6, 3, 0, 6)]


def test_what_was_cut_off_never_comes_back() -> None:
    full = Layer({b"a": Listed(6, runs=[(0, b"abcdef")])})
    shrunk = Layer({b"a": Listed(2, 2)})
    regrown = Layer({b"a": Listed(6, 2)})
    layers = [full, shrunk, regrown]
    assert read(holds(layers), layers) == {b"a": b"ab\0\0\0\0"}


def test_truncated_and_regrown_between_two_backups_keeps_what_kept_says() -> None:
    full = Layer({b"a": Listed(6, runs=[(0, b"abcdef")])})
    regrown = Layer({b"a": Listed(6, 2, [(4, b"XY")])})
    layers = [full, regrown]
    assert read(holds(layers), layers) == {b"a": b"ab\0\0XY"}


def test_a_path_that_is_gone_and_back_is_another_file() -> None:
    full = Layer({b"a": Listed(3, runs=[(0, b"abc")])})
    gone, back = Layer({}, (b"a",)), Layer({b"a": Listed(3, 0, [(1, b"X")])})
    layers = [full, gone, back]
    assert read(holds(layers), layers) == {b"a": b"\0X\0"}
    assert holds(layers[:2]).paths == []


def test_a_hole_hides_nothing_that_is_kept() -> None:
    full = Layer({b"a": Listed(9, runs=[(0, b"abc"), (6, b"ghi")])})
    layers = [full, Layer({b"a": Listed(9, 9, [(7, b"H")])})]
    assert read(holds(layers), layers) == {b"a": b"abc\0\0\0gHi"}


def test_files_stand_apart_up_to_the_longest_there_may_be() -> None:
    longest = 1 << 40
    full = Layer(
        {
            b"a": Listed(longest, runs=[(0, b"first"), (longest - 3, b"end")]),
            b"z": Listed(3, runs=[(0, b"abc")]),
        }
    )
    layer = Layer({b"a": Listed(longest, longest, [(longest - 1, b"X")])})
    page_map = laid([full, layer])
    columns = ["position", "length", "layer"]
    assert page_map.pieces_of(0)[columns].tolist() == [
        (0, 5, 0),
        (longest - 3, 2, 0),
        (longest - 1, 1, 1),
    ]
    assert page_map.pieces_of(1)[columns].tolist() == [(0, 3, 0)]


# -- what does not fit


def test_what_never_was_can_not_be_gone() -> None:
    full = Layer({b"a": Listed()})
    for layers in (
        [full, Layer({}, (b"z",))],
        [full, Layer({}, (b"a",)), Layer({}, (b"a",))],
    ):
        with pytest.raises(ValueError, match="gone, but never was there"):
            laid(layers)


def test_nothing_is_kept_that_the_parent_has_not() -> None:
    full = Layer({b"a": Listed(3, runs=[(0, b"abc")]), b"base": Listed(kind=2)})
    for layers in (
        [full, Layer({b"a": Listed(9, 4)})],
        [full, Layer({b"z": Listed(9, 1)})],
        [full, Layer({b"base": Listed(9, 1)})],
        [full, Layer({b"a": Listed(2, 2)}), Layer({b"a": Listed(3, 3)})],
        [full, Layer({}, (b"a",)), Layer({b"a": Listed(3, 1)})],
    ):
        with pytest.raises(ValueError, match="keeps more of its parent's"):
            laid(layers)


# -- long chains


def test_a_hundred_layers_of_random_pages() -> None:
    """Against an array that says for each page which layer wrote it last."""
    files, pages, page = 20, 64, 8192
    chance = np.random.default_rng(1)
    last = np.zeros((files, pages), dtype=np.int64)
    full = Layer({b"%03d" % n: Listed(pages * page) for n in range(files)}).manifest(
        full=True
    )
    layers = [_with_runs(full, np.arange(files * pages), page)]
    for number in range(1, 101):
        chosen = np.unique(chance.integers(0, files * pages, 40))
        last.reshape(-1)[chosen] = number
        layer = Layer(
            {b"%03d" % n: Listed(pages * page, pages * page) for n in range(files)}
        ).manifest()
        layers.append(_with_runs(layer, chosen, page))
    page_map = compose(layers)
    assert (
        page_map.pieces["position"].tolist()
        == (page * np.tile(np.arange(pages), files)).tolist()
    )
    assert page_map.pieces["layer"].tolist() == last.reshape(-1).tolist()


def _with_runs(manifest: Manifest, chosen: np.ndarray, page: int) -> Manifest:
    """Give a manifest of files of 64 pages runs of one page each."""
    runs = np.zeros(len(chosen), dtype=RUN)
    runs["position"], runs["length"] = chosen % 64 * page, page
    files = manifest.files.copy()
    files["runs"] = np.bincount(chosen // 64, minlength=len(files))
    return replace(manifest, files=files, runs=runs)
