"""A server's incremental files, against a writer made after their description."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drkit.errors import PostgresRefused
from drkit.postgres.incremental_file import HeaderReader, IncrementalHeader

PAGE = 8192
SEGMENT = 131072
MAGIC = 0xD3AE1F0D
BLOCKS = st.lists(st.integers(0, SEGMENT - 1), unique=True, max_size=4000).map(sorted)


def header_of(
    blocks: list[int],
    truncation: int = 0,
    *,
    magic: int = MAGIC,
    count: int | None = None,
) -> bytes:
    """Write a header as `sendFile` in src/backend/backup/basebackup.c does."""
    stated = len(blocks) if count is None else count
    made = struct.pack("<III", magic, stated, truncation)
    made += b"".join(struct.pack("<I", block) for block in blocks)
    while blocks and len(made) % PAGE:
        made += b"\0"
    return made


def read(header: bytes, size: int, segment: int = SEGMENT) -> IncrementalHeader:
    reader = HeaderReader("base/5/16384", size, segment)
    rest = reader.feed(memoryview(header))
    assert not rest
    assert reader.header is not None
    return reader.header


@given(BLOCKS, st.integers(0, SEGMENT), st.integers(1, 40000))
def test_round_trip(blocks: list[int], truncation: int, chunk: int) -> None:
    header, behind = header_of(blocks, truncation), b"content"
    size = len(header) + len(blocks) * PAGE
    reader = HeaderReader("base/5/16384", size, SEGMENT)
    stream, rest = memoryview(header + behind), b""
    for start in range(0, len(stream), max(chunk, len(stream) // 500)):
        rest += reader.feed(stream[start : start + max(chunk, len(stream) // 500)])
    assert reader.header is not None
    assert rest == behind
    assert reader.header.truncation == truncation
    assert reader.header.blocks.tolist() == blocks
    last = blocks[-1] + 1 if blocks else 0
    assert reader.header.size == max(truncation, last) * PAGE


@given(BLOCKS)
def test_stretches_are_the_blocks_and_never_touch(blocks: list[int]) -> None:
    size = len(header_of(blocks)) + len(blocks) * PAGE
    stretches = read(header_of(blocks), size).stretches()
    numbers = [
        number
        for position, length in stretches
        for number in range(position // PAGE, (position + length) // PAGE)
    ]
    assert numbers == blocks
    ends = [position + length for position, length in stretches]
    starts = [position for position, _ in stretches]
    assert all(end < start for end, start in zip(ends, starts[1:], strict=False))


def test_a_file_without_changes_has_no_padding() -> None:
    header = header_of([], 7)
    assert len(header) == 12
    assert read(header, 12) == IncrementalHeader(7, pytest.approx([]))
    assert read(header, 12).size == 7 * PAGE


@pytest.mark.parametrize(
    ("header", "size", "what"),
    [
        (b"", 11, "too short"),
        (header_of([1], magic=MAGIC + 1), 2 * PAGE, "magic"),
        (
            header_of([1], magic=int.from_bytes(MAGIC.to_bytes(4), "little")),
            16384,
            "mag",
        ),
        (header_of([], count=SEGMENT + 1), 1 << 40, "more blocks"),
        (header_of([], count=0xFFFFFFFF), 1 << 40, "more blocks"),
        (header_of([], SEGMENT + 1), 12, "more blocks"),
        (header_of([], 0xFFFFFFFF), 12, "more blocks"),
        (header_of([1]), 2 * PAGE - 1, "for 1 blocks"),
        (header_of([1]), 3 * PAGE, "for 1 blocks"),
        (header_of([]), PAGE, "for 0 blocks"),
        (header_of([1], count=0), 12 + PAGE, "for 0 blocks"),
        (header_of([2, 1]), 3 * PAGE, "don't ascend"),
        (header_of([1, 1]), 3 * PAGE, "don't ascend"),
        (header_of([SEGMENT]), 2 * PAGE, "past the end"),
        (header_of([0, 0xFFFFFFFF]), 3 * PAGE, "past the end"),
    ],
)
def test_what_no_server_writes_is_refused(header: bytes, size: int, what: str) -> None:
    with pytest.raises(PostgresRefused, match=what) as raised:
        read(header, size)
    assert "base/5/16384" in raised.value.message
    assert raised.value.hint


@given(st.binary(max_size=400), st.integers(0, 1 << 50))
def test_noise_is_refused_or_waited_for(noise: bytes, size: int) -> None:
    try:
        reader = HeaderReader("base/5/16384", size, SEGMENT)
        reader.feed(memoryview(noise))
    except PostgresRefused:
        return
    assert reader.header is None or noise.startswith(struct.pack("<I", MAGIC))
    assert size >= 12


def test_a_header_that_was_announced_takes_no_more_memory_than_a_segment_needs() -> (
    None
):
    reader = HeaderReader("base/5/16384", 12 + 4 + PAGE * 2 - 16, 1)
    reader.feed(memoryview(struct.pack("<III", MAGIC, 1, 0)))
    with pytest.raises(PostgresRefused, match="past the end"):
        reader.feed(memoryview(struct.pack("<I", 1) + bytes(PAGE - 16)))
