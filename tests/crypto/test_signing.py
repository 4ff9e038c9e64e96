from __future__ import annotations

import pytest

from drkit.crypto.signing import (
    Signer,
    format_public,
    format_signing_key,
    parse_public,
    parse_signing_key,
    verify,
)
from drkit.errors import KeyUnavailable

SEED = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
PUBLIC = bytes.fromhex(
    "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
)


def test_signatures_are_those_of_rfc_8032() -> None:
    # RFC 8032, section 7.1, test 2
    signer = Signer(SEED)
    assert signer.public == PUBLIC
    assert signer.sign(b"\x72").hex() == (
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )


def test_only_a_trusted_signer_is_believed() -> None:
    signer = Signer(SEED)
    signature = signer.sign(b"a message")
    assert verify(PUBLIC, signature, b"a message", {PUBLIC})
    assert not verify(PUBLIC, signature, b"a message", set())
    assert not verify(PUBLIC, signature, b"a message", {bytes(32)})


def test_every_bit_of_a_signature_and_its_message_counts() -> None:
    signature, message = Signer(SEED).sign(b"a message"), b"a message"
    for bit in range(len(signature) * 8):
        changed = bytearray(signature)
        changed[bit // 8] ^= 1 << bit % 8
        assert not verify(PUBLIC, bytes(changed), message, {PUBLIC})
    for bit in range(len(message) * 8):
        changed = bytearray(message)
        changed[bit // 8] ^= 1 << bit % 8
        assert not verify(PUBLIC, signature, bytes(changed), {PUBLIC})


def test_a_trusted_key_that_is_no_point_verifies_nothing() -> None:
    for public in (bytes(32), b"\xff" * 32, b"\x01" + bytes(31)):
        assert not verify(public, b"\x05" * 64, b"a message", {public})


def test_keys_are_read_as_they_are_written() -> None:
    assert parse_public(format_public(PUBLIC)) == PUBLIC
    assert parse_signing_key(format_signing_key(SEED), "a file").public == PUBLIC


@pytest.mark.parametrize("text", ["", "ed25519:", f"ed25519:{'0' * 62}", "rsa:00"])
def test_what_is_no_public_key_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no public key"):
        parse_public(text)


@pytest.mark.parametrize(
    "text", ["", "drkit-signing-1:00", "drkit-kek-1:wal:" + "0" * 64]
)
def test_what_is_no_signing_key_is_refused(text: str) -> None:
    with pytest.raises(KeyUnavailable, match="a file"):
        parse_signing_key(text, "a file")


def test_no_secret_shows_in_a_representation() -> None:
    assert SEED.hex() not in repr(Signer(SEED))
