"""Log sequence numbers: byte positions in the write-ahead log."""

from __future__ import annotations

import re

_PATTERN = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})\Z")


class Lsn(int):
    """A position in WAL, written `16/B374D848` as PostgreSQL's `pg_lsn` is."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Lsn:
        """Read PostgreSQL's notation.

        Raises:
            ValueError: the text is not two hexadecimal halves joined by a slash.
        """
        match = _PATTERN.match(text)
        if match is None:
            raise ValueError(f"{text!r} is no LSN; write it as 16/B374D848")
        return cls(int(match[1], 16) << 32 | int(match[2], 16))

    def __str__(self) -> str:
        return f"{self >> 32:X}/{self & 0xFFFFFFFF:X}"

    def __repr__(self) -> str:
        return f"Lsn({str(self)!r})"
