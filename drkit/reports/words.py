"""Times, sizes and counts as a report's readers read them; all times are UTC."""

from __future__ import annotations

import re
from datetime import UTC
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date, datetime

NOT_MEASURED = "not measured"
_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
# Controls, halves of pairs, what turns the direction of text, what can't be seen.
_UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\ud800-\udfff\ufdd0-\ufdef\ufe00-\ufe0f\ufeff\ufff0-\uffff\U000e0000-\U0010ffff]"
)


def duration(seconds: float | None) -> str:
    """Write seconds: `850 ms`, `12.3 s`, `4 min 05 s`, `3 h 12 min`, `4 d 02 h`."""
    if seconds is None:
        return NOT_MEASURED
    if seconds < 0:
        return f"-{duration(-seconds)}"
    if seconds < 59.95:
        return f"{seconds:.1f} s" if seconds >= 0.9995 else f"{seconds * 1000:.0f} ms"
    for unit, first, second in ((60, "min", "s"), (3600, "h", "min")):
        whole, rest = divmod(round(seconds * 60 / unit), 60)
        if whole < (60 if first == "min" else 48):
            return f"{whole} {first} {rest:02d} {second}"
    days, hours = divmod(round(seconds / 3600), 24)
    return f"{days} d {hours:02d} h"


def promise(seconds: float | None) -> str:
    """Write an objective's target without parts that are zero: `15 min`."""
    if seconds is None:
        return "none set"
    return re.sub(r"(?<=[a-z]) 00 [a-z]+$|(?<=\d)\.0(?= s$)", "", duration(seconds))


def size(count: float) -> str:
    """Write a number of bytes: `3.2 GiB`."""
    if count < 1024:
        return f"{count:.0f} bytes"
    for unit in _UNITS:
        count /= 1024
        if count < 1023.95 or unit == _UNITS[-1]:
            break
    return f"{count:.1f} {unit}"


def moment(time: datetime) -> str:
    """Write a time to the minute: `2026-01-15 10:30 UTC`."""
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def day(date_: date) -> str:
    """Write a day: `15 January 2026`."""
    return f"{date_.day} {date_:%B} {date_.year}"


def plural(count: int, what: str, many: str = "") -> str:
    """Write a count and what it counts: `1 drill`, `2 drills`, `no drills`."""
    noun = what if count == 1 else many or f"{what}s"
    return f"{count or 'no'} {noun}"


def listed(things: Sequence[str]) -> str:
    """Write things as a sentence names them: `a, b and c`."""
    *most, last = things
    return f"{', '.join(most)} and {last}" if most else last


def sentence(text: str) -> str:
    """Begin with a capital letter, unless with a name, and end with a stop."""
    text = text.strip()
    stop = "" if not text or text[-1] in ".!?" else "."
    first = text.partition(" ")[0].rstrip(",:;")
    word = first.isalpha() and first.islower()
    return (text[:1].upper() + text[1:] if word else text) + stop


def visible(text: str) -> str:
    """Show what can't be seen as an escape; line breaks and tabs become spaces."""
    spaced = re.sub(r"[\t\n\r]+", " ", text)
    return _UNSEEN.sub(lambda found: _escape(found[0]), spaced)


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
