"""JSON objects and their members, read strictly.

What is stored may be damaged or hostile: whatever is wrong with it is a ValueError, or
a KeyError for a member that is missing, and never a surprise further on.
"""

from __future__ import annotations

import json
import math
import re
from datetime import datetime
from typing import Any

Members = dict[str, Any]

_MOST = (1 << 63) - 1
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")


def parse_object(data: bytes) -> Members:
    """Read a JSON object: UTF-8, no byte order mark."""
    return _parse(data)


def _parse(data: bytes, *, spelled: bool = False) -> Members:
    try:
        found: Members = json.loads(data.decode())
        right = not spelled or json.dumps(found).encode() == data
    except RecursionError:
        raise ValueError("its JSON is nested too deeply") from None
    _need(isinstance(found, dict), "its JSON is no object")
    _need(right, "its JSON is not spelled as it is written")
    return found


def parse_plain(data: bytes) -> Members:
    """Read a JSON object that is stored as it is, not sealed.

    It must be spelled as writers spell it, so that no changed byte goes unnoticed: one
    space behind a comma or a colon and no other between members, each member once, and
    what is not ASCII as escapes. Members and their order are left to the reader.
    """
    return _parse(data, spelled=True)


def nested(found: Members, name: str) -> Members:
    """Return a member that is an object itself."""
    value: Members = found[name]
    _need(isinstance(value, dict), f"`{name}` is no object")
    return value


def listed(found: Members, name: str) -> list[Any]:
    """Return a member that is a list."""
    value: list[Any] = found[name]
    _need(isinstance(value, list), f"`{name}` is no list")
    return value


def text(found: Members, name: str) -> str:
    """Return a member that is a text."""
    value: str = found[name]
    _need(isinstance(value, str), f"`{name}` is no text")
    return value


def texts(found: Members, name: str) -> tuple[str, ...]:
    """Return a member that is a list of texts."""
    values = listed(found, name)
    _need(
        all(isinstance(value, str) for value in values), f"`{name}` is no list of texts"
    )
    return tuple(values)


def count(found: Members, name: str) -> int:
    """Return a member that is an integer, not negative, of 63 bits at most."""
    value: int = found[name]
    whole = isinstance(value, int) and not isinstance(value, bool)
    _need(whole and 0 <= value <= _MOST, f"`{name}` is no count")
    return value


def number(found: Members, name: str) -> float:
    """Return a member that is a finite number."""
    value: float = found[name]
    real = isinstance(value, int | float) and not isinstance(value, bool)
    _need(
        real and abs(value) <= _MOST and math.isfinite(value), f"`{name}` is no number"
    )
    return float(value)


def hexadecimal(found: Members, name: str) -> bytes:
    """Return the bytes of a member that is lower-case hex."""
    value = text(found, name)
    decoded = bytes.fromhex(value)
    _need(decoded.hex() == value, f"`{name}` is not in lower-case hex")
    return decoded


def sha256(found: Members, name: str) -> str:
    """Return a member that is a SHA-256 in lower-case hex."""
    value = text(found, name)
    _need(is_sha256(value), f"`{name}` is no SHA-256")
    return value


def is_sha256(value: str) -> bool:
    """Say whether a text is a SHA-256 in lower-case hex."""
    return _SHA256.match(value) is not None


def flag(found: Members, name: str) -> bool:
    """Return a member that is true or false."""
    value: bool = found[name]
    _need(isinstance(value, bool), f"`{name}` is neither true nor false")
    return value


def moment(found: Members, name: str) -> datetime:
    """Return a member that is a time with its offset from UTC."""
    value = datetime.fromisoformat(text(found, name))
    _need(value.tzinfo, f"`{name}` is a time without its offset from UTC")
    return value


def _need(holds: object, message: str) -> None:
    if not holds:
        raise ValueError(message)
