"""Making manifests: an incremental lists what differs from its parent, and no more."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drkit.model.copied import Copied, CopiedFile
from drkit.model.head import ParentRef
from drkit.model.manifest import FileKind
from drkit.model.pagemap import Chain
from drkit.operations.manifest import make_manifest
from drkit.repository.manifest import decode, encode
from drkit.repository.packing import PackWriter
from tests.builders import World, begin, manifest_head, packing
from tests.chains import read_files

if TYPE_CHECKING:
    from drkit.model.manifest import Manifest
    from drkit.repository.repository import Repository

FILE, DIRECTORY = FileKind.FILE, FileKind.DIRECTORY
Runs = list[tuple[int, int, bytes]]


@dataclass
class Taking:
    """Takes one backup after the other in one repository, without entries' ends."""

    repository: Repository = field(default_factory=lambda: World().repository())

    def take(
        self,
        files: list[CopiedFile | None],
        runs: Runs,
        below: Chain | None = None,
        damaged: tuple[tuple[int, int], ...] = (),
    ) -> Manifest:
        """Store runs (file number, position, content); make the manifest."""
        dek = self.repository.keyring.create("backup")
        begun = begin(self.repository)
        shared = packing(self.repository, dek, begun.label, begun.attempt)
        writer = PackWriter(shared, 8 << 20)
        for number, position, content in runs:
            writer.add(number, position, content)
        parent = ParentRef(below.head.label, "ab" * 32) if below else None
        head = manifest_head(begun, dek.key_id.hex(), parent)
        copied = Copied(files, [], list(damaged), [])
        manifest = make_manifest(head, copied, writer.close(), below)
        return decode("alpha/made", encode(manifest))


def file(path: bytes, size: int, kept: int = 0, **other: int) -> CopiedFile:
    return CopiedFile(path, FILE, 0o600, size, 1000, 7, kept)._replace(**other)


def directory(path: bytes, mode: int = 0o700) -> CopiedFile:
    return CopiedFile(path, DIRECTORY, mode, 0, 1000)


PARENT: list[CopiedFile | None] = [file(b"b", 4), directory(b"d"), file(b"a", 6)]


def parent(taking: Taking) -> Chain:
    full = taking.take(PARENT, [(0, 0, b"bbbb"), (2, 0, b"aaaaaa")])
    assert full.paths == [b"a", b"b", b"d"]
    return Chain((full,))


def listed(*changed: CopiedFile | None, runs: Runs | None = None) -> list[bytes]:
    """The paths that an incremental lists; what is not given is as before."""
    taking = Taking()
    below = parent(taking)
    given = {one.path for one in changed if one is not None}
    same: list[CopiedFile | None] = [
        one._replace(kept=one.size) for one in PARENT if one and one.path not in given
    ]
    return taking.take([*changed, *same], runs or [], below).paths


def test_a_full_lists_everything() -> None:
    assert parent(Taking()).files["kept"].tolist() == [0, 0, 0]


def test_what_is_as_the_parent_has_it_is_left_out() -> None:
    assert listed() == []


def test_a_time_of_change_alone_is_no_difference() -> None:
    assert listed(file(b"a", 6, 6, mtime=9999)) == []


@pytest.mark.parametrize(
    "changed",
    [
        file(b"a", 6, 6, mode=0o640),
        file(b"a", 6, 6, identity=8),
        file(b"a", 5, 5),
        file(b"a", 7, 6),
        file(b"a", 6, 5),
        file(b"a", 6, 0),
        file(b"new", 0, 0),
        directory(b"a"),
        directory(b"d", 0o750),
        directory(b"new"),
    ],
    ids=range(10),
)
def test_what_differs_is_listed(changed: CopiedFile) -> None:
    assert listed(changed) == [changed.path]


def test_what_has_runs_is_listed_though_it_is_as_long_as_before() -> None:
    assert listed(file(b"a", 6, 6), runs=[(0, 2, b"X")]) == [b"a"]


def test_what_is_there_no_more_is_gone() -> None:
    taking = Taking()
    below = parent(taking)
    manifest = taking.take([None, file(b"c", 0), file(b"b", 4, 4)], [], below)
    assert (manifest.paths, manifest.gone) == ([b"c"], (b"a", b"d"))


def test_what_vanished_before_it_was_read_is_gone() -> None:
    taking = Taking()
    below = parent(taking)
    manifest = taking.take([None, None, None], [], below)
    assert (manifest.paths, manifest.gone) == ([], (b"a", b"b", b"d"))


def test_damaged_pages_are_of_the_files_as_they_are_listed() -> None:
    taking = Taking()
    below = parent(taking)
    files = [file(b"z", 6), file(b"a", 6, 6), file(b"b", 4, 4), directory(b"d")]
    runs: Runs = [(0, 0, b"zzzzzz"), (2, 1, b"B")]
    manifest = taking.take([*files], runs, below, ((0, 0), (2, 3)))
    assert manifest.paths == [b"b", b"z"]
    assert manifest.damaged.tolist() == [(1, 0), (0, 3)]


def test_runs_follow_their_files_in_order() -> None:
    taking = Taking()
    runs: Runs = [(1, 3, b"3"), (0, 0, b"b"), (1, 0, b"0"), (2, 0, b"c"), (1, 1, b"1")]
    files = [file(b"b", 4), file(b"a", 4), file(b"c", 4)]
    manifest = taking.take([*files], runs)
    assert manifest.files["runs"].tolist() == [3, 1, 1]
    assert manifest.runs["position"].tolist() == [0, 1, 3, 0, 0]


# -- whole chains


@st.composite
def states(draw: st.DrawFn) -> dict[bytes, bytes]:
    return {
        path: os.urandom(draw(st.integers(0, 12)))
        for path in (b"a", b"b", b"c", b"d")
        if draw(st.booleans())
    }


@given(states(), st.data())
@settings(max_examples=25, deadline=None)
def test_a_chain_holds_what_was_copied(
    state: dict[bytes, bytes], data: st.DataObject
) -> None:
    """Each backup stores what it says that it does not keep."""
    taking, below, layers = Taking(), None, []
    for _ in range(4):
        files, runs = [], []
        before = state
        state = state if below is None else data.draw(states())
        for number, (path, content) in enumerate(state.items()):
            old = before.get(path, b"")
            most = min(len(old), len(content)) if below else 0
            kept = data.draw(st.integers(0, most))
            files.append(file(path, len(content), kept))
            runs += [
                (number, at, content[at : at + 1])
                for at in range(len(content))
                if at >= kept or content[at] != old[at]
            ]
        layers.append(taking.take([*files], runs, below))
        below = Chain(layers)
        assert read_files(taking.repository, below.page_map()) == dict(
            sorted(state.items())
        )


def test_an_idle_chain_lists_nothing_and_is_all_the_fulls() -> None:
    taking = Taking()
    layers = [parent(taking).layers[0]]
    for _ in range(3):
        below = Chain(layers)
        same = [one._replace(kept=one.size) for one in PARENT if one is not None]
        layers.append(taking.take([*same], [], below))
        assert (layers[-1].paths, layers[-1].gone) == ([], ())
    page_map = Chain(layers).page_map()
    assert np.unique(page_map.pieces["layer"]).tolist() == [0]
    assert page_map.head == layers[-1].head
