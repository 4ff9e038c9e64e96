"""Sealed objects that no writer makes: what a thief of the keys could put there.

Written from docs/repository-format.md, as the reader beside it is. Everything is
authentic but what the caller asks to be wrong.
"""

from __future__ import annotations

import json
import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.vectors.derive import hkdf, lp
from tests.vectors.reader import PURPOSES

if TYPE_CHECKING:
    from collections.abc import Sequence

Payload = tuple[bytes, int, int]  # bytes, claimed plaintext length, codec


@dataclass(frozen=True)
class Forger:
    """Holds a DEK, and seals what it likes under it."""

    dek: bytes
    lineage: bytes
    purpose: str

    def seal(
        self,
        name: str,
        payloads: Sequence[Payload],
        *,
        version: int = 1,
        code: int | None = None,
        reserved: bytes = bytes(5),
        rows: bytes | None = None,
        last_flag: int = 0,
    ) -> bytes:
        """Seal payloads as `name`.

        Args:
            name: the object's name.
            payloads: one per frame.
            version: in the header.
            code: of the purpose, in the header.
            reserved: bytes of the header.
            rows: of the index, instead of the right ones.
            last_flag: the nonce's last byte of data frames.
        """
        salt = os.urandom(32)
        where = lp(self.lineage, name, self.purpose)
        key_id = hkdf(self.dek, lp("drkit/1/dek-id"), length=16)
        code = PURPOSES[self.purpose] if code is None else code
        header = struct.pack("<8sHB5s", b"drkitobj", version, code, reserved)
        header += key_id + salt + hkdf(self.dek, lp("drkit/1/commitment") + where, salt)
        aead = AESGCM(hkdf(self.dek, lp("drkit/1/frame-key") + where, salt))
        sealed = [
            aead.encrypt(number.to_bytes(11, "big") + bytes([last_flag]), data, header)
            for number, (data, _, _) in enumerate(payloads)
        ]
        if rows is None:
            rows = b"".join(
                index_row(len(frame), plain, codec)
                for frame, (_, plain, codec) in zip(sealed, payloads, strict=True)
            )
        count = len(rows) // 12
        index = aead.encrypt(count.to_bytes(11, "big") + b"\1", rows, header)
        body = header + b"".join(sealed)
        footer = struct.pack("<QII8s", len(body), len(index), count, b"drkitend")
        return body + index + footer


def index_row(stored: int, plain: int, codec: int, reserved: bytes = bytes(3)) -> bytes:
    """One row of an index frame."""
    return struct.pack("<IIB3s", stored, plain, codec, reserved)


def signed_entry(
    seed: bytes, lineage: bytes, name: str, payload: dict[str, Any] | bytes
) -> bytes:
    """Return a log entry's plaintext, signed, whatever its payload says."""
    raw = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    key = Ed25519PrivateKey.from_private_bytes(seed)
    public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return key.sign(lp("drkit/1/log", lineage, name) + raw) + public + raw
