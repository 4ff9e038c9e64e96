"""Keys from keys, as docs/repository-format.md has it."""

from __future__ import annotations

import struct

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


def lp(*fields: bytes | str) -> bytes:
    raw = [field.encode() if isinstance(field, str) else field for field in fields]
    return b"".join(struct.pack("<H", len(field)) + field for field in raw)


def hkdf(key: bytes, info: bytes, salt: bytes = bytes(32), length: int = 32) -> bytes:
    return HKDF(algorithm=SHA256(), length=length, salt=salt, info=info).derive(key)
