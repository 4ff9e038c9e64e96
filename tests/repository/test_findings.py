"""Findings: what one verification tells the next backup."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drkit.errors import Corrupt
from drkit.repository.findings import (
    DamagedPack,
    damaged_frames,
    read_findings,
    stretches,
    write_findings,
)
from tests.builders import World, replace_object
from tests.faults import FaultyStorage

ONE, OTHER = "1" * 32, "2" * 32
FIRST = DamagedPack("20260115-103000-full", ONE, 0, ((0, 2), (5, 5)), ("a", "b"))
SECOND = DamagedPack("20260116-103000-full", OTHER, 3, ((7, 7),))


def test_what_is_written_is_read_by_another_host() -> None:
    world = World()
    name = write_findings(world.repository(), [FIRST, SECOND], ["alpha/wal/x"])
    assert name.startswith("alpha/findings/20260115-103000-")
    other = world.repository(host="host-b")
    other.backups()
    (found,) = read_findings(other)
    assert found == (name, (FIRST, SECOND), ("alpha/wal/x",))
    assert damaged_frames(other) == {ONE: {0, 1, 2, 5}, OTHER: {7}}


def test_findings_add_up() -> None:
    repository = World().repository()
    assert damaged_frames(repository) == {}
    write_findings(repository, [FIRST])
    write_findings(repository, [FIRST._replace(frames=((9, 10),)), SECOND])
    assert damaged_frames(repository) == {ONE: {0, 1, 2, 5, 9, 10}, OTHER: {7}}


def test_damaged_findings_are_an_error() -> None:
    world = World()
    repository = world.repository()
    name = write_findings(repository, [FIRST])
    data = bytearray(world.storage.get(name))
    data[len(data) // 2] ^= 1
    replace_object(world.storage, name, bytes(data))
    with pytest.raises(Corrupt, match=name):
        damaged_frames(repository)


def test_findings_under_another_name_are_refused() -> None:
    """An old one, put back under a new name, would claim to be news."""
    world = World()
    repository = world.repository()
    data = world.storage.get(write_findings(repository, [FIRST]))
    world.storage.put(repository.layout.finding("20270101-000000", "f" * 32), data)
    with pytest.raises(Corrupt, match="20270101"):
        damaged_frames(repository)


@pytest.mark.parametrize("frames", [((3, 2),), ((0, 1 << 40),), ((-1, 0),)])
def test_frames_that_no_pack_has_are_refused(frames: tuple[tuple[int, int]]) -> None:
    repository = World().repository()
    write_findings(repository, [FIRST._replace(frames=frames)])
    with pytest.raises(Corrupt):
        damaged_frames(repository)


def test_findings_that_go_while_they_are_read_are_passed_over() -> None:
    world = World()
    name = write_findings(world.repository(), [FIRST])
    storage = FaultyStorage(world.storage)
    storage.call("get", lambda: world.storage.delete(name), name=name, times=99)
    assert damaged_frames(world.repository(storage=storage)) == {}


@given(st.lists(st.integers(0, 100)))
def test_stretches_hold_exactly_the_numbers(numbers: list[int]) -> None:
    found = stretches(numbers)
    held = [one for first, last in found for one in range(first, last + 1)]
    assert held == sorted(set(numbers))
    assert all(a[1] + 1 < b[0] for a, b in pairwise(found))
