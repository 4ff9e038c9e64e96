"""Sizes as PostgreSQL's settings have them: `512 MB`, `2 GB`; 1 kB is 1024 bytes."""

from __future__ import annotations

import re

_UNITS = {
    "b": 1,
    "byte": 1,
    "bytes": 1,
    "kb": 1 << 10,
    "mb": 1 << 20,
    "gb": 1 << 30,
    "tb": 1 << 40,
}
_NAMES = ("TB", "GB", "MB", "kB")
_SIZE = re.compile(r"([0-9]{1,18}) *([a-z]+)")
_EXAMPLES = "write it as 512 MB, 2 GB or 1 TB"


def parse_size(text: str) -> int:
    """Read a size in bytes: a whole number and its unit, in any case.

    `GiB` and the like mean the same as `GB`, which has 1024 MB here as in PostgreSQL.

    Raises:
        ValueError: no unit, an unknown one, a sign, a fraction, or nothing at all.
    """
    source = text.strip().lower()
    match = _SIZE.fullmatch(source)
    unit = _UNITS.get(_decimal(match[2])) if match else None
    if match is None or unit is None:
        raise ValueError(_complaint(source, text))
    if int(match[1]) == 0:
        raise ValueError(f"{text!r} is no size at all; {_EXAMPLES}")
    return int(match[1]) * unit


def format_size(size: int) -> str:
    """Write a size so that `parse_size` reads it back.

    Raises:
        ValueError: it is not positive.
    """
    if size <= 0:
        raise ValueError(f"{size} is no size")
    for name in _NAMES:
        count, rest = divmod(size, _UNITS[name.lower()])
        if not rest:
            return f"{count} {name}"
    return f"{size} bytes"


def _decimal(unit: str) -> str:
    """Return `gb` for `gib`."""
    binary = len(unit) == 3 and unit.endswith("ib")
    return f"{unit[0]}b" if binary else unit


def _complaint(source: str, text: str) -> str:
    if re.fullmatch(r"[0-9]+", source):
        return f"{text!r} has no unit; write, for example, {source} MB"
    if re.search(r"[0-9][.,][0-9]", source):
        return f"{text!r} has a fraction; write it with a smaller unit"
    return f"{text!r} is no size; {_EXAMPLES}"
