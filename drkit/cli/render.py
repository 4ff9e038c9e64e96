"""Sizes, times and tables as people read them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drkit.printing import Lines, page, printable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, timedelta

_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB")


def size(count: float) -> str:
    """Write a number of bytes: `3.2 GiB`."""
    if count < 1024:
        return f"{count:.0f} bytes"
    for unit in _UNITS:
        count /= 1024
        if count < 1024 or unit == _UNITS[-1]:
            break
    return f"{count:.1f} {unit}"


def duration(length: timedelta) -> str:
    """Write a length of time: `850 ms`, `12.3 s`, `4 min 05 s`, `3 h 12 min`."""
    seconds = length.total_seconds()
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def moment(time: datetime) -> str:
    """Write a time to the second, with its offset."""
    return time.isoformat(sep=" ", timespec="seconds")


def exact(time: datetime) -> str:
    """Write a time with all its digits, as `--target-time` takes it back."""
    return time.isoformat(sep=" ")


def server_version(number: int) -> str:
    """Write `server_version_num` as people do: `15.18`."""
    return f"{number // 10000}.{number % 10000}"


def facts(rows: Sequence[tuple[str, str]]) -> Lines:
    """Write names and values below each other, the values in one column."""
    width = max((len(name) for name, _ in rows), default=0)
    return page(f"  {name:<{width}}  {value}".rstrip() for name, value in rows)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Lines:
    """Write rows below their heads, numbers and all aligned to the left."""
    lines = [[printable(cell) for cell in line] for line in (head, *rows)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(head))]
    return page(
        "  ".join(
            f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)
        ).rstrip()
        for line in lines
    )
