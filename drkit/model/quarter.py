"""Calendar quarters, in UTC: `2026-Q1`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

_FORM = re.compile(r"([2-9][0-9]{3})-?[Qq]([1-4])\Z")
_MONTHS = 3
_FOUR = 4


@dataclass(frozen=True, slots=True, order=True)
class Quarter:
    """Three months of a year; `number` is 1 to 4."""

    year: int
    number: int

    @classmethod
    def parse(cls, text: str) -> Quarter:
        """Read `2026-Q1`.

        Raises:
            ValueError: it is no quarter of this century or a later one.
        """
        match = _FORM.match(text.strip())
        if match is None or match[1] == "9999":
            raise ValueError(f"{text!r} is no quarter; write it as 2026-Q1")
        return cls(int(match[1]), int(match[2]))

    @classmethod
    def of(cls, moment: datetime) -> Quarter:
        """Return the quarter that a moment falls in."""
        here = moment.astimezone(UTC)
        return cls(here.year, (here.month - 1) // _MONTHS + 1)

    @property
    def begin(self) -> datetime:
        """The first moment in it."""
        return datetime(self.year, (self.number - 1) * _MONTHS + 1, 1, tzinfo=UTC)

    @property
    def end(self) -> datetime:
        """The first moment after it."""
        return self.back(-1).begin

    @property
    def first_day(self) -> date:
        """Its first day."""
        return self.begin.date()

    @property
    def last_day(self) -> date:
        """Its last day."""
        return (self.end - timedelta(days=1)).date()

    def back(self, count: int) -> Quarter:
        """Return the quarter `count` quarters before this one."""
        year, number = divmod(self.year * _FOUR + self.number - 1 - count, _FOUR)
        return Quarter(year, number + 1)

    def __contains__(self, moment: datetime) -> bool:
        return self.begin <= moment < self.end

    def __str__(self) -> str:
        return f"{self.year:04d}-Q{self.number}"
