"""Ed25519 signatures (RFC 8032) over log entries, and the keys that make them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)

from drkit.errors import KeyUnavailable

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

SIGNATURE_BYTES = 64
PUBLIC_BYTES = 32
_LINE = re.compile(r"drkit-signing-1:([0-9a-f]{64})\s*\Z")


class Signer:
    """Signs with the private key whose seed is `seed`."""

    def __init__(self, seed: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        public = self._key.public_key()
        self.public = public.public_bytes_raw()

    def __repr__(self) -> str:
        return f"Signer({format_public(self.public)})"

    def sign(self, message: bytes) -> bytes:
        """Return a 64-byte signature."""
        return self._key.sign(message)


def verify(
    public: bytes, signature: bytes, message: bytes, trusted: Collection[bytes]
) -> bool:
    """Say whether a trusted signer signed exactly `message`."""
    if public not in trusted:
        return False
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except InvalidSignature:
        return False
    return True


def foreign_signer(named: str, pins: str) -> str:
    """Return the hint for what a key signed that nobody pins.

    The object names the key itself, so whoever forged it chose it.

    Args:
        named: the public key that it names.
        pins: the member of a policy that would pin it.
    """
    return (
        f"anybody can have signed it: it names {named}. Compare that with what `drkit "
        "keys list` shows on the host that signs. Only if it is the same, pin it "
        f"in `{pins}`; else look for an intact copy of the repository"
    )


def format_public(public: bytes) -> str:
    """Return a public key as policies write it."""
    return f"ed25519:{public.hex()}"


def parse_public(text: str) -> bytes:
    """Read a public key as policies write it.

    Raises:
        ValueError: not such a key.
    """
    scheme, _, digits = text.partition(":")
    raw = bytes.fromhex(digits) if scheme == "ed25519" else b""
    if len(raw) != PUBLIC_BYTES:
        raise ValueError(f"{text!r} is no public key; write it as ed25519:<64 hex>")
    return raw


def public_keys(texts: Iterable[str]) -> frozenset[bytes]:
    """Read public keys as policies write them.

    Raises:
        ValueError: one of them is none.
    """
    return frozenset(map(parse_public, texts))


def format_signing_key(seed: bytes) -> str:
    """Return the line that a signing key's file holds."""
    return f"drkit-signing-1:{seed.hex()}\n"


def parse_signing_key(text: str, source: str) -> Signer:
    """Read a signing key's line; `source` says where it came from.

    Raises:
        KeyUnavailable: not a signing key.
    """
    match = _LINE.match(text)
    if match is None:
        raise KeyUnavailable(
            f"{source} holds no drkit signing key",
            # not as it is written: what looks like a key is never shown
            hint="expected one line of two parts with a colon between them: "
            "drkit-signing-1, 64 hex digits",
        )
    return Signer(bytes.fromhex(match[1]))
