from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drkit.model.wal import (
    MAX_SEGMENT_SIZE,
    MIN_SEGMENT_SIZE,
    Segment,
    WalFileKind,
    WalFileName,
    parse_segment,
    segment_at,
    segments_between,
    valid_segment_size,
)

SIZES = st.integers(20, 30).map(lambda power: 1 << power)
TIMELINES = st.integers(1, 2**32 - 1)
MB = 1 << 20


@given(TIMELINES, st.integers(0, 2**64 - 1), SIZES)
def test_a_segments_name_is_read_back(timeline: int, lsn: int, size: int) -> None:
    segment = segment_at(lsn, timeline, size)
    assert parse_segment(segment.name(size), size) == segment
    assert segment.start(size) <= lsn < segment.start(size) + size
    parsed = WalFileName.parse(segment.name(size))
    assert (parsed.kind, parsed.timeline) == (WalFileKind.SEGMENT, timeline)


@given(TIMELINES, st.integers(0, 2**32), SIZES)
def test_names_sort_as_segments_do(timeline: int, number: int, size: int) -> None:
    segment = Segment(timeline, number % (2**64 // size - 1))
    assert segment.name(size) < segment.next().name(size)


def test_names_are_postgresqls() -> None:
    assert Segment(1, 2).name(16 * MB) == "000000010000000000000002"
    assert Segment(10, 256).name(16 * MB) == "0000000A0000000100000000"
    assert Segment(1, 4095).name(1 * MB) == "000000010000000000000FFF"
    assert Segment(1, 4096).name(1 * MB) == "000000010000000100000000"
    assert Segment(1, 5).name(1024 * MB) == "000000010000000100000001"


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("000000010000000000000100", 16 * MB),
        ("000000010000000000000004", 1024 * MB),
        ("000000000000000000000001", 16 * MB),
        ("00000001000000000000000g", 16 * MB),
        ("00000001000000000000000a", 16 * MB),
        ("00000001000000000000001", 16 * MB),
        ("000000010000000000000001\n", 16 * MB),
        ("000000010000000000000001.partial", 16 * MB),
    ],
)
def test_what_no_segment_is_called_is_refused(name: str, size: int) -> None:
    with pytest.raises(ValueError, match="WAL segment"):
        parse_segment(name, size)


@pytest.mark.parametrize(
    ("name", "kind", "timeline"),
    [
        ("0000000A00000001000000FF", WalFileKind.SEGMENT, 10),
        ("0000000A00000001000000FF.partial", WalFileKind.PARTIAL, 10),
        ("0000000A00000001000000FF.00000028.backup", WalFileKind.BACKUP, 10),
        ("0000000B.history", WalFileKind.HISTORY, 11),
    ],
)
def test_names_that_are_archived(name: str, kind: WalFileKind, timeline: int) -> None:
    assert WalFileName.parse(name) == WalFileName(name, kind, timeline)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "../000000010000000000000001",
        "archive_status",
        "0000000B.history.partial",
        "0000000b.history",
        "000000010000000000000001.backup",
        "000000010000000000000001.partial.partial",
        "000000010000000000000001.00000028.backup\n",
        "RECOVERYXLOG",
    ],
)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no name of a WAL file"):
        WalFileName.parse(name)


@given(st.integers(0, 2**45), st.integers(0, 200 * MB), SIZES)
def test_segments_between_hold_every_byte_and_no_more(
    start: int, length: int, size: int
) -> None:
    needed = list(segments_between(start, start + length, 1, size))
    assert needed[0].start(size) <= start
    assert needed[-1].start(size) + size >= start + length
    assert [one.number for one in needed] == list(
        range(start // size, start // size + len(needed))
    )
    if length:
        assert needed[-1].start(size) < start + length


def test_a_stop_on_a_boundary_does_not_need_the_next_segment() -> None:
    assert list(segments_between(MB, 2 * MB, 3, MB)) == [Segment(3, 1)]
    assert list(segments_between(MB, 2 * MB + 1, 3, MB))[-1] == Segment(3, 2)


def test_segment_sizes_are_powers_of_two_from_1_mb_to_1_gb() -> None:
    right = [1 << power for power in range(20, 31)]
    assert all(map(valid_segment_size, right))
    wrong = [0, -MB, MIN_SEGMENT_SIZE - 1, 3 * MB, MIN_SEGMENT_SIZE // 2]
    assert not any(map(valid_segment_size, [*wrong, MAX_SEGMENT_SIZE * 2]))
