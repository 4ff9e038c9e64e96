from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from drkit.model.manifest import (
    DAMAGED,
    FILE,
    FRAME,
    PACK,
    RUN,
    Manifest,
    empty,
)
from tests.builders import manifest_head, rows_of


def manifest(paths: list[bytes], runs: list[int], packs: list[int]) -> Manifest:
    files = rows_of(FILE, *((1, 0o600, 10 * count, 0, 0, 0, count) for count in runs))
    digest = np.zeros(32, dtype=np.uint8)
    pack_rows = rows_of(PACK, *((100, digest, count) for count in packs))
    return Manifest(
        manifest_head(),
        paths,
        files,
        pack_rows,
        rows_of(FRAME, *((26, 10, 0) for _ in range(sum(packs)))),
        np.zeros(sum(runs), dtype=RUN),
        empty(DAMAGED),
    )


@given(st.sets(st.binary(min_size=1, max_size=4)), st.binary(max_size=4))
def test_a_path_is_found_if_it_is_there(paths: set[bytes], other: bytes) -> None:
    ordered = sorted(paths)
    found = manifest(ordered, [0] * len(ordered), [])
    for number, path in enumerate(ordered):
        assert found.find(path) == number
    assert (found.find(other) is None) == (other not in paths)


@given(st.lists(st.integers(0, 3), max_size=6), st.lists(st.integers(0, 3), max_size=6))
def test_runs_and_frames_know_their_owners(runs: list[int], packs: list[int]) -> None:
    found = manifest([b"%d" % n for n in range(len(runs))], runs, packs)
    owners = [n for n, count in enumerate(runs) for _ in range(count)]
    assert found.run_files().tolist() == owners
    holders = [n for n, count in enumerate(packs) for _ in range(count)]
    assert found.frame_packs().tolist() == holders
    assert found.content_bytes() == 10 * sum(runs)
