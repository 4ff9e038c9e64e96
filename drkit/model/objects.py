"""Small values that storage drivers and key providers hand out."""

from __future__ import annotations

from typing import NamedTuple


class ObjectInfo(NamedTuple):
    """A stored object as a listing shows it; `size` in bytes."""

    name: str
    size: int


class WrappedKey(NamedTuple):
    """A DEK as one recipient's key-encrypting key wrapped it."""

    provider: str
    kek_id: str
    blob: bytes
