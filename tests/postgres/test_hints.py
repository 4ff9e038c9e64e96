"""Hints: what may differ between two states of a page that nothing tells of."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from drkit.model.page import PAGE
from drkit.postgres.hints import same_but_hints
from drkit.postgres.pages import page_lsn

if TYPE_CHECKING:
    from tests.conftest import MakeCluster
    from tests.pg import Cluster

TUPLES = [7000, 7500, 8000]  # where their headers begin
LOWER, UPPER = 24 + 4 * len(TUPLES), 7000


def heap_page() -> bytes:
    """A page of three tuples, all of whose bits are set where they mean nothing."""
    page = bytearray(b"\x5a" * PAGE)
    page[:24] = struct.pack(
        "<8sHHHHHHI", b"\1" * 8, 0x1234, 0, LOWER, UPPER, PAGE, 0x2004, 0
    )
    for number, offset in enumerate(TUPLES):
        pointer = offset | 1 << 15 | 150 << 17  # LP_NORMAL
        page[24 + 4 * number : 28 + 4 * number] = pointer.to_bytes(4, "little")
    return bytes(page)


def index_page() -> bytes:
    """The same as a page of a B-tree, with its 16 bytes at the end."""
    page = bytearray(heap_page())
    page[16:18] = (PAGE - 16).to_bytes(2, "little")
    page[PAGE - 16 :] = bytes(16)
    return bytes(page)


def flipped(page: bytes, at: int, bits: int) -> bytes:
    changed = bytearray(page)
    value = int.from_bytes(page[at : at + 2], "little") ^ bits
    changed[at : at + 2] = value.to_bytes(2, "little")
    return bytes(changed)


HARMLESS = {
    "LSN": (0, 0xFFFF),
    "LSN, low half": (6, 0xFFFF),
    "checksum": (8, 0xFFFF),
    "there are free line pointers": (10, 0x0001),
    "the page is full": (10, 0x0002),
    "prune xid": (20, 0xFFFF),
    "prune xid, high half": (22, 0xFFFF),
    "the hole": (LOWER, 0xFFFF),
    "the end of the hole": (UPPER - 2, 0xFFFF),
    "xmin committed": (TUPLES[0] + 20, 0x0100),
    "xmin invalid": (TUPLES[1] + 20, 0x0200),
    "xmax committed": (TUPLES[2] + 20, 0x0400),
    "xmax invalid": (TUPLES[2] + 20, 0x0800),
}
CHANGES = {
    "all visible": (10, 0x0004),
    "lower": (12, 0x0004),
    "upper": (14, 0x0008),
    "a line pointer": (24, 0x0008),
    "the state of a heap's line pointer": (26, 0x0001),
    "xmin": (TUPLES[0], 0x0001),
    "xmax": (TUPLES[0] + 4, 0x0001),
    "where the tuple's new version is": (TUPLES[0] + 12, 0x0001),
    "the number of columns": (TUPLES[0] + 18, 0x0001),
    "infomask: has nulls": (TUPLES[0] + 20, 0x0001),
    "infomask: locked": (TUPLES[0] + 20, 0x0080),
    "infomask: is a multixact": (TUPLES[0] + 20, 0x1000),
    "infomask: was updated": (TUPLES[0] + 20, 0x2000),
    "a column": (TUPLES[1] + 100, 0x0001),
    "the last bytes": (PAGE - 2, 0x8000),
}


@pytest.mark.parametrize("what", HARMLESS)
def test_hints_make_no_difference(what: str) -> None:
    page = heap_page()
    other = flipped(page, *HARMLESS[what])
    assert other != page
    assert same_but_hints(page, other)
    assert same_but_hints(other, page)


@pytest.mark.parametrize("what", CHANGES)
def test_everything_else_does(what: str) -> None:
    page = heap_page()
    assert not same_but_hints(page, flipped(page, *CHANGES[what]))


def test_all_hints_at_once() -> None:
    page = changed = heap_page()
    for at, bits in HARMLESS.values():
        changed = flipped(changed, at, bits)
    assert same_but_hints(page, changed)


@pytest.mark.parametrize("bits", [0x0080, 0x0100, 0x0180])
def test_an_index_entry_may_be_marked_dead(bits: int) -> None:
    page = index_page()
    assert same_but_hints(page, flipped(page, 25, bits))
    assert not same_but_hints(heap_page(), flipped(heap_page(), 25, bits))


def test_an_index_page_may_note_that_it_has_dead_entries() -> None:
    page, flags = index_page(), PAGE - 4
    for bit in range(16):
        same = bit in {4, 6, 7}
        assert same_but_hints(page, flipped(page, flags, 1 << bit)) == same
    assert not same_but_hints(page, flipped(page, PAGE - 16, 1))


def test_infomasks_of_an_index_are_none() -> None:
    page = index_page()
    assert not same_but_hints(page, flipped(page, TUPLES[0] + 20, 0x0100))


@pytest.mark.parametrize(
    "header",
    [(UPPER, LOWER, PAGE), (20, UPPER, PAGE), (LOWER, PAGE + 8, PAGE), (0, 0, 0)],
)
def test_a_page_whose_header_makes_no_sense_is_compared_as_it_is(
    header: tuple[int, int, int],
) -> None:
    page = bytearray(heap_page())
    page[12:18] = struct.pack("<HHH", *header)
    assert same_but_hints(bytes(page), flipped(bytes(page), 0, 0xFFFF))
    for at in (LOWER, TUPLES[0] + 20, PAGE - 2):
        assert not same_but_hints(bytes(page), flipped(bytes(page), at, 0x0100))


def test_a_new_page_is_itself() -> None:
    assert same_but_hints(bytes(PAGE), bytes(PAGE))
    assert not same_but_hints(bytes(PAGE), heap_page())


# -- hints that a server set


def pages_of(cluster: Cluster, relation: str) -> list[bytes]:
    cluster.psql("CHECKPOINT")
    path = cluster.sql(f"SELECT pg_relation_filepath('{relation}')")
    content = Path(cluster.data_directory, path).read_bytes()
    return [content[at : at + PAGE] for at in range(0, len(content), PAGE)]


def differing(before: list[bytes], after: list[bytes]) -> list[tuple[bytes, bytes]]:
    """Pages that differ though their LSN says that they have not changed."""
    return [
        (one, other)
        for one, other in zip(before, after, strict=True)
        if one != other and page_lsn(one) == page_lsn(other)
    ]


def test_hints_that_a_server_sets_without_wal(
    make_cluster: MakeCluster, pg_version: int
) -> None:
    settings = {"autovacuum": "off", "wal_log_hints": "off"}
    cluster = make_cluster(pg_version, settings, data_checksums=False)
    cluster.psql("""
        CREATE TABLE t (n integer, text text);
        CREATE INDEX i ON t (n);
        INSERT INTO t SELECT n, repeat('x', 20) FROM generate_series(1, 2000) n;
    """)
    written = pages_of(cluster, "t")
    cluster.psql("SELECT count(text) FROM t")
    committed = differing(written, pages_of(cluster, "t"))
    assert len(committed) == len(written)
    assert all(same_but_hints(*pair) for pair in committed)

    cluster.psql("DELETE FROM t WHERE n < 500")
    deleted, indexed = pages_of(cluster, "t"), pages_of(cluster, "i")
    scan = "SET enable_seqscan = off; SET enable_bitmapscan = off;"
    for _ in range(2):
        cluster.psql(f"{scan} SELECT count(text) FROM t WHERE n < 600")
    dead = differing(indexed, pages_of(cluster, "i"))
    assert dead
    assert all(same_but_hints(*pair) for pair in dead)
    assert all(
        same_but_hints(*pair) for pair in differing(deleted, pages_of(cluster, "t"))
    )

    before = pages_of(cluster, "t")
    cluster.psql("UPDATE t SET text = 'y' WHERE n = 1500")
    after = pages_of(cluster, "t")
    changed = [
        not same_but_hints(one, other)
        for one, other in zip(before, after, strict=False)
    ]
    assert 1 <= sum(changed) <= 2
