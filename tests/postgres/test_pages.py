"""Page checksums against real pages, and against the algorithm written plainly."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drkit.model.page import PAGE
from drkit.postgres.exclusions import relation_file
from drkit.postgres.pages import checksums, failing, page_lsn
from tests.pg import versions_under_test

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import MakeCluster
    from tests.pg import Cluster

BLOCKS_PER_SEGMENT = 131072
MASK = 0xFFFFFFFF
# src/include/storage/checksum_impl.h, checksumBaseOffsets
OFFSETS = [
    0x5B1F36E9, 0xB8525960, 0x02AB50AA, 0x1DE66D2A, 0x79FF467A, 0x9BB9F8A3,
    0x217E7CD2, 0x83E13D2C, 0xF8D4474F, 0xE39EB970, 0x42C6AE16, 0x993216FA,
    0x7B093B5D, 0x98DAFF3C, 0xF718902A, 0x0B1C9CDB, 0xE58F764B, 0x187636BC,
    0x5D7B3BB1, 0xE73DE7DE, 0x92BEC979, 0xCCA6C0B2, 0x304A0979, 0x85AA43D4,
    0x783125BB, 0x6CA8EAA2, 0xE407EAC6, 0x4B5CFC3E, 0x9FBF8C76, 0x15CA20BE,
    0xF2CA9FD3, 0x959BD756,
]  # fmt: skip


def plain_checksum(page: bytes, block: int) -> int:
    """The algorithm word by word, as `pg_checksum_page` describes it."""
    page = page[:8] + b"\0\0" + page[10:]
    sums = list(OFFSETS)

    def mix(lane: int, word: int) -> None:
        value = sums[lane] ^ word
        sums[lane] = (value * 16777619 & MASK) ^ (value >> 17)

    for start in range(0, PAGE, 4):
        mix(start // 4 % 32, int.from_bytes(page[start : start + 4], "little"))
    for _ in range(2):
        for lane in range(32):
            mix(lane, 0)
    folded = 0
    for one in sums:
        folded ^= one
    return (folded ^ block) % 65535 + 1


def with_checksum(page: bytes, block: int) -> bytes:
    return page[:8] + plain_checksum(page, block).to_bytes(2, "little") + page[10:]


def heap_page(seed: int, block: int) -> bytes:
    """A page of random bytes that is not new, with its right checksum."""
    page = bytearray(random.Random(seed).randbytes(PAGE))
    page[14:16] = (4000).to_bytes(2, "little")
    return with_checksum(bytes(page), block)


@given(
    st.integers(0, 2**32 - 4),
    st.lists(st.integers(), min_size=1, max_size=3),
)
@settings(max_examples=30)
def test_checksums_are_those_of_the_plain_algorithm(
    block: int, seeds: list[int]
) -> None:
    pages = [random.Random(seed).randbytes(PAGE) for seed in seeds]
    expected = [plain_checksum(page, block + n) for n, page in enumerate(pages)]
    assert checksums(b"".join(pages), block).tolist() == expected


def test_a_checksum_says_nothing_of_itself_and_is_never_zero() -> None:
    page = bytearray(heap_page(1, 7))
    first = checksums(page, 7).tolist()
    page[8:10] = b"\xff\xff"
    assert checksums(page, 7).tolist() == first
    assert (checksums(os.urandom(PAGE * 200), 0) > 0).all()


def test_good_pages_fail_nothing() -> None:
    pages = b"".join(heap_page(n, 500 + n) for n in range(20))
    assert failing(pages, 500) == []
    assert failing(b"", 0) == []


@pytest.mark.parametrize("wrong", [[0], [19], [3, 4, 11], list(range(20))])
def test_bad_pages_are_named(wrong: list[int]) -> None:
    pages = bytearray(b"".join(heap_page(n, n) for n in range(20)))
    for number in wrong:
        pages[number * PAGE + 5000] ^= 0x10
    assert failing(pages, 0) == wrong


def test_a_page_in_another_ones_place_is_bad() -> None:
    first, second = heap_page(1, 0), heap_page(2, 1)
    assert failing(second + first, 0) == [0, 1]


def test_a_new_page_is_all_zero_or_bad() -> None:
    zero = bytes(PAGE)
    assert failing(zero * 3, 0) == []
    for place in (0, 4, 8, 9, 12, 16, 4096, PAGE - 1):
        dirty = bytearray(zero)
        dirty[place] = 1
        assert failing(zero + dirty + zero, 0) == [1]


def test_a_page_whose_header_was_zeroed_is_bad() -> None:
    page = bytes(24) + heap_page(1, 0)[24:]
    assert failing(page, 0) == [0]


def test_every_single_bit_of_a_page_counts() -> None:
    good = heap_page(3, 9)
    flipped = []
    for bit in random.Random(4).sample(range(PAGE * 8), 500):
        page = bytearray(good)
        page[bit // 8] ^= 1 << bit % 8
        flipped.append(bytes(page))
    for page in flipped:
        assert failing(page, 9) == [0]


def test_the_lsn_of_a_page_is_its_first_eight_bytes() -> None:
    page = (0x16).to_bytes(4, "little") + (0xB374D848).to_bytes(4, "little")
    assert page_lsn(page + bytes(PAGE - 8)) == 0x16B374D848


# -- pages that a server wrote


@pytest.fixture(
    scope="module", params=versions_under_test(), ids=lambda major: f"pg{major}"
)
def stopped(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A cluster that was written to, stopped, and passed by pg_checksums."""
    factory = request.getfixturevalue("cluster_factory")
    cluster = factory.make(request.param)
    try:
        cluster.sql(
            "CREATE TABLE t (id int PRIMARY KEY, words text, doc jsonb);"
            "INSERT INTO t SELECT n, repeat(md5(n::text), 20), '{\"a\": [1, 2]}' "
            "FROM generate_series(1, 20000) AS n;"
            "CREATE INDEX ON t USING gin (doc);"
            "CREATE INDEX ON t USING brin (id);"
            "CREATE INDEX ON t USING hash (words);"
            "CREATE UNLOGGED TABLE u AS SELECT * FROM t LIMIT 100;"
            "CREATE SEQUENCE s; SELECT nextval('s');"
            "DELETE FROM t WHERE id % 3 = 0"
        )
        cluster.sql("VACUUM t")
        cluster.stop()
        cluster.run_tool("pg_checksums", "--check", "-D", cluster.data_directory)
        yield cluster
    finally:
        cluster.close()


