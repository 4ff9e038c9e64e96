"""Changed blocks: united over stretches of WAL, and told for each file."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drkit.model.changes import NO_LIMIT, PLACE_SHIFT, Relation, Summary, unite

SEGMENT = 10  # blocks; real ones have 131072
RELATIONS = [Relation(1663, 5, 16384), Relation(1664, 0, 1262), Relation(16400, 5, 7)]
DIRECTORIES = [b"base/5/16384", b"global/1262", b"pg_tblspc/16400/PG_18_202506291/5/7"]

Changes = dict[Relation, tuple[int, set[int]]]

changes = st.dictionaries(
    st.sampled_from(RELATIONS),
    st.tuples(
        st.integers(0, 3 * SEGMENT) | st.just(NO_LIMIT),
        st.sets(st.integers(0, 3 * SEGMENT - 1)),
    ),
)


def summary(changes: Changes) -> Summary:
    blocks = [
        place << PLACE_SHIFT | block
        for place, (_, some) in enumerate(changes.values())
        for block in sorted(some, reverse=True)
    ]
    limits = np.array([limit for limit, _ in changes.values()], dtype=np.uint32)
    return Summary(list(changes), limits, np.array(blocks, dtype=np.int64))


@given(st.lists(changes, max_size=4))
def test_a_block_is_told_if_any_stretch_changed_it(stretches: list[Changes]) -> None:
    united = unite(map(summary, stretches), SEGMENT)

    for relation, directory in zip(RELATIONS, DIRECTORIES, strict=True):
        mine = [one[relation] for one in stretches if relation in one]
        limit = min((limit for limit, _ in mine), default=NO_LIMIT)
        expected = {block for _, blocks in mine for block in blocks}
        for segment in range(3):
            suffix = f".{segment}".encode() if segment else b""
            found = united.of(directory + suffix)
            first = segment * SEGMENT
            told = {first + block for block in found.blocks.tolist()}
            assert found.blocks.tolist() == sorted(set(found.blocks.tolist()))
            assert found.whole == (limit <= first)
            if not found.whole:
                assert told == expected & set(range(first, first + SEGMENT))
                past = first + SEGMENT if found.limit is None else first + found.limit
                assert past == min(limit, first + SEGMENT)


def test_a_database_that_was_made_anew_is_whole() -> None:
    made = {Relation(1663, 5, 0): (0, set[int]())}
    united = unite([summary(made), summary({RELATIONS[0]: (NO_LIMIT, {3})})], SEGMENT)

    assert united.of(b"base/5/16384").whole
    assert united.of(b"base/5/16999.2").whole
    assert not united.of(b"base/6/16384").whole
    assert not united.of(b"pg_tblspc/16400/PG_18_202506291/5/7").whole


def test_many_stretches_fold_into_one_without_loss() -> None:
    """More blocks than are kept unsorted, and the same ones again and again."""
    blocks = np.arange(200_000, dtype=np.int64)
    limit = np.array([NO_LIMIT], dtype=np.uint32)
    stretches = [Summary([RELATIONS[0]], limit, blocks + step) for step in range(8)]

    united = unite(stretches, 1 << 20)

    assert united.of(b"base/5/16384").blocks.tolist() == [*range(200_007)]


@pytest.mark.parametrize(
    "path",
    [b"base/5/16384_vm", b"base/5/t3_16384", b"base/5/PG_VERSION", b"pg_xact/0000",
     b"16384", b"base/5/16384.", b"global/5/1", b"base/5/16384\n"],
)  # fmt: skip
def test_paths_of_no_main_fork_are_refused(path: bytes) -> None:
    with pytest.raises(ValueError, match="no file of a relation's main fork"):
        unite([], SEGMENT).of(path)
