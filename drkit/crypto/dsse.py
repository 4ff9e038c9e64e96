"""DSSE envelopes, version 1: signed payloads that say what they are.

https://github.com/secure-systems-lab/dsse; signatures are Ed25519, and a `keyid` is the
public key as policies write it: a hint, which nothing relies on.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from drkit.crypto.signing import format_public, parse_public, verify
from drkit.model import members

if TYPE_CHECKING:
    from collections.abc import Collection

    from drkit.crypto.signing import Signer

_MOST_SIGNATURES = 16
_URL_SAFE = str.maketrans("-_", "+/")


@dataclass(frozen=True, slots=True)
class Envelope:
    """An envelope as it was read; nothing is verified yet.

    Attributes:
        signatures: (keyid, signature) of each; the keyid may be empty.
    """

    payload_type: str
    payload: bytes
    signatures: tuple[tuple[str, bytes], ...]


def encode(payload_type: str, payload: bytes) -> bytes:
    """Return what is signed: the specification's pre-authentication encoding."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def sign(payload_type: str, payload: bytes, *signers: Signer) -> bytes:
    """Return the JSON of an envelope with a signature of each signer."""
    signed = encode(payload_type, payload)
    envelope = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": payload_type,
        "signatures": [
            {
                "keyid": format_public(signer.public),
                "sig": base64.b64encode(signer.sign(signed)).decode(),
            }
            for signer in signers
        ],
    }
    return json.dumps(envelope).encode()


def parse(data: bytes) -> Envelope:
    """Read the JSON of an envelope.

    Raises:
        ValueError, KeyError, TypeError: it is none.
    """
    found = members.parse_object(data)
    signatures = members.listed(found, "signatures")
    if not 1 <= len(signatures) <= _MOST_SIGNATURES:
        raise ValueError(f"it has {len(signatures)} signatures")
    return Envelope(
        members.text(found, "payloadType"),
        _bytes(found, "payload"),
        tuple(map(_signature, signatures)),
    )


def signers(envelope: Envelope, trusted: Collection[bytes]) -> list[bytes]:
    """Return which of the trusted public keys signed the envelope."""
    signed = encode(envelope.payload_type, envelope.payload)
    return [
        public
        for public in sorted(trusted)
        if any(
            verify(public, signature, signed, trusted)
            for _, signature in envelope.signatures
        )
    ]


def named_keys(envelope: Envelope) -> frozenset[bytes]:
    """Return the public keys that the envelope itself names; anyone may write those."""
    found = set()
    for keyid, _ in envelope.signatures:
        try:
            found.add(parse_public(keyid))
        except ValueError:
            continue
    return frozenset(found)


def _signature(found: members.Members) -> tuple[str, bytes]:
    unnamed = "keyid" not in found or found["keyid"] is None
    return "" if unnamed else members.text(found, "keyid"), _bytes(found, "sig")


def _bytes(found: members.Members, name: str) -> bytes:
    """Read base64 in its standard or its URL-safe alphabet."""
    text = members.text(found, name).translate(_URL_SAFE)
    return base64.b64decode(text.encode("ascii"), validate=True)
