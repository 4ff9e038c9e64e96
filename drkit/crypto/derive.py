"""Key derivation: HKDF-SHA256 with length-prefixed context (RFC 5869).

This module is on the path of `wal push` and imports no more than it needs.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

NO_SALT = bytes(32)


def length_prefixed(*fields: bytes | str) -> bytes:
    """Join fields so that no two lists of fields give the same bytes."""
    parts = []
    for field in fields:
        raw = field.encode() if isinstance(field, str) else field
        parts.append(len(raw).to_bytes(2, "little") + raw)
    return b"".join(parts)


def derive(
    key: bytes, info: bytes, *, salt: bytes = NO_SALT, length: int = 32
) -> bytes:
    """Derive `length` bytes from `key` for the use that `info` names."""
    return HKDF(SHA256(), length, salt, info).derive(key)
