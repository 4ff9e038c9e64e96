"""Splitting the tar archives that a server streams into files, piece by piece.

Only what PostgreSQL's `src/port/tar.c` writes has to be read: ustar headers without
extensions, sizes in octal or, past 8 GiB, in base 256.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING, NamedTuple

from drkit.errors import PostgresRefused

if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCK = 512
_BASE_256 = 0x80


class Member(NamedTuple):
    """One member's header; `size` in bytes, `mtime` in seconds since 1970."""

    name: bytes
    kind: MemberKind
    mode: int
    size: int
    mtime: int
    link: bytes


class MemberKind(Enum):
    """The kinds of members that a base backup has."""

    FILE = auto()
    DIRECTORY = auto()
    LINK = auto()


_KINDS = {b"0": MemberKind.FILE, b"\0": MemberKind.FILE, b"5": MemberKind.DIRECTORY}
_KINDS[b"2"] = MemberKind.LINK


class TarSplitter:
    """Takes an archive's bytes as they come; yields headers and their content."""

    def __init__(self) -> None:
        self._header = bytearray()
        self._left = 0
        self._padding = 0

    def feed(self, data: memoryview) -> Iterator[Member | memoryview]:
        """Yield each member as its header is complete, then its content in pieces."""
        while data:
            if self._left:
                piece = data[: self._left]
                self._left -= len(piece)
                data = data[len(piece) :]
                yield piece
            elif self._padding:
                skipped = min(self._padding, len(data))
                self._padding -= skipped
                data = data[skipped:]
            else:
                missing = BLOCK - len(self._header)
                self._header += data[:missing]
                data = data[missing:]
                if len(self._header) == BLOCK:
                    yield from self._member()

    def at_end(self) -> bool:
        """Say whether the archive may end here."""
        return not (self._left or self._padding or self._header)

    def _member(self) -> Iterator[Member]:
        header, self._header = bytes(self._header), bytearray()
        if header == bytes(BLOCK):
            return  # the two zero blocks at an archive's end
        member = parse_header(header)
        if member.kind is MemberKind.FILE:
            self._left = member.size
            self._padding = -member.size % BLOCK
        yield member


def parse_header(header: bytes) -> Member:
    """Read one 512-byte header.

    Raises:
        PostgresRefused: its checksum is wrong, or it is none that PostgreSQL writes.
    """
    summed = sum(header) - sum(header[148:156]) + 8 * ord(" ")
    kind = _KINDS.get(header[156:157])
    if summed != _number(header[148:156]) or kind is None:
        raise PostgresRefused(
            "the server's base backup holds a malformed archive header",
            hint="check that what answers at the policy's URL is PostgreSQL itself",
        )
    return Member(
        _text(header[0:100]),
        kind,
        _number(header[100:108]),
        _number(header[124:136]),
        _number(header[136:148]),
        _text(header[157:257]),
    )


def _number(field: bytes) -> int:
    if field[0] & _BASE_256:
        return int.from_bytes(field[1:], "big")
    return int(field.strip(b"\0 ") or b"0", 8)


def _text(field: bytes) -> bytes:
    return field.split(b"\0", 1)[0]
