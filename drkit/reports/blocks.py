"""What a report's pages are made of, whatever they are written in."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from drkit.reports.svg import Drawing


class Tone(StrEnum):
    """How something is meant; colour repeats what words and marks say."""

    PLAIN = "plain"
    GOOD = "good"
    WARN = "warn"
    BAD = "bad"
    SOFT = "soft"


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading; level 2 begins a part, 3 a section, 4 a paragraph.

    Attributes:
        fresh: whether it begins a page, where there are pages.
    """

    level: int
    text: str
    fresh: bool = False


@dataclass(frozen=True, slots=True)
class Banner:
    """The quarter in a word and a sentence."""

    tone: Tone
    word: str
    headline: str


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph."""

    text: str
    tone: Tone = Tone.PLAIN


@dataclass(frozen=True, slots=True)
class Items:
    """A list of sentences."""

    items: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of a table; its drawing, if any, stands for itself."""

    text: str
    tone: Tone = Tone.PLAIN
    drawing: Drawing | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """A table; the first cell of each row names it.

    Attributes:
        widths: shares of the width by column, as whole numbers.
    """

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    widths: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Facts:
    """Names and values."""

    rows: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing with what it shows."""

    drawing: Drawing
    caption: str


@dataclass(frozen=True, slots=True)
class Card:
    """A failure or a miss: what, when, why, and what is done about it."""

    tone: Tone
    title: str
    when: str
    items: tuple[str, ...]
    actions: Table | None


@dataclass(frozen=True, slots=True)
class SignOff:
    """Lines to sign on, one for each role."""

    roles: tuple[str, ...]


Block = Heading | Banner | Text | Items | Table | Facts | Chart | Card | SignOff


@dataclass(frozen=True, slots=True)
class Document:
    """A report, laid out.

    Attributes:
        digest: SHA-256 of the report's JSON; all forms of it carry it.
    """

    title: str
    subtitle: str
    digest: str
    version: str
    blocks: tuple[Block, ...]


def cells(*values: str | Cell) -> tuple[Cell, ...]:
    """Return a row, with plain cells for plain texts."""
    return tuple(one if isinstance(one, Cell) else Cell(one) for one in values)


def table(
    caption: str,
    widths: Sequence[int],
    head: Sequence[str],
    rows: Sequence[tuple[Cell, ...]],
) -> Table:
    """Return a table."""
    return Table(caption, tuple(head), tuple(rows), tuple(widths))
