from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drkit.crypto.keys import Dek, dek_of, new_dek
from drkit.crypto.sealing import (
    FOOTER_BYTES,
    HEADER_BYTES,
    MAX_FRAME,
    MAX_FRAMES,
    TAG,
    Opener,
    Sealer,
    open_whole,
    overhead,
)
from drkit.errors import Corrupt, KeyUnavailable
from tests.vectors.forge import Forger, index_row

if TYPE_CHECKING:
    from collections.abc import Sequence

LINEAGE = bytes(range(16))
NAME = "alpha/wal/1/00000001/00000000/000000010000000000000001"
DEK = dek_of(bytes(range(32)), "wal")


def find(key_id: bytes) -> Dek:
    if key_id != DEK.key_id:
        raise KeyUnavailable(f"no data key {key_id.hex()}")
    return DEK


def sealed(payloads: Sequence[bytes], name: str = NAME, dek: Dek = DEK) -> bytes:
    size = overhead(len(payloads)) + sum(map(len, payloads))
    sealer = Sealer(dek, LINEAGE, name, bytearray(size))
    for payload in payloads:
        sealer.add(payload, len(payload), 0)
    whole = sealer.finish()
    assert len(whole) == size
    return bytes(whole)


def opened(data: bytes, name: str = NAME, purpose: str = "wal") -> list[bytes]:
    opener = Opener(find, LINEAGE, name, purpose, data)
    return [payload for _, payload in open_whole(opener, name, data)]


def refused(data: bytes) -> None:
    with pytest.raises((Corrupt, KeyUnavailable)) as caught:
        opened(data)
    assert NAME in str(caught.value)


@given(st.lists(st.binary(max_size=200), max_size=8))
def test_frames_come_back(payloads: list[bytes]) -> None:
    assert opened(sealed(payloads)) == payloads


def test_sealing_twice_shares_no_byte_of_salt_or_payload() -> None:
    first, second = sealed([bytes(100)]), sealed([bytes(100)])
    assert first[32:64] != second[32:64]
    assert first[96:212] != second[96:212]


