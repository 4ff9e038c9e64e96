"""A share of the objects a day: chosen by name, all of them in turn."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

_SHARE = re.compile(r"([0-9]{1,4})/([0-9]{1,4})\Z")


@dataclass(frozen=True, slots=True)
class Sample:
    """`share` parts out of `of` each day; `of / share` days, rounded up, cover all."""

    share: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Sample:
        """Read `1/7`.

        Raises:
            ValueError: not two numbers, or no share between none and all.
        """
        match = _SHARE.match(text)
        if match is None:
            raise ValueError(f"{text!r} is no share such as 1/7")
        share, of = int(match[1]), int(match[2])
        if not 1 <= share <= of:
            raise ValueError(f"{text!r} is no share between none and all")
        return cls(share, of)

    def __str__(self) -> str:
        return f"{self.share}/{self.of}"

    def holds(self, name: str, day: int) -> bool:
        """Say whether the object's turn is on a day, counted by `date.toordinal`."""
        digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
        turn = (int.from_bytes(digest, "big") - day * self.share) % self.of
        return turn < self.share
