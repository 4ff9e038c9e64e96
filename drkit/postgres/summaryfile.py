"""Reading WAL summary files: which blocks a stretch of WAL changed.

Source of the format: PostgreSQL's `src/common/blkreftable.c`. The files themselves are
read, not `pg_wal_summary_contents()`: some minor versions' leaves out the limit of a
relation that has no changed block, as after DROP, TRUNCATE or CREATE DATABASE.
"""

from __future__ import annotations

import os
import re
import struct
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from drkit.errors import Corrupt
from drkit.model.changes import NO_BLOCKS, PLACE_SHIFT, Blocks, Relation, Summary
from drkit.model.lsn import Lsn
from drkit.postgres.files import read_regular
from drkit.postgres.longcrc import long_crc32c

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    Words = npt.NDArray[np.uint16]

SUMMARIES = os.path.join("pg_wal", "summaries")

_NAME = re.compile(r"([0-9A-F]{8})([0-9A-F]{16})([0-9A-F]{16})\.summary\Z")
_MAGIC = 0x652B137B
_MAGIC_SIZE = _CRC_SIZE = 4
_ENTRY = struct.Struct("<IIIiII")  # tablespace, database, number, fork, limit, chunks
_END = bytes(_ENTRY.size)
_MAIN_FORK = 0
_WORD = 2
_CHUNK_SHIFT = 16  # a chunk is of 65536 blocks,
_BITMAP = 4096  # and this many words are one bit for each of them


class _Entry(NamedTuple):
    """A fork's entry; `start` is where its first chunk is, counted in words.

    Attributes:
        sizes: of its chunks, in words; 0 for one without changes.
    """

    relation: Relation
    fork: int
    limit: int
    sizes: tuple[int, ...]
    start: int


class SummaryFile(NamedTuple):
    """A WAL summary by its name: it tells all of [`start`, `end`) of a timeline."""

    path: str
    timeline: int
    start: Lsn
    end: Lsn


def list_summaries(data_directory: str) -> list[SummaryFile]:
    """Return the summaries that a server keeps, by timeline and start.

    Raises:
        OSError: the directory can't be read.
    """
    directory = os.path.join(data_directory, SUMMARIES)
    found = []
    for name in os.listdir(directory):
        match = _NAME.match(name)
        if match is not None:
            timeline, start, end = (int(part, 16) for part in match.groups())
            path = os.path.join(directory, name)
            found.append(SummaryFile(path, timeline, Lsn(start), Lsn(end)))
    return sorted(found, key=lambda one: one[1:])


def read_summary(path: str) -> Summary:
    """Read what changed in main forks.

    Raises:
        Corrupt: it is no whole summary file.
        OSError: it can't be read.
    """
    data = read_regular(path)
    try:
        return parse_summary(data)
    except (ValueError, struct.error) as error:
        raise Corrupt(f"WAL summary {path} is damaged: {error}") from None


def parse_summary(data: bytes) -> Summary:
    """Read the bytes of a summary file.

    Raises:
        ValueError, struct.error: it is none, or cut off, or changed.
    """
    end = len(data) - _CRC_SIZE
    if int.from_bytes(data[:_MAGIC_SIZE], "little") != _MAGIC:
        raise ValueError("it does not begin as one")
    if long_crc32c(data[:end]) != int.from_bytes(data[end:], "little"):
        raise ValueError("its checksum is wrong")
    return _main_forks(data, list(_entries(data, end)))


def _entries(data: bytes, end: int) -> Iterator[_Entry]:
    position = _MAGIC_SIZE
    while data[position : position + _ENTRY.size] != _END:
        tablespace, database, number, fork, limit, count = _ENTRY.unpack_from(
            data, position
        )
        position += _ENTRY.size
        sizes = struct.unpack_from(f"<{count}H", data, position)
        position += _WORD * count
        relation = Relation(tablespace, database, number)
        yield _Entry(relation, fork, limit, sizes, position // _WORD)
        position += _WORD * sum(sizes)
    if position + _ENTRY.size != end:
        raise ValueError("it goes on past its end")


def _main_forks(data: bytes, entries: list[_Entry]) -> Summary:
    """Gather limits and blocks; the listed ones of all entries in one go."""
    main = [entry for entry in entries if entry.fork == _MAIN_FORK]
    words = np.frombuffer(data, "<u2", len(data) // _WORD)
    listed: list[tuple[int, int, int]] = []
    blocks: list[Blocks] = [NO_BLOCKS]
    for place, entry in enumerate(main):
        start = entry.start
        for chunk, size in enumerate(entry.sizes):
            first = place << PLACE_SHIFT | chunk << _CHUNK_SHIFT
            if size == _BITMAP:
                blocks.append(first + _set_bits(words[start : start + size]))
            elif size:
                listed.append((first, start, size))
            start += size
    blocks.append(_listed(words, listed))
    limits = np.array([entry.limit for entry in main], dtype=np.uint32)
    return Summary([one.relation for one in main], limits, np.concatenate(blocks))


def _set_bits(words: Words) -> Blocks:
    bits = np.unpackbits(words.view(np.uint8), bitorder="little")
    return np.flatnonzero(bits).astype(np.int64)


def _listed(words: Words, chunks: list[tuple[int, int, int]]) -> Blocks:
    """Return the blocks of chunks: (first block, where its words are, how many)."""
    firsts, starts, sizes = np.array(chunks, dtype=np.int64).reshape(-1, 3).T
    before = np.cumsum(sizes) - sizes
    places = np.arange(sizes.sum()) + np.repeat(starts - before, sizes)
    blocks: Blocks = np.repeat(firsts, sizes) + words[places]
    return blocks
