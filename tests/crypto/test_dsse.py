"""DSSE envelopes, against the specification's own example."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import given
from hypothesis import strategies as st

from drkit.crypto import dsse
from drkit.crypto.signing import Signer, format_public

TYPE, BODY = "http://example.com/HelloWorld", b"hello world"
SIGNER, OTHER = Signer(bytes(range(32))), Signer(bytes(32))
# From the specification's protocol.md, "Test Vectors".
EXAMPLE = {
    "payload": "aGVsbG8gd29ybGQ=",
    "payloadType": TYPE,
    "signatures": [
        {
            "sig": "A3JqsQGtVsJ2O2xqrI5IcnXip5GToJ3F+FnZ+O88SjtR6rDAajabZKciJTfUiHqJ"
            "PcIAriEGAHTVeCUjW2JIZA=="
        }
    ],
}
X = 46950820868899156662930047687818585632848591499744589407958293238635476079160
Y = 5640078356564379163099075877009565129882514886557779369047442380624545832820


def test_the_encoding_is_the_specifications() -> None:
    encoded = dsse.encode(TYPE, BODY)
    assert encoded == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    assert dsse.encode("é", b"\x00") == b"DSSEv1 2 \xc3\xa9 1 \x00"
    assert dsse.encode("", b"") == b"DSSEv1 0  0 "


def test_the_specifications_example_is_read_and_its_signature_fits() -> None:
    envelope = dsse.parse(json.dumps(EXAMPLE).encode())
    assert (envelope.payload_type, envelope.payload) == (TYPE, BODY)
    ((keyid, raw),) = envelope.signatures
    assert keyid == ""
    signature = encode_dss_signature(
        int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big")
    )
    public = ec.EllipticCurvePublicNumbers(X, Y, ec.SECP256R1()).public_key()
    encoded = dsse.encode(envelope.payload_type, envelope.payload)
    public.verify(signature, encoded, ec.ECDSA(SHA256()))
    # Ed25519 takes no such signature, and the example names no key.
    assert dsse.signers(envelope, {SIGNER.public}) == []
    assert dsse.named_keys(envelope) == frozenset()


@given(st.text(st.characters(codec="utf-8")), st.binary())
def test_what_is_signed_is_read(kind: str, body: bytes) -> None:
    envelope = dsse.parse(dsse.sign(kind, body, SIGNER))
    assert (envelope.payload_type, envelope.payload) == (kind, body)
    assert dsse.signers(envelope, {SIGNER.public, OTHER.public}) == [SIGNER.public]
    assert dsse.signers(envelope, {OTHER.public}) == []
    assert dsse.named_keys(envelope) == {SIGNER.public}


@given(st.binary(), st.binary())
def test_type_and_body_can_not_trade_places(kind: bytes, body: bytes) -> None:
    """Whatever the parts are, no two pairs have the same encoding."""
    text = kind.decode("latin-1")
    encoded = dsse.encode(text, body)
    assert dsse.encode(text + " ", body) != encoded
    assert dsse.encode(text, b" " + body) != encoded


def changed(**members: Any) -> bytes:
    found = json.loads(dsse.sign(TYPE, BODY, SIGNER))
    return json.dumps(found | members).encode()


def test_a_keyid_decides_nothing() -> None:
    ((_, raw),) = dsse.parse(dsse.sign(TYPE, BODY, SIGNER)).signatures
    sig = base64.urlsafe_b64encode(raw).decode()
    for keyid in ("", None, "whatever", "ed25519:zz", format_public(OTHER.public)):
        signatures = [{"keyid": keyid, "sig": sig}]
        envelope = dsse.parse(changed(signatures=signatures))
        assert dsse.signers(envelope, {SIGNER.public}) == [SIGNER.public]
        assert SIGNER.public not in dsse.named_keys(envelope)


def test_one_of_several_signatures_is_enough() -> None:
    both = [
        json.loads(dsse.sign(TYPE, BODY, one))["signatures"][0]
        for one in (OTHER, SIGNER)
    ]
    envelope = dsse.parse(changed(signatures=both))
    assert dsse.signers(envelope, {SIGNER.public}) == [SIGNER.public]
    assert len(dsse.signers(envelope, {SIGNER.public, OTHER.public})) == 2


def test_a_signature_is_for_its_type_and_body_only() -> None:
    for members in ({"payloadType": "text/plain"}, {"payload": "aGVsbG8="}):
        envelope = dsse.parse(changed(**members))
        assert dsse.signers(envelope, {SIGNER.public}) == []


@pytest.mark.parametrize(
    "members",
    [
        {"payload": 1},
        {"payload": "not base64!"},
        {"payload": "aGVs"[:3]},
        {"payload": "é"},
        {"payloadType": None},
        {"signatures": []},
        {"signatures": {}},
        {"signatures": ["sig"]},
        {"signatures": [{}]},
        {"signatures": [{"keyid": 7, "sig": ""}]},
        {"signatures": [{"sig": "x" * 5}]},
        {"signatures": [{"sig": "AAAA"}] * 17},
    ],
)
def test_what_is_no_envelope_is_refused(members: dict[str, Any]) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        dsse.parse(changed(**members))
    with pytest.raises((ValueError, KeyError, TypeError)):
        dsse.parse(b"[]")
