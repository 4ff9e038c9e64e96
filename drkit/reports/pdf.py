"""A report as PDF, for archives (PDF/A-2a) and for screen readers (PDF/UA-1).

Text goes to the typesetter as data, never as its markup.
"""

from __future__ import annotations

import json
import re
import unicodedata
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from drkit.errors import DrkitError
from drkit.reports.as_json import plain
from drkit.reports.html import missing, read_template
from drkit.reports.svg import LIGHT, Drawing
from drkit.reports.words import visible

if TYPE_CHECKING:
    from datetime import date

    from drkit.reports.blocks import Document

_FONT = "Libertinus Serif"
# What the typesetter's own fonts have. PDF/A allows no character without a glyph, and
# fonts of the host would make each host's file another one.
_UNKNOWN = re.compile(
    "[^\x20-\x7e\xa1-\u024f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03ce"
    "\u0400-\u045f\u2010-\u2015\u2018-\u2027\u2030\u2032\u2033\u2039\u203a"
    "\u2190-\u2193\u2212\u2248\u2260\u2264\u2265\u25a0\u25b2\u25cb\u25cf\u2713\u2717]"
)
# A word that no line holds may be broken here; digests and keys are shorter.
_ENDLESS = re.compile(r"\S{80}")


def pdf_bytes(document: Document, dated: date) -> bytes:
    """Return the file; `dated` is the day that it says it was made.

    Raises:
        UsageError: the package that it takes is not installed.
        DrkitError: the typesetter refuses it.
    """
    try:
        import typst  # noqa: PLC0415  an extra; only this form of a report needs it
    except ModuleNotFoundError:
        raise missing("PDF", "typst") from None
    content = json.dumps(_content(document))
    made = datetime(dated.year, dated.month, dated.day, tzinfo=UTC)
    try:
        return bytes(
            typst.compile(
                read_template("report.typ").encode(),
                format="pdf",
                sys_inputs={"document": content, "colours": json.dumps(LIGHT)},
                pdf_standards=["a-2a", "ua-1"],
                ignore_system_fonts=True,
                timestamp=made,
            )
        )
    except typst.TypstError as error:
        raise DrkitError(
            f"the PDF can't be made: {error}",
            hint="choose another --format, and report it: this is a fault in drkit",
        ) from error


def printable(text: str) -> str:
    """Return text that the fonts have; other characters become their numbers."""
    composed = unicodedata.normalize("NFC", visible(text))
    known = _UNKNOWN.sub(lambda found: f"[U+{ord(found[0]):04X}]", composed)
    return _ENDLESS.sub("\\g<0>\u200b", known)


def _content(document: Document) -> dict[str, Any]:
    blocks = [
        {"kind": type(block).__name__, **_printed(block)} for block in document.blocks
    ]
    return {
        "title": printable(document.title),
        "subtitle": printable(document.subtitle),
        "version": printable(document.version),
        "digest": document.digest,
        "blocks": blocks,
    }


def _printed(value: Any) -> Any:
    """Return a block's members as JSON knows them, drawings as SVG."""
    if isinstance(value, Drawing):
        svg = _UNKNOWN.sub(
            lambda found: f"[U+{ord(found[0]):04X}]", value.document(_FONT)
        )
        return {"svg": svg, "title": printable(value.title)}
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, (tuple, list)):
        return [_printed(one) for one in value]
    if hasattr(value, "__dataclass_fields__"):
        return {name: _printed(getattr(value, name)) for name in value.__slots__}
    return plain(value)
