"""Durations as people write them: `15 minutes`, `90 s`, `1 hour 30 minutes`."""

from __future__ import annotations

import re
from datetime import timedelta

_UNITS = {
    "week": 604_800,
    "day": 86_400,
    "hour": 3_600,
    "minute": 60,
    "second": 1,
}
_SHORT = {
    "w": "week",
    "d": "day",
    "h": "hour",
    "hr": "hour",
    "min": "minute",
    "s": "second",
    "sec": "second",
}
_PART = re.compile(r"([0-9]{1,9}) *([a-z]+)(?:\s+|\Z)")
_EXAMPLES = "write it as 15 minutes, 90 seconds or 1 hour 30 minutes"
_VAGUE = {
    "m": "`m` could be minutes or months; write `min` for minutes",
    "month": "months differ in length; write days, such as 30 days",
    "year": "years differ in length; write days, such as 365 days",
}


def parse_duration(text: str, *, zero: bool = False) -> timedelta:
    """Read a duration: whole numbers with units, larger units first.

    Args:
        text: weeks, days, hours, minutes and seconds, in any case; `min`, `s` and the
            like are understood.
        zero: whether a duration of nothing makes sense here.

    Raises:
        ValueError: no unit, an unknown one, a sign, a fraction, or an unwanted zero.
    """
    seconds = sum(_seconds(number, unit) for number, unit in _parts(text))
    if seconds == 0 and not zero:
        raise ValueError(f"{text!r} is no time at all; write at least 1 second")
    if seconds > timedelta.max.days * 86_400:
        raise ValueError(f"{text!r} is too long to count")
    return timedelta(seconds=seconds)


def format_duration(duration: timedelta) -> str:
    """Write a duration so that `parse_duration` reads it back.

    Days are the largest unit (`30 days` says more than `4 weeks 2 days`); fractions
    of a second are rounded.

    Raises:
        ValueError: a negative duration.
    """
    if duration < timedelta(0):
        raise ValueError(f"{duration!r} is negative")
    rest = round(duration.total_seconds())
    words = []
    for unit in ("day", "hour", "minute", "second"):
        count, rest = divmod(rest, _UNITS[unit])
        if count:
            words.append(f"{count} {unit}{'s' if count > 1 else ''}")
    return " ".join(words) or "0 seconds"


def _parts(text: str) -> list[tuple[int, str]]:
    """Split into (number, unit), units strictly from larger to smaller."""
    source, at = text.strip().lower(), 0
    parts: list[tuple[int, str]] = []
    while match := _PART.match(source, at):
        parts.append((int(match[1]), _unit(match[2], text)))
        at = match.end()
    if not parts or at < len(source):
        raise ValueError(_complaint(source, text))
    sizes = [_UNITS[unit] for _, unit in parts]
    if sizes != sorted(set(sizes), reverse=True):
        raise ValueError(f"{text!r} has its units twice or out of order; {_EXAMPLES}")
    return parts


def _unit(word: str, text: str) -> str:
    singular = word.removesuffix("s") if len(word) > 1 else word
    name = _SHORT.get(singular, singular)
    if name in _UNITS:
        return name
    reason = _VAGUE.get(name, f"`{word}` is no unit of time; {_EXAMPLES}")
    raise ValueError(f"{text!r} is no duration: {reason}")


def _seconds(number: int, unit: str) -> int:
    return number * _UNITS[unit]


def _complaint(source: str, text: str) -> str:
    if re.fullmatch(r"[0-9]+", source):
        return f"{text!r} has no unit; write, for example, {source} minutes"
    if source.startswith("-"):
        return f"{text!r} is negative; {_EXAMPLES}"
    if re.search(r"[0-9][.,][0-9]", source):
        return f"{text!r} has a fraction; write it with a smaller unit"
    return f"{text!r} is no duration; {_EXAMPLES}"
