"""The key hierarchy: key-encrypting keys wrap random data-encrypting keys.

Formats are in docs/repository-format.md, "Keys".
"""

from __future__ import annotations

import hmac
import os
import re
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from drkit.crypto.derive import derive, length_prefixed
from drkit.errors import KeyUnavailable
from drkit.model.objects import WrappedKey

KEY_BYTES = 32
_SALT_BYTES = 32
_ONCE = bytes(12)  # the wrap key is used for one message only

PURPOSES = {"backup": 1, "wal": 2, "dump": 3, "files": 4, "catalog": 5}
"""Purposes, and the byte that stands for each in an object's header."""

_KEK_LINE = re.compile(r"drkit-kek-1:([a-z]+):([0-9a-f]{64})\s*\Z")


class Dek(NamedTuple):
    """A data-encrypting key; `key_id` is 16 bytes that commit to `secret`."""

    key_id: bytes
    purpose: str
    secret: bytes

    def __repr__(self) -> str:
        return f"Dek({self.purpose} {self.key_id.hex()})"


def new_dek(purpose: str) -> Dek:
    """Make a random DEK."""
    return dek_of(os.urandom(KEY_BYTES), purpose)


def dek_of(secret: bytes, purpose: str) -> Dek:
    """Return the DEK whose key material is `secret`, with its id."""
    key_id = derive(secret, length_prefixed("drkit/1/dek-id"), length=16)
    return Dek(key_id, purpose, secret)


def wrap_context(lineage: bytes, purpose: str, key_id: bytes) -> bytes:
    """Return what a wrapped DEK is bound to."""
    return length_prefixed(lineage, purpose, key_id)


class LocalKeyProvider:
    """A key-encrypting key that was read from a local secret."""

    name = "local"

    def __init__(self, kek: bytes) -> None:
        self._kek = kek
        tag = derive(kek, length_prefixed("drkit/1/kek-id"), length=8)
        self._kek_id = f"{self.name}:{tag.hex()}"

    def __repr__(self) -> str:
        return f"LocalKeyProvider({self._kek_id})"

    @property
    def kek_id(self) -> str:
        """Name the KEK by bytes derived from it."""
        return self._kek_id

    def wrap(self, dek: bytes, context: bytes) -> WrappedKey:
        """Wrap a DEK under a fresh key derived from the KEK."""
        salt = os.urandom(_SALT_BYTES)
        blob = salt + self._aead(salt, context).encrypt(_ONCE, dek, context)
        return WrappedKey(self.name, self._kek_id, blob)

    def unwrap(self, wrapped: WrappedKey, context: bytes) -> bytes:
        """Return the DEK, or raise KeyUnavailable."""
        salt, sealed = wrapped.blob[:_SALT_BYTES], wrapped.blob[_SALT_BYTES:]
        try:
            return self._aead(salt, context).decrypt(_ONCE, sealed, context)
        except (InvalidTag, ValueError):
            raise KeyUnavailable(
                f"the key {self._kek_id} does not open a data key that names it",
                hint="the key object was changed or comes from another repository",
            ) from None

    def _aead(self, salt: bytes, context: bytes) -> AESGCM:
        info = length_prefixed("drkit/1/wrap") + context
        return AESGCM(derive(self._kek, info, salt=salt))


def format_kek(purpose: str, kek: bytes) -> str:
    """Return the line that a key file holds."""
    return f"drkit-kek-1:{purpose}:{kek.hex()}\n"


def parse_kek(text: str, purpose: str, source: str) -> LocalKeyProvider:
    """Read a key file's line.

    Args:
        source: where the text came from, for the message; never the text itself.

    Raises:
        KeyUnavailable: not a key, or one for another purpose.
    """
    match = _KEK_LINE.match(text)
    if match is None:
        raise KeyUnavailable(
            f"{source} holds no drkit key",
            # not as it is written: what looks like a key is never shown
            hint="expected one line of three parts with colons between them: "
            f"drkit-kek-1, {purpose}, 64 hex digits",
        )
    if match[1] != purpose:
        raise KeyUnavailable(
            f"{source} holds a key for {match[1]}, not for {purpose}",
            hint="each purpose has a key of its own; check the policy's `keys`",
        )
    return LocalKeyProvider(bytes.fromhex(match[2]))


def same_key_id(first: bytes, second: bytes) -> bool:
    """Compare two DEK ids in constant time."""
    return hmac.compare_digest(first, second)
