"""Where the bytes of one member of a streamed archive go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from drkit.errors import PostgresRefused
from drkit.postgres.stream_pieces import BUFFER, Piece, Stretch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from drkit.postgres.incremental_file import HeaderReader, IncrementalHeader
    from drkit.postgres.stream_pieces import Exchange, StreamedFile
    from drkit.workers import Stop


class Sink(Protocol):
    """Takes the bytes of one member in order."""

    def take(self, data: memoryview, stop: Stop) -> None:
        """Take the next bytes."""

    def end(self) -> None:
        """Learn that the member has ended."""


class Nowhere:
    """Drops what it is given."""

    def take(self, data: memoryview, stop: Stop) -> None:
        """Take the next bytes."""

    def end(self) -> None:
        """Learn that the member has ended."""


class Beside:
    """Keeps a small file in memory."""

    def __init__(self, content: bytearray) -> None:
        self._content = content

    def take(self, data: memoryview, stop: Stop) -> None:  # noqa: ARG002  a Sink
        """Take the next bytes."""
        self._content += data

    def end(self) -> None:
        """Learn that the member has ended."""


class Filling:
    """Fills buffers with a file's bytes, and sends each when it is full.

    Args:
        stretches: where in the file the bytes belong, in the order in which they come.
            What may be like a piece of the parent's comes whole in one buffer.

    Attributes:
        taken: how many bytes have come.
    """

    def __init__(
        self, exchange: Exchange, file: StreamedFile, stretches: Iterable[Stretch]
    ) -> None:
        self.taken = 0
        self._exchange = exchange
        self._file = file
        self._coming = iter(stretches)
        self._rest = Stretch(0, 0)
        self._buffer: bytearray | None = None
        self._filled = 0
        self._held: list[Stretch] = []

    def take(self, data: memoryview, stop: Stop) -> None:
        """Take the next bytes."""
        while data:
            if not self._rest.length:
                self._next_stretch()
            self._buffer = self._buffer or self._exchange.spare(stop)
            if self._buffer is None:
                return
            part = data[: min(BUFFER - self._filled, self._rest.length)]
            self._buffer[self._filled : self._filled + len(part)] = part
            self._count(len(part))
            data = data[len(part) :]
            if self._filled == BUFFER:
                self._send()

    def end(self) -> None:
        """Send what is left."""
        self._send()

    def _next_stretch(self) -> None:
        following = next(self._coming, None)
        if following is None:
            raise PostgresRefused(
                "the server's base backup holds more of a file than it announced"
            )
        if following.like is not None and following.length > BUFFER - self._filled:
            self._send()
        self._rest = following
        self._held.append(following._replace(length=0))

    def _count(self, length: int) -> None:
        """Note bytes that have gone into the buffer."""
        self.taken += length
        self._filled += length
        held, rest = self._held[-1], self._rest
        self._held[-1] = held._replace(length=held.length + length)
        self._rest = Stretch(rest.position + length, rest.length - length)

    def _send(self) -> None:
        if self._buffer is not None and self._filled:
            self._exchange.send(Piece(self._file, self._buffer, self._held))
            self._buffer, self._filled = None, 0
        self._held = [self._rest._replace(length=0)] if self._rest.length else []


class Opening:
    """Reads the header of an incremental file; what follows goes where `begin` says."""

    def __init__(
        self, reader: HeaderReader, begin: Callable[[IncrementalHeader], Filling]
    ) -> None:
        self._reader = reader
        self._begin = begin
        self._filling: Filling | None = None

    def take(self, data: memoryview, stop: Stop) -> None:
        """Take the next bytes."""
        if self._filling is None:
            data = self._reader.feed(data)
            if self._reader.header is None:
                return
            self._filling = self._begin(self._reader.header)
        self._filling.take(data, stop)

    def end(self) -> None:
        """Send what is left."""
        if self._filling is not None:
            self._filling.end()
