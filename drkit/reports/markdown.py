"""A report as Markdown, for wikis and tickets; charts become tables."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from drkit.reports.blocks import (
    Banner,
    Card,
    Chart,
    Facts,
    Heading,
    Items,
    SignOff,
    Table,
    Text,
)
from drkit.reports.words import visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from drkit.reports.blocks import Block, Document

# What begins a link, an image, emphasis, code, HTML, an entity, a formula or a cell;
# and the addresses and names that wikis make links of without being asked.
_SPECIAL = re.compile(r"[\\`*_\[\]<>#|~&$@^]|:(?=//)|(?<=www)\.", re.IGNORECASE)
# What begins a list or underlines a heading, but only where a line begins.
_START = re.compile(r"^(\d*)([-+=:.)])(?=\W|$)")


def markdown_text(document: Document) -> str:
    """Return the document in the dialect of GitHub and most wikis."""
    parts = [f"# {escaped(document.title)}", escaped(document.subtitle)]
    parts += [part for block in document.blocks for part in _block(block)]
    parts.append(
        f"Written by drkit {escaped(document.version)} from signed records. All times "
        f"are UTC. Content SHA-256 `{document.digest}`"
    )
    return "\n\n".join(parts) + "\n"


def escaped(text: str) -> str:
    """Return text that Markdown shows as it is."""
    shown = _SPECIAL.sub(r"\\\g<0>", visible(text).strip())
    return _START.sub(r"\1\\\2", shown)


def _block(block: Block) -> Iterator[str]:
    match block:
        case Heading():
            yield f"{'#' * block.level} {escaped(block.text)}"
        case Banner():
            yield f"> **{escaped(block.word)}** {escaped(block.headline)}"
        case Text():
            yield escaped(block.text)
        case Items():
            yield _items(block.items)
        case Table():
            yield from _table(block)
        case Facts():
            yield _rows(("", ""), block.rows)
        case Chart():
            yield f"*{escaped(block.caption)}* {escaped(block.drawing.title)}."
        case Card():
            yield from _card(block)
        case SignOff():
            rows = [(role, "", "", "") for role in block.roles]
            yield _rows(("", "Name", "Date", "Signature"), rows)


def _items(items: Sequence[str]) -> str:
    return "\n".join(f"- {escaped(item)}" for item in items)


def _card(card: Card) -> Iterator[str]:
    yield f"### {escaped(card.title)}"
    yield escaped(card.when)
    yield _items(card.items)
    if card.actions is None:
        yield "**No corrective action is recorded.**"
    else:
        yield from _table(card.actions)


def _table(table: Table) -> Iterator[str]:
    """Leave out columns without a head: they only draw what others say."""
    places = [place for place, name in enumerate(table.head) if name]
    head = [table.head[place] for place in places]
    yield _rows(head, [[row[place].text for place in places] for row in table.rows])
    if table.caption:
        yield f"*{escaped(table.caption)}*"


def _rows(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [_row(head), f"|{'---|' * len(head)}", *(_row(row) for row in rows)]
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(escaped(cell) for cell in cells)} |"