def relations(directory: str) -> Iterator[tuple[Path, int]]:
    """Yield each file of pages, and the number of its first block."""
    for path in sorted(Path(directory).rglob("*")):
        file = relation_file(os.fsencode(path.relative_to(directory)))
        if file is not None and path.is_file():
            yield path, file.segment * BLOCKS_PER_SEGMENT


def test_every_page_of_a_stopped_cluster_passes(stopped: Cluster) -> None:
    pages = 0
    for path, first_block in relations(stopped.data_directory):
        content = path.read_bytes()
        assert len(content) % PAGE == 0
        assert failing(content, first_block) == [], path
        pages += len(content) // PAGE
    assert pages > 3000


def test_some_of_its_pages_by_the_plain_algorithm(stopped: Cluster) -> None:
    chance = random.Random(5)
    files = [(p, b) for p, b in relations(stopped.data_directory) if p.stat().st_size]
    for path, first_block in chance.sample(files, 20):
        content = path.read_bytes()
        number = chance.randrange(len(content) // PAGE)
        page = content[number * PAGE : (number + 1) * PAGE]
        if any(page):
            carried = int.from_bytes(page[8:10], "little")
            assert plain_checksum(page, first_block + number) == carried


def test_what_we_call_bad_pg_checksums_calls_bad(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(15)
    cluster.sql("CREATE TABLE t AS SELECT n FROM generate_series(1, 5000) AS n")
    path = Path(cluster.data_directory, cluster.sql("SELECT pg_relation_filepath('t')"))
    cluster.stop()
    content = bytearray(path.read_bytes())
    content[3 * PAGE + 4000] ^= 1
    content[7 * PAGE + 14 : 7 * PAGE + 16] = b"\0\0"
    path.write_bytes(content)
    assert failing(content, 0) == [3, 7]
    with pytest.raises(Exception, match="block 3") as caught:
        cluster.run_tool("pg_checksums", "--check", "-D", cluster.data_directory)
    assert "block 4" not in str(caught.value)
