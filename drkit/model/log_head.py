"""How far a log goes, and what somebody outside of the repository knows of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

_TEXT = re.compile(r"([0-9]{1,10}):([0-9a-f]{16,64})\Z")


@dataclass(frozen=True, slots=True)
class LogHead:
    """An entry of a log, by which all entries up to it are known: they are chained.

    Attributes:
        sequence: the entry's number.
        digest: its SHA-256 in hex, or the first 16 digits of it or more.
    """

    sequence: int
    digest: str

    @classmethod
    def parse(cls, text: str) -> LogHead:
        """Read a head as `str` writes it.

        Raises:
            ValueError: it is none.
        """
        match = _TEXT.match(text.strip().lower())
        if match is None:
            raise ValueError(
                f"{text!r} is no head of a log: a number, a colon, and at least 16 "
                "hex digits"
            )
        return cls(int(match[1]), match[2])

    def __str__(self) -> str:
        return f"{self.sequence}:{self.digest}"


@dataclass(frozen=True, slots=True)
class KnownHead:
    """A head that was seen once, and what the log said there.

    Attributes:
        time: of the entry; None if only the head itself was handed on.
        labels: the backups that were live.
    """

    head: LogHead
    time: datetime | None = None
    labels: tuple[str, ...] = ()
