from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from drkit.crypto.derive import derive, length_prefixed

FIELDS = st.lists(st.binary(max_size=20), max_size=4)


def test_derive_is_hkdf_sha256_of_rfc_5869() -> None:
    # RFC 5869, appendix A.1
    key = bytes.fromhex("0b" * 22)
    salt = bytes.fromhex("000102030405060708090a0b0c")
    info = bytes.fromhex("f0f1f2f3f4f5f6f7f8f9")
    okm = (
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf"
        "34007208d5b887185865"
    )
    assert derive(key, info, salt=salt, length=42).hex() == okm


def test_derive_without_a_salt_is_hkdf_with_a_salt_of_zeros() -> None:
    # RFC 5869, appendix A.3
    okm = (
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d"
        "9d201395faa4b61a96c8"
    )
    assert derive(bytes.fromhex("0b" * 22), b"", length=42).hex() == okm


@given(FIELDS, FIELDS)
def test_no_two_lists_of_fields_give_the_same_bytes(
    first: list[bytes], second: list[bytes]
) -> None:
    same = length_prefixed(*first) == length_prefixed(*second)
    assert same == (first == second)


def test_text_counts_as_utf8_and_lengths_are_little_endian() -> None:
    assert length_prefixed("é", b"\0") == b"\x02\x00\xc3\xa9\x01\x00\x00"
