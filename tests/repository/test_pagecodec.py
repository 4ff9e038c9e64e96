"""Frames of pages: compressed as what they are, smaller where tuples have one width."""

from __future__ import annotations

import random
import tracemalloc
from typing import TYPE_CHECKING

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from drkit.crypto.sealing import MAX_CODEC
from drkit.errors import Corrupt
from drkit.repository.codec import FRAME_BYTES, Content, compressor, decompress
from drkit.repository.framing import FrameFiller
from drkit.repository.pagecodec import PageCompressor, tuple_width
from tests.relations import PAGE, heap_pages, index_pages, page, varied_pages
from tests.vectors.broken_objects import claim

if TYPE_CHECKING:
    from drkit.model.frames import FilledFrame

NAME = "alpha/backups/some/packs/000000"
FRAME_PAGES = FRAME_BYTES // PAGE
INDEX = index_pages(16)


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def compressed(
    plain: bytes, level: int = 3, content: Content = Content.PAGES
) -> tuple[bytes, int]:
    """Compress with a compressor of its own; hold what comes back against it."""
    payload, codec = PageCompressor(level, content).compress(memoryview(plain))
    restored = decompress(NAME, bytes(payload), len(plain), codec)
    assert bytes(restored) == plain
    return bytes(payload), codec


def plainly(plain: bytes) -> bytes:
    """What zstd makes of it without differences, as tuned for pages."""
    return compressor(3).compress(plain)


