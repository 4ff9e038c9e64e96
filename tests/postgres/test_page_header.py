"""Headers of pages: those of servers are taken, and no others."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drkit.model.page import PAGE
from drkit.postgres.page_header import empty, misshapen

HEADER = struct.Struct("<QHHHHHHI")


def page(
    flags: int = 0,
    lower: int = 24,
    upper: int = 8000,
    special: int = 8192,
    layout: int = PAGE | 4,
    checksum: int = 0x1234,
) -> bytes:
    head = HEADER.pack(77, checksum, flags, lower, upper, special, layout, 0)
    return head + bytes(range(256)) * 31 + bytes(PAGE - len(head) - 256 * 31)


@given(
    st.integers(0, 7),
    st.integers(0, 1023).map(lambda n: n * 8),
    st.data(),
)
def test_what_a_server_may_write(flags: int, special: int, data: st.DataObject) -> None:
    upper = data.draw(st.integers(1, max(special, 8)))
    special = max(special, 8)
    lower = data.draw(st.integers(0, upper))
    assert misshapen(page(flags, lower, upper, special)) == []


WRONG = [
    {"flags": 8},
    {"flags": 0xFFFF},
    {"lower": 8001},
    {"upper": 8193, "special": 8192},
    {"special": 8200},
    {"special": 8190},
    {"special": 7000},
    {"layout": 0},
    {"layout": PAGE | 3},
    {"layout": 16384 | 4},
    {"upper": 0},
]


@pytest.mark.parametrize("fields", WRONG)
def test_what_no_server_writes(fields: dict[str, int]) -> None:
    pages = page() + page(**fields) + bytes(PAGE) + page(**fields) + page()
    assert misshapen(pages) == [1, 3]


def test_empty_pages_are_counted() -> None:
    pages = bytes(PAGE) + page() + bytes(PAGE)
    assert empty(pages) == 2
    assert misshapen(pages) == []
    assert empty(page()) == 0


def test_a_new_page_is_all_zero() -> None:
    dirty = bytearray(PAGE)
    dirty[-1] = 1
    assert misshapen(bytes(dirty)) == [0]
