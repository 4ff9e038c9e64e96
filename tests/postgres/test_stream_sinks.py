"""Bytes of streamed files on their way into buffers: all of them, where they belong."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drkit.errors import PostgresRefused
from drkit.model.pagemap import PIECE
from drkit.postgres.stream_pieces import BUFFER, Exchange, Piece, StreamedFile, Stretch
from drkit.postgres.stream_sinks import Filling
from drkit.workers import Stop

if TYPE_CHECKING:
    from collections.abc import Iterator

FILE = StreamedFile(3, b"base/5/1", None)
UNIT = BUFFER // 8
STRETCHES = st.lists(
    st.tuples(st.integers(1, 5 * UNIT), st.integers(0, UNIT), st.booleans()),
    max_size=12,
)


def _laid(parts: list[tuple[int, int, bool]]) -> list[Stretch]:
    """Lay stretches behind one another, with gaps."""
    laid, position = [], 0
    for length, gap, like in parts:
        position += gap
        piece = np.zeros(1, dtype=PIECE)[0]
        laid.append(Stretch(position, length, piece if like else None))
        position += length
    return laid


class Consumer:
    """Takes pieces as the writing threads do, and keeps copies of them."""

    def __init__(self, exchange: Exchange) -> None:
        self.pieces: list[tuple[Piece, bytes]] = []
        self._exchange = exchange
        self._thread = threading.Thread(target=self._consume)
        self._thread.start()

    def _consume(self) -> None:
        while (piece := self._exchange.take()) is not None:
            length = sum(stretch.length for stretch in piece.stretches)
            self.pieces.append((piece, bytes(piece.buffer[:length])))
            self._exchange.give_back(piece)

    def stretches(self) -> Iterator[tuple[Stretch, bytes]]:
        """Wait until all has come; yield the stretches with their bytes."""
        self._exchange.end()
        self._thread.join(30)
        for piece, data in self.pieces:
            assert piece.file == FILE
            start = 0
            for stretch in piece.stretches:
                yield stretch, data[start : start + stretch.length]
                start += stretch.length


@settings(max_examples=60)
@given(STRETCHES, st.integers(UNIT // 64, 3 * BUFFER))
def test_every_byte_goes_where_it_belongs(
    parts: list[tuple[int, int, bool]], chunk: int
) -> None:
    laid, exchange = _laid(parts), Exchange(1)
    consumer = Consumer(exchange)
    data = (bytes(range(251)) * (sum(one.length for one in laid) // 251 + 1))[
        : sum(one.length for one in laid)
    ]
    filling = Filling(exchange, FILE, laid)
    for start in range(0, len(data), chunk):
        filling.take(memoryview(data)[start : start + chunk], Stop())
    filling.end()
    assert filling.taken == len(data)
    came = list(consumer.stretches())
    assert b"".join(part for _, part in came) == data
    whole = [stretch for stretch, _ in came if stretch.like is not None]
    assert whole == [
        one for one in laid if one.like is not None and one.length <= BUFFER
    ]
    places = [(one.position + at) for one in laid for at in (0, one.length - 1)]
    found = [(one.position + at) for one, part in came for at in (0, len(part) - 1)]
    assert set(places) <= set(found)
    assert all(stretch.length for stretch, _ in came)


def test_more_than_was_announced_is_refused() -> None:
    exchange = Exchange(1)
    filling = Filling(exchange, FILE, [Stretch(0, 10)])
    with pytest.raises(PostgresRefused, match="more of a file"):
        filling.take(memoryview(bytes(11)), Stop())


def test_it_gives_up_with_the_others() -> None:
    exchange, stop = Exchange(1), Stop()
    filling = Filling(exchange, FILE, [Stretch(0, 10 * BUFFER)])
    threading.Timer(0.3, lambda: stop.set(RuntimeError("another failed"))).start()
    filling.take(memoryview(bytes(10 * BUFFER)), stop)  # nobody takes the pieces
    assert filling.taken == 3 * BUFFER
