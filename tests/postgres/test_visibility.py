"""Which pages became all visible, by two states of a visibility map."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drkit.postgres.visibility import map_stretch, newly_visible

if TYPE_CHECKING:
    from collections.abc import Iterable

PAGE = 8192
BLOCKS = 32672  # what one page of a map tells of
SINCE = 1000


def a_map(visible: Iterable[int], pages: int, lsn: int = SINCE - 1) -> bytes:
    """Make the first pages of a map, as PostgreSQL lays it out."""
    content = bytearray(pages * PAGE)
    for page in range(pages):
        content[page * PAGE + 4 : page * PAGE + 8] = lsn.to_bytes(4, "little")
    for block in visible:
        page, within = divmod(block, BLOCKS)
        content[page * PAGE + 24 + within // 4] |= 1 << within % 4 * 2
    return bytes(content)


blocks = st.sets(st.integers(0, 3 * BLOCKS - 1), max_size=50)


@given(blocks, blocks, st.integers(0, 3 * BLOCKS - 1), st.integers(1, 2 * BLOCKS))
def test_what_was_gained_in_a_stretch(
    old: set[int], new: set[int], first: int, count: int
) -> None:
    behind = min(first + count, 3 * BLOCKS)
    position, length = map_stretch(first, behind)
    parts = [a_map(one, 3)[position : position + length] for one in (old, new)]
    found = newly_visible(parts[0], parts[1], first, behind, SINCE)
    assert found.tolist() == sorted(x for x in new - old if first <= x < behind)


@pytest.mark.parametrize("lsn", [SINCE, SINCE + 1, 1 << 31])
def test_a_map_that_was_written_during_its_backup_proves_nothing(lsn: int) -> None:
    old, new = a_map([1, 2], 1, lsn), a_map([1, 2, 3], 1)
    assert newly_visible(old, new, 0, 10, SINCE).tolist() == [1, 2, 3]
    assert newly_visible(a_map([1, 2], 1), new, 0, 10, SINCE).tolist() == [3]


def test_a_missing_map_shows_nothing() -> None:
    new = a_map([5, BLOCKS + 5], 2)
    assert newly_visible(b"", new, 0, 2 * BLOCKS, SINCE).tolist() == [5, BLOCKS + 5]
    assert newly_visible(new, b"", 0, 2 * BLOCKS, SINCE).tolist() == []


def test_frozen_is_no_more_than_visible() -> None:
    old = bytearray(a_map([5], 1))
    new = bytearray(old)
    new[24 + 1] |= 0b1000  # block 5 is all frozen as well
    assert newly_visible(bytes(old), bytes(new), 0, 100, SINCE).tolist() == []
