"""Reading WAL summary files, and refusing every one that was changed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drkit.model.changes import parse_relation_path
from drkit.postgres.crc32c import crc32c
from drkit.postgres.longcrc import long_crc32c
from drkit.postgres.summaryfile import parse_summary


@pytest.fixture(scope="module")
def a_summary() -> bytes:
    """One entry of each kind: a limit alone, listed blocks, blocks as bits."""
    bits = np.zeros(65536, dtype=np.uint8)
    bits[::3] = 1
    words = np.packbits(bits, bitorder="little").tobytes()
    listed = np.array([5, 3, 65535], dtype="<u2").tobytes()
    entries = [
        entry(1663, 5, 0, 0, 0, []),
        entry(1663, 5, 16384, 0, 70000, [b"", listed, words]),
        entry(1663, 5, 16384, 2, 0xFFFFFFFF, [listed]),
        entry(1664, 0, 1262, 0, 0xFFFFFFFF, [listed]),
    ]
    content = (0x652B137B).to_bytes(4, "little") + b"".join(entries) + bytes(24)
    return content + crc32c(content).to_bytes(4, "little")


def entry(
    space: int, database: int, number: int, fork: int, limit: int, chunks: list[bytes]
) -> bytes:
    head = np.array([space, database, number, fork, limit, len(chunks)], dtype="<u4")
    sizes = np.array([len(chunk) // 2 for chunk in chunks], dtype="<u2")
    return head.tobytes() + sizes.tobytes() + b"".join(chunks)


def test_parts_of_a_summary_file(a_summary: bytes) -> None:
    found = parse_summary(a_summary)
    numbers = [relation.number for relation in found.relations]
    assert numbers == [0, 16384, 1262]  # not the visibility map
    assert found.limits.tolist() == [0, 70000, 0xFFFFFFFF]
    mine = found.blocks[found.blocks >> 32 == 1] & 0xFFFFFFFF
    listed = [65536 + block for block in (3, 5, 65535)]
    assert sorted(mine.tolist()) == listed + list(range(131072, 196608, 3))


@given(data=st.data())
def test_no_changed_byte_of_a_summary_is_believed(
    a_summary: bytes, data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, len(a_summary) - 1))
    broken = bytearray(a_summary)
    broken[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(ValueError, match=r"checksum|begin"):
        parse_summary(bytes(broken))
    with pytest.raises(ValueError, match=r"checksum|begin"):
        parse_summary(a_summary[:place])


@given(st.integers(0, 6000), st.randoms(use_true_random=False))
def test_long_checksums_are_as_short_ones(length: int, random: object) -> None:
    data = random.randbytes(length)  # type: ignore[attr-defined]
    assert long_crc32c(data) == crc32c(data)


def test_relations_by_their_paths() -> None:
    relation, segment = parse_relation_path(
        b"pg_tblspc/16400/PG_18_202506291/5/16384.3"
    )
    assert (*relation, segment) == (16400, 5, 16384, 3)
    assert parse_relation_path(b"global/1262") == ((1664, 0, 1262), 0)
