from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from drkit.crypto.keys import (
    PURPOSES,
    LocalKeyProvider,
    dek_of,
    format_kek,
    new_dek,
    parse_kek,
    wrap_context,
)
from drkit.errors import KeyUnavailable

if TYPE_CHECKING:
    from drkit.model.objects import WrappedKey

LINEAGE = bytes(range(16))
KEK = bytes(range(32))


@pytest.mark.parametrize("purpose", PURPOSES)
def test_a_key_file_is_read_as_it_was_written(purpose: str) -> None:
    provider = parse_kek(format_kek(purpose, KEK), purpose, "a file")
    assert provider.kek_id == LocalKeyProvider(KEK).kek_id


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        f"drkit-kek-1:wal:{'0' * 63}",
        f"drkit-kek-1:wal:{'0' * 65}",
        f"drkit-kek-1:wal:{'A' * 64}",
        f"drkit-kek-2:wal:{'0' * 64}",
        f"drkit-signing-1:{'0' * 64}",
        format_kek("wal", KEK) * 2,
    ],
)
def test_what_is_no_key_is_refused_without_being_shown(text: str) -> None:
    with pytest.raises(KeyUnavailable) as caught:
        parse_kek(text, "wal", "env:KEY")
    assert "env:KEY" in str(caught.value)
    assert "0000" not in str(caught.value) + str(caught.value.hint)


def test_a_key_for_another_purpose_is_refused() -> None:
    with pytest.raises(KeyUnavailable, match="for backup, not for wal"):
        parse_kek(format_kek("backup", KEK), "wal", "a file")


def test_no_secret_shows_in_a_representation() -> None:
    dek = new_dek("wal")
    shown = f"{dek!r} {LocalKeyProvider(KEK)!r}"
    assert dek.secret.hex() not in shown
    assert repr(dek.secret) not in shown
    assert KEK.hex() not in shown


def test_a_dek_id_commits_to_the_key() -> None:
    assert dek_of(KEK, "wal").key_id == dek_of(KEK, "backup").key_id
    assert dek_of(KEK, "wal").key_id != dek_of(bytes(32), "wal").key_id
    assert len({new_dek("wal").key_id for _ in range(50)}) == 50


def wrapped() -> tuple[LocalKeyProvider, WrappedKey, bytes, bytes]:
    provider, dek = LocalKeyProvider(KEK), new_dek("wal")
    context = wrap_context(LINEAGE, "wal", dek.key_id)
    return provider, provider.wrap(dek.secret, context), context, dek.secret


def test_a_wrapped_key_unwraps() -> None:
    provider, blob, context, secret = wrapped()
    assert provider.unwrap(blob, context) == secret
    assert len(blob.blob) == 80


def test_wrapping_twice_gives_other_bytes() -> None:
    provider, blob, context, secret = wrapped()
    assert provider.wrap(secret, context).blob != blob.blob


def test_every_bit_of_a_wrapped_key_counts() -> None:
    provider, good, context, _ = wrapped()
    for bit in range(len(good.blob) * 8):
        blob = bytearray(good.blob)
        blob[bit // 8] ^= 1 << bit % 8
        with pytest.raises(KeyUnavailable):
            provider.unwrap(good._replace(blob=bytes(blob)), context)


def test_a_wrapped_key_that_is_cut_or_longer_is_refused() -> None:
    provider, good, context, _ = wrapped()
    for length in range(len(good.blob)):
        with pytest.raises(KeyUnavailable):
            provider.unwrap(good._replace(blob=good.blob[:length]), context)
    with pytest.raises(KeyUnavailable):
        provider.unwrap(good._replace(blob=good.blob + b"\0"), context)


def test_a_wrapped_key_opens_only_in_its_context() -> None:
    provider, blob, _, _ = wrapped()
    key_id = os.urandom(16)
    for context in (
        wrap_context(bytes(16), "wal", key_id),
        wrap_context(LINEAGE, "backup", key_id),
        wrap_context(LINEAGE, "wal", bytes(16)),
    ):
        with pytest.raises(KeyUnavailable, match=provider.kek_id):
            provider.unwrap(blob, context)


def test_another_kek_does_not_open_it() -> None:
    _, blob, context, _ = wrapped()
    with pytest.raises(KeyUnavailable):
        LocalKeyProvider(bytes(32)).unwrap(blob, context)