CASES = {
    "index": (INDEX, 2),
    "one page of an index": (index_pages(1), 2),
    "a full frame of an index": (index_pages(FRAME_PAGES), 2),
    "rows of 40 bytes": (heap_pages(20, 40), 5),
    "rows of 61 bytes and padding": (heap_pages(20, 61), 8),
    "a full frame of rows": (heap_pages(FRAME_PAGES, 72), 9),
    "rows of many widths": (varied_pages(20), 1),
    "rows too wide": (heap_pages(20, 1032), 1),
    "zeros": (bytes(20 * PAGE), 1),
    "a full frame of zeros": (bytes(FRAME_BYTES), 1),
    "random bytes": (noise(20 * PAGE), 0),
    "a full frame of random bytes": (noise(FRAME_BYTES), 0),
    "pages and a byte": (INDEX + b"x", 1),
    "pages but for a byte": (INDEX[:-1], 1),
    "pages not at a page's place": (b"18\n".ljust(16, b"\0") + INDEX, 1),
    "half a page": (INDEX[: PAGE // 2], 1),
    "a few bytes": (b"18\n", 0),
    "nothing": (b"", 0),
}


@pytest.mark.parametrize(("plain", "codec"), CASES.values(), ids=CASES)
def test_a_frame_comes_back(plain: bytes, codec: int) -> None:
    assert compressed(plain)[1] == codec


@pytest.mark.parametrize("content", Content)
@pytest.mark.parametrize("level", [1, 3, 4, 9, 19])
def test_every_level_comes_back(level: int, content: Content) -> None:
    assert compressed(INDEX, level, content)[1] == 2
    assert compressed(noise(3 * PAGE), level, content)[1] == 0


@given(st.integers(40, 1016), st.integers(1, 5), st.integers(0, 2**32))
@settings(max_examples=50)
def test_rows_of_any_width_come_back(width: int, count: int, seed: int) -> None:
    plain = heap_pages(count, width, seed)
    words = -(-width // 8)
    assert tuple_width(plain) == 8 * words
    assert compressed(plain)[1] in (1, words)


@given(st.binary(max_size=200), st.integers(0, 3))
def test_anything_comes_back(content: bytes, pages: int) -> None:
    compressed(content + bytes(pages * PAGE))
    compressed((content * (pages * PAGE // max(len(content), 1) + 1))[: pages * PAGE])


@pytest.mark.parametrize("count", [16, FRAME_PAGES])
def test_an_index_takes_a_tenth_of_what_it_takes_zstd(count: int) -> None:
    plain = index_pages(count)
    payload, codec = compressed(plain)
    assert codec == 2
    assert 10 * len(payload) < len(plainly(plain))


def test_rows_take_less() -> None:
    plain = heap_pages(FRAME_PAGES, 72)
    assert 10 * len(compressed(plain)[0]) < 7 * len(plainly(plain))


# -- where differences don't pay


def pages_of(tuples: int, width: int, count: int = 12) -> bytes:
    """Pages of random tuples, all of one width."""
    return b"".join(
        page(noise(width, number * 1000 + place) for place in range(tuples))
        for number in range(count)
    )


def test_random_rows_of_one_width_are_compressed_as_they_are() -> None:
    plain = pages_of(100, 72)
    assert tuple_width(plain) == 72
    payload, codec = compressed(plain)
    assert codec == 1
    assert payload == plainly(plain)


def beginning_like_an_index(count: int) -> bytes:
    """Random pages whose line pointers are those of an index."""
    content = bytearray(noise(count * PAGE))
    for at in range(0, len(content), PAGE):
        content[at : at + 64] = INDEX[:64]
    return bytes(content)


def test_random_pages_are_stored_as_they_are() -> None:
    for plain in (beginning_like_an_index(12), noise(12 * PAGE)):
        assert compressed(plain) == (plain, 0)
    assert tuple_width(beginning_like_an_index(12)) == 16


def test_what_is_worse_behind_the_sample_is_right_all_the_same() -> None:
    plain = index_pages(8) + beginning_like_an_index(100)
    assert compressed(plain)[1] == 2


# -- one compressor for many frames

frames = st.sampled_from(
    [
        *(index_pages(count) for count in (1, 3, 30)),
        *(heap_pages(count, width) for count, width in ((2, 40), (20, 40), (9, 128))),
        varied_pages(5),
        noise(4 * PAGE),
        bytes(6 * PAGE),
        b"18\n",
        INDEX[:-5],
    ]
)


@given(st.lists(frames, min_size=2, max_size=6))
@settings(max_examples=50)
def test_a_frame_is_nothing_of_the_one_before(plains: list[bytes]) -> None:
    used = PageCompressor(3)
    for plain in plains:
        payload, codec = used.compress(memoryview(plain))
        assert (bytes(payload), codec) == compressed(plain)


def test_what_pays_stands_for_eight_frames_of_a_width() -> None:
    """What does not is tried again; each comes back all the same."""
    hard = beginning_like_an_index(20)
    used, codecs, trials = PageCompressor(3), [], []
    worth = used._worth
    used._worth = lambda *given: trials.append(len(codecs)) or worth(*given)
    for plain in (hard, hard, INDEX, *[hard] * 6, INDEX, INDEX, hard, INDEX):
        payload, codec = used.compress(memoryview(plain))
        assert bytes(decompress(NAME, bytes(payload), len(plain), codec)) == plain
        codecs.append(codec)
    assert codecs == [0, 0, 2, *[0] * 6, 2, 2, 0, 2]
    assert trials == [0, 1, 2, 10]


def test_small_frames_behind_a_full_one() -> None:
    used = PageCompressor(3)
    used.compress(memoryview(heap_pages(FRAME_PAGES, 72)))
    for plain in (index_pages(1), heap_pages(3, 40), b"18\n"):
        payload, codec = used.compress(memoryview(plain))
        assert (bytes(payload), codec) == compressed(plain)


def test_a_filler_hands_over_what_comes_back() -> None:
    """The way of a backup: many frames through one buffer, checked now and then."""
    kept: list[tuple[bytes, int, int]] = []

    def keep(frame: FilledFrame) -> None:
        kept.append((bytes(frame.payload), frame.plain, frame.codec))

    filler = FrameFiller(bytes(32), 3, keep)
    plains = [index_pages(4), varied_pages(3), b"18\n", heap_pages(5, 40)] * 5
    for number, plain in enumerate(plains):
        filler.space(PAGE)[: len(plain)] = plain
        filler.took(number, 0, len(plain))
        filler.flush()
    # small files are filled up to 16 bytes
    assert [size for _, size, _ in kept] == [-(-len(one) // 16) * 16 for one in plains]
    for plain, (payload, size, codec) in zip(plains, kept, strict=True):
        assert bytes(decompress(NAME, payload, size, codec))[: len(plain)] == plain
    assert {codec for _, _, codec in kept} == {0, 1, 2, 5}


# -- what a reader refuses


def refused(payload: bytes, plain: int, codec: int) -> None:
    with pytest.raises(Corrupt) as caught:
        decompress(NAME, payload, plain, codec)
    assert NAME in str(caught.value)


PACKED = compressed(INDEX)[0]
BOMB = zstandard.compress(bytes(64 << 20), 19)
ENDLESS = zstandard.ZstdCompressor(write_content_size=False)

REFUSED = {
    "one byte less": (PACKED, len(INDEX) - 1),
    "one byte more": (PACKED, len(INDEX) + 1),
    "one page less": (PACKED, len(INDEX) - PAGE),
    "one page more": (PACKED, len(INDEX) + PAGE),
    "nothing": (b"", PAGE),
    "garbage": (noise(500), PAGE),
    "not compressed": (INDEX, len(INDEX)),
    "cut off": (PACKED[:-1], len(INDEX)),
    "a byte behind it": (PACKED + b"\0", len(INDEX)),
    "twice": (PACKED * 2, len(INDEX)),
    "no length": (ENDLESS.compress(INDEX), len(INDEX)),
    "a bomb": (BOMB, PAGE),
    "a bomb that claims a page": (claim(BOMB, PAGE), PAGE),
    "a bomb that claims a frame": (claim(BOMB, FRAME_BYTES), FRAME_BYTES),
    "a byte of a page": (zstandard.compress(b"x"), 1),
    "a page but for a byte": (zstandard.compress(bytes(PAGE - 1)), PAGE - 1),
    "a page and a byte": (zstandard.compress(bytes(PAGE + 1)), PAGE + 1),
    "a page and a word": (zstandard.compress(bytes(PAGE + 8)), PAGE + 8),
    "half a page": (zstandard.compress(bytes(PAGE // 2)), PAGE // 2),
}


@pytest.mark.parametrize(("payload", "plain"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("codec", [2, 9, MAX_CODEC])
def test_differences_of_something_else_are_refused(
    payload: bytes, plain: int, codec: int
) -> None:
    refused(payload, plain, codec)


def test_every_width_refuses_what_is_no_whole_page() -> None:
    for codec in range(2, MAX_CODEC + 1):
        refused(zstandard.compress(bytes(PAGE + 16)), PAGE + 16, codec)
        whole = decompress(NAME, zstandard.compress(bytes(PAGE)), PAGE, codec)
        assert bytes(whole) == bytes(PAGE)


def test_no_pages_are_whole_pages() -> None:
    assert bytes(decompress(NAME, zstandard.compress(b""), 0, 2)) == b""


def test_a_bomb_takes_no_memory() -> None:
    bombs = [(claim(BOMB, FRAME_BYTES), FRAME_BYTES), (BOMB, FRAME_BYTES)]
    tracemalloc.start()
    try:
        for payload, plain in bombs:
            refused(payload, plain, 2)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2 * FRAME_BYTES


@given(st.integers(0, len(PACKED) * 8 - 1))
def test_a_changed_payload_is_of_its_length_or_refused(bit: int) -> None:
    changed = bytearray(PACKED)
    changed[bit // 8] ^= 1 << bit % 8
    try:
        found = decompress(NAME, bytes(changed), len(INDEX), 2)
    except Corrupt:
        return
    assert len(found) == len(INDEX)


# -- the width of tuples

WIDTHS = {
    "index": (INDEX, 16),
    "one page": (index_pages(1), 16),
    "a full frame": (index_pages(FRAME_PAGES), 16),
    "rows": (heap_pages(20, 40), 40),
    "padding up to the next tuple": (heap_pages(20, 61), 64),
    "the widest": (heap_pages(20, 8 * MAX_CODEC), 8 * MAX_CODEC),
    "wider": (heap_pages(20, 8 * MAX_CODEC + 1), 0),
    "most pages": (index_pages(10) + varied_pages(4), 16),
    "few pages": (index_pages(2) + varied_pages(10), 0),
    "rows of many widths": (varied_pages(20), 0),
    "headers alone": (pages_of(100, 8), 0),
    "zeros": (bytes(20 * PAGE), 0),
    "pages without tuples": (page([]) * 20, 0),
    "random bytes": (noise(20 * PAGE), 0),
    "text": (b"a line of text\n" * 8192, 0),
    "no whole pages": (INDEX + b"x", 0),
    "half a page": (INDEX[: PAGE // 2], 0),
    "a few bytes": (b"18\n", 0),
    "nothing": (b"", 0),
}


@pytest.mark.parametrize(("plain", "width"), WIDTHS.values(), ids=WIDTHS)
def test_the_width_of_most_tuples(plain: bytes, width: int) -> None:
    assert tuple_width(plain) == width
    assert tuple_width(memoryview(bytearray(plain))) == width


@given(st.binary(max_size=100))
def test_no_width_is_none_that_could_not_be_stored(content: bytes) -> None:
    whole = (content * PAGE)[: len(content) * PAGE]
    width = tuple_width(whole)
    assert width % 8 == 0
    assert width == 0 or 16 <= width <= 8 * MAX_CODEC
