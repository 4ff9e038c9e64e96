"""Text that a terminal or a log shows as it is, whoever chose the words.

A table's name, a lease's host, an error of the server, a file of the data directory:
any of them may hold escape sequences that repaint a screen, or line ends behind which a
verdict of drkit's seems to stand. So whatever is written for people goes through
`printable`, at the edge (`session`, `logs`, `errors` and `archiving` of `drkit.cli`).
There, line ends are believed only in `Lines`, which nothing but `page` makes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class Lines(str):
    """Printable lines, each ended by drkit itself.

    Cut or put together with other texts it becomes plain text, and one line, again.
    """

    __slots__ = ()


def printable(text: str) -> str:
    """Return a text as one line, what can't be seen or steers written as escapes.

    That is all but Unicode's printable characters and the space: controls, line and
    paragraph ends, what turns the direction of text, invisible marks, and lone
    surrogates, as names have them that are no UTF-8. `Lines` stay as they are.
    """
    if isinstance(text, Lines) or text.isprintable():
        return text
    return "".join(map(_shown, text))


def page(rows: Iterable[str]) -> Lines:
    """Put lines below each other; each becomes printable, but those of `Lines` stay."""
    return Lines("\n".join(map(printable, rows)))


def _shown(character: str) -> str:
    if character.isprintable():
        return character
    return character.encode("unicode_escape").decode("ascii")
