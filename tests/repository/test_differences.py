"""Pages as differences: what is taken is undone, word by word, page by page."""

from __future__ import annotations

import random
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drkit.crypto.sealing import MAX_CODEC
from drkit.repository.codec import FRAME_BYTES
from drkit.repository.differences import WORD, take, undo
from tests.relations import PAGE, index_pages
from tests.vectors import codecs

WORDS = PAGE // WORD
WIDTHS = range(1, MAX_CODEC + 1)

widths = st.integers(1, MAX_CODEC)


@st.composite
def relations(draw: st.DrawFn) -> bytes:
    """One to five pages: random, all alike, or with a few bytes here and there."""
    count = draw(st.integers(1, 5))
    size = count * PAGE
    kind = draw(st.sampled_from(["random", "sparse", "full", "index"]))
    if kind == "random":
        return random.Random(draw(st.integers(0, 2**32))).randbytes(size)
    if kind == "index":
        return index_pages(count)
    content = bytearray((b"\xff" if kind == "full" else b"\0") * size)
    places = st.dictionaries(st.integers(0, size - 1), st.integers(0, 255), max_size=30)
    for place, value in draw(places).items():
        content[place] = value
    return bytes(content)


def taken(pages: bytes | bytearray | memoryview, width: int, spare: int = 0) -> bytes:
    """Take into a buffer with `spare` words too many, where other things were."""
    into = np.full(len(pages) // WORD + spare, 0x5A5A5A5A, dtype="<u8")
    found = bytes(take(pages, width, into))
    assert (into[len(pages) // WORD :] == 0x5A5A5A5A).all()
    return found


def defined(pages: bytes, width: int) -> bytes:
    """The differences as docs/repository-format.md defines them."""
    made = []
    for at in range(0, len(pages), PAGE):
        words = struct.unpack(f"<{WORDS}Q", pages[at : at + PAGE])
        before = (0,) * width + words
        pairs = zip(words, before, strict=False)
        made += [(word - other) % 2**64 for word, other in pairs]
    return struct.pack(f"<{len(made)}Q", *made)


@given(relations(), widths, st.integers(0, 2000))
def test_pages_come_back(pages: bytes, width: int, spare: int) -> None:
    differences = taken(pages, width, spare)
    assert len(differences) == len(pages)
    assert bytes(undo(differences, width)) == pages


@given(relations(), widths)
def test_any_bytes_are_differences_of_some_pages(given_: bytes, width: int) -> None:
    assert taken(undo(given_, width), width) == given_


@given(relations(), widths)
def test_they_are_what_the_document_says(pages: bytes, width: int) -> None:
    assert taken(pages, width) == defined(pages, width)
    starts = range(0, len(pages), PAGE)
    second = b"".join(codecs.undo(pages[at : at + PAGE], width) for at in starts)
    assert bytes(undo(pages, width)) == second


@pytest.mark.parametrize("count", range(1, 6))
def test_every_width_comes_back(count: int) -> None:
    pages = random.Random(count).randbytes(count * PAGE)
    for width in WIDTHS:
        assert bytes(undo(taken(pages, width), width)) == pages


@pytest.mark.parametrize("width", [2, 5, 127])
def test_a_full_frame_comes_back(width: int) -> None:
    pages = random.Random(width).randbytes(FRAME_BYTES)
    assert bytes(undo(taken(pages, width), width)) == pages


def test_the_example_of_the_document() -> None:
    page = struct.pack("<6Q", 7, 1000, 7, 1001, 9, 998).ljust(PAGE, b"\0")
    words = struct.unpack("<6Q", taken(page, 2)[: 6 * WORD])
    assert words == (7, 1000, 0, 1, 2, 2**64 - 3)


@given(relations(), widths, st.data())
def test_each_page_is_by_itself(pages: bytes, width: int, data: st.DataObject) -> None:
    chosen = data.draw(st.integers(0, len(pages) // PAGE - 1)) * PAGE
    changed = bytearray(pages)
    changed[chosen : chosen + PAGE] = b"\x77" * PAGE
    one, other = taken(pages, width), taken(changed, width)
    for at in range(0, len(pages), PAGE):
        if at != chosen:
            assert one[at : at + PAGE] == other[at : at + PAGE]
    assert bytes(undo(other, width)) == changed


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer_will_do_and_stays_as_it_is(kind: type) -> None:
    pages = index_pages(2)
    given_ = kind(pages)
    differences = taken(given_, 2)
    assert given_ == pages
    assert bytes(undo(kind(differences), 2)) == pages


def test_what_is_undone_is_bytes_of_its_own() -> None:
    """Readers cut it and compare it as they do bytes, and keep it."""
    pages = index_pages(2)
    undone = undo(taken(pages, 2), 2)
    assert (undone.format, undone.ndim, undone.contiguous) == ("B", 1, True)
    assert undone[10 : PAGE + 10] == pages[10 : PAGE + 10]


def test_of_no_pages_there_are_none() -> None:
    assert bytes(undo(b"", 2)) == taken(b"", 2) == b""
