"""Sealed objects as wholes: compressed, bounded, and refused when anything is off."""

from __future__ import annotations

import os
import subprocess
import sys
import tracemalloc

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from drkit.crypto.keys import dek_of
from drkit.errors import Corrupt
from drkit.repository.codec import (
    FRAME_BYTES,
    compress,
    compressor,
    decompress,
)
from drkit.repository.objects import Sealing, seal, unseal
from tests.vectors.broken_objects import claim
from tests.vectors.forge import Forger

LINEAGE = bytes(range(16))
NAME = "alpha/log/0000000000"
DEK = dek_of(bytes(range(32)), "catalog")
FORGER = Forger(DEK.secret, LINEAGE, "catalog")


def sealed(plain: bytes) -> bytes:
    return bytes(seal(Sealing(DEK, LINEAGE, NAME), plain))


def opened(data: bytes, limit: int = 1 << 30) -> bytes:
    return unseal(lambda _: DEK, LINEAGE, NAME, "catalog", data, limit)


def refused(data: bytes, limit: int = 1 << 30) -> None:
    with pytest.raises(Corrupt) as caught:
        opened(data, limit)
    assert NAME in str(caught.value)


@given(st.binary(max_size=2000))
def test_an_object_comes_back(plain: bytes) -> None:
    assert opened(sealed(plain)) == plain


@pytest.mark.parametrize(
    "length", [0, 1, FRAME_BYTES - 1, FRAME_BYTES, FRAME_BYTES + 1, 3 * FRAME_BYTES]
)
@pytest.mark.parametrize("random", [True, False], ids=["random", "zeros"])
def test_odd_lengths_come_back(length: int, random: bool) -> None:
    plain = os.urandom(length) if random else bytes(length)
    assert opened(sealed(plain)) == plain


def test_what_does_not_shrink_is_stored_as_it_is() -> None:
    assert compress(compressor(3), b"x")[1] == 0
    assert compress(compressor(3), b"x" * 1000)[1] == 1


@pytest.mark.parametrize("level", [-3, 1, 3, 4, 9, 19])
def test_every_level_is_read_back(level: int) -> None:
    plain = os.urandom(1000) + b"pages of rows " * 50_000
    payload, codec = compress(compressor(level), plain)
    assert decompress(NAME, bytes(payload), len(plain), codec) == plain


def lengths(payload: bytes, plain: int, codec: int = 1) -> bytes:
    return FORGER.seal(NAME, [(payload, plain, codec)])


BOMB = zstandard.compress(bytes(64 << 20), 19)


def endless() -> bytes:
    """A zstd frame that says nothing of its length."""
    with_ = zstandard.ZstdCompressor(write_content_size=False)
    return with_.compress(bytes(8 << 20))


@pytest.mark.parametrize(
    "data",
    [
        lengths(BOMB, 100),
        lengths(BOMB, 4 << 20),
        lengths(claim(BOMB, 100), 100),
        lengths(claim(BOMB, 4 << 20), 4 << 20),
        lengths(endless(), 100),
        lengths(zstandard.compress(b"content") + b"\0", 7),
        lengths(zstandard.compress(b"content") * 2, 7),
        lengths(zstandard.compress(b"content") * 2, 14),
        lengths(zstandard.compress(b"content"), 8),
        lengths(zstandard.compress(b"content"), 6),
        lengths(b"", 7),
        lengths(b"content", 7),
        lengths(b"content", 8, 0),
        lengths(b"content", 6, 0),
        lengths(b"\x50\x2a\x4d\x18\x04\0\0\0skip", 0),
    ],
    ids=range(15),
)
def test_a_frame_that_expands_to_something_else_is_refused(data: bytes) -> None:
    refused(data)


def test_a_bomb_takes_no_memory() -> None:
    data = lengths(claim(BOMB, 4 << 20), 4 << 20)
    tracemalloc.start()
    try:
        refused(data)
        refused(lengths(BOMB, 4 << 20))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 6 << 20


def test_many_frames_stop_at_the_limit() -> None:
    frame = zstandard.compress(bytes(4 << 20))
    data = FORGER.seal(NAME, [(frame, 4 << 20, 1)] * 1000)
    assert len(data) < 1 << 20
    tracemalloc.start()
    try:
        refused(data, limit=8 << 20)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20 << 20


# What tracemalloc can't see, the kernel does: native allocations under a hard limit.
CONFINED = f"""
import resource, sys
from drkit.crypto.keys import dek_of
from drkit.errors import Corrupt
from drkit.repository.objects import unseal
data = sys.stdin.buffer.read()
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
limit = used + (64 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
resource.setrlimit(resource.RLIMIT_CPU, (5, 5))
dek = dek_of(bytes(range(32)), "catalog")
try:
    unseal(lambda _: dek, bytes(range(16)), "{NAME}", "catalog", data, 1 << 20)
except Corrupt as error:
    print(error)
"""


@pytest.mark.parametrize(
    "data",
    [lengths(zstandard.compress(bytes(1 << 30), 3), 100), lengths(claim(BOMB, 99), 99)],
    ids=["honest", "lying"],
)
def test_a_bomb_is_refused_in_little_memory_and_time(data: bytes) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CONFINED], input=data, capture_output=True, check=True
    )
    assert NAME in done.stdout.decode()


@given(st.data())
@settings(max_examples=100)
def test_random_damage_is_refused(data: st.DataObject) -> None:
    good = sealed(b"some plaintext " * 20)
    place = data.draw(st.integers(0, len(good) - 1))
    value = data.draw(st.integers(1, 255))
    changed = bytearray(good)
    changed[place] ^= value
    refused(bytes(changed))


def test_every_bit_of_a_compressed_object_counts() -> None:
    good = sealed(b"some plaintext " * 20)
    for bit in range(len(good) * 8):
        changed = bytearray(good)
        changed[bit // 8] ^= 1 << bit % 8
        refused(bytes(changed))