def test_every_single_bit_counts() -> None:
    good = sealed([b"a frame", b"", b"and another"])
    for bit in range(len(good) * 8):
        data = bytearray(good)
        data[bit // 8] ^= 1 << bit % 8
        refused(bytes(data))


def test_every_byte_can_be_the_last_one_and_is_missed() -> None:
    good = sealed([b"a frame", b"and another"])
    for end in range(len(good)):
        refused(good[:end])
    refused(good + b"\0")
    refused(good + good)
    refused(b"\0" + good)


@given(st.data())
@settings(max_examples=200)
def test_random_damage_is_refused(data: st.DataObject) -> None:
    good = sealed([b"a frame", b"and another", bytes(50)])
    start = data.draw(st.integers(0, len(good) - 1))
    noise = data.draw(st.binary(min_size=1, max_size=40))
    changed = good[:start] + noise + good[start + len(noise) :]
    if changed != good:
        refused(changed)


def test_frames_can_not_change_places() -> None:
    good = sealed([b"first half ", b"second half"])
    length = 11 + TAG
    first, second = HEADER_BYTES, HEADER_BYTES + length
    refused(
        good[:first]
        + good[second : second + length]
        + good[first:second]
        + good[second + length :]
    )
    refused(good[:first] + 2 * good[first:second] + good[second + length :])


def test_frames_of_another_object_are_refused() -> None:
    good, other = sealed([b"one frame"]), sealed([b"the other"])
    refused(good[:HEADER_BYTES] + other[HEADER_BYTES:])


def test_an_object_opens_only_under_its_own_name_purpose_lineage_and_key() -> None:
    good = sealed([b"content"])
    with pytest.raises(Corrupt, match="not sealed under this name"):
        opened(good, name=NAME[:-1] + "2")
    with pytest.raises(Corrupt, match="another purpose"):
        opened(good, purpose="backup")
    with pytest.raises(Corrupt, match="not sealed under this name"):
        Opener(find, bytes(16), NAME, "wal", good)
    with pytest.raises(Corrupt, match="not sealed under this name"):
        Opener(lambda _: new_dek("wal"), LINEAGE, NAME, "wal", good)


def test_a_key_that_can_not_be_had_names_object_and_key() -> None:
    other = new_dek("wal")
    with pytest.raises(KeyUnavailable) as caught:
        opened(sealed([b"content"], dek=other))
    assert NAME in str(caught.value)
    assert other.key_id.hex() in str(caught.value)


def test_an_unknown_version_says_to_upgrade() -> None:
    data = Forger(DEK.secret, LINEAGE, "wal").seal(NAME, [], version=3)
    with pytest.raises(Corrupt, match="format version 3") as caught:
        opened(data)
    assert "upgrade" in (caught.value.hint or "")


def test_nothing_but_wal_is_signed() -> None:
    dek = new_dek("catalog")
    data = Forger(dek.secret, LINEAGE, "catalog").seal(NAME, [], version=2)
    with pytest.raises(Corrupt, match="format version 2"):
        Opener(lambda _: dek, LINEAGE, NAME, "catalog", data)


@pytest.mark.parametrize(
    "row",
    [
        index_row(7 + TAG, 7, 128),
        index_row(7 + TAG, 7, 0, b"\1\0\0"),
        index_row(7 + TAG, MAX_FRAME + 1, 1),
        index_row(6 + TAG, 7, 0),
        index_row(8 + TAG, 7, 0),
        index_row(2**32 - 1, 7, 0),
        index_row(0, 7, 0),
    ],
    ids=["codec", "reserved", "plain", "short", "long", "giant", "nothing"],
)
def test_an_authentic_index_that_lies_is_refused(row: bytes) -> None:
    refused(
        Forger(DEK.secret, LINEAGE, "wal").seal(NAME, [(b"content", 7, 0)], rows=row)
    )


def test_an_index_of_more_frames_than_there_are_is_refused() -> None:
    forger = Forger(DEK.secret, LINEAGE, "wal")
    rows = index_row(7 + TAG, 7, 0)
    for wrong in (b"", rows * 2, rows + index_row(0, 0, 0)):
        refused(forger.seal(NAME, [(b"content", 7, 0)], rows=wrong))


def test_a_giant_count_in_the_footer_is_refused_before_anything_is_allocated() -> None:
    good = bytearray(sealed([b"content"]))
    for count in (MAX_FRAMES + 1, 2**32 - 1):
        good[-FOOTER_BYTES + 12 : -FOOTER_BYTES + 16] = count.to_bytes(4, "little")
        refused(bytes(good))


def test_the_frame_flag_of_the_nonce_is_bound() -> None:
    forger = Forger(DEK.secret, LINEAGE, "wal")
    refused(forger.seal(NAME, [(b"content", 7, 0)], last_flag=1))


def test_a_bad_frame_leaves_no_plaintext_in_the_callers_buffer() -> None:
    secret = b"plaintext that must not leak" * 100
    data = bytearray(sealed([secret]))
    end = HEADER_BYTES + len(secret) + TAG
    data[end - 1] ^= 1
    opener = Opener(find, LINEAGE, NAME, "wal", data)
    into = bytearray(b"\xee" * len(secret))
    with pytest.raises(Corrupt, match="frame 0"):
        opener.open_frame_into(0, bytes(data[HEADER_BYTES:end]), memoryview(into))
    assert into == bytes(len(secret))


def test_a_good_frame_is_opened_into_the_callers_buffer() -> None:
    data = sealed([b"one", b"two!"])
    opener = Opener(find, LINEAGE, NAME, "wal", data)
    into = bytearray(4)
    start = HEADER_BYTES + 3 + TAG
    opener.open_frame_into(1, data[start : start + 4 + TAG], memoryview(into))
    assert into == b"two!"
    with pytest.raises(Corrupt):
        opener.open_frame_into(0, data[start : start + 4 + TAG], memoryview(into))


def test_the_writer_refuses_what_readers_would() -> None:
    sealer = Sealer(DEK, LINEAGE, NAME, bytearray(1000))
    with pytest.raises(ValueError, match="exceeds"):
        sealer.add(b"x", MAX_FRAME + 1, 1)
    with pytest.raises(ValueError, match="exceeds"):
        sealer.add(bytes(1000), 1000, 0)
    assert not sealer.fits(1000)


@given(st.integers(0, 300), st.integers(0, 400))
def test_what_fits_does_fit(first: int, second: int) -> None:
    sealer = Sealer(DEK, LINEAGE, NAME, bytearray(500))
    added = []
    for length in (first, second):
        if sealer.fits(length):
            sealer.add(bytes(length), length, 0)
            added.append(bytes(length))
    assert opened(bytes(sealer.finish())) == added
