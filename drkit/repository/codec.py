"""Compression of frames: zstd, bounded on the way back by authenticated lengths."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

import zstandard

from drkit.crypto.sealing import STORED, ZSTD
from drkit.errors import Corrupt
from drkit.model.page import PAGE

if TYPE_CHECKING:
    from drkit.protocols import Buffer

FRAME_BYTES = 2 << 20
"""Plaintext of a full frame that a writer makes. Heap pages at zstd 3: 2 MiB frames
are 2 % smaller than 1 MiB ones; 4 MiB gain 0.7 % more and cost a single page's read."""

_MAX_WINDOW = 8 << 20


class Content(Enum):
    """What is compressed: the shortest match that is looked for, and the table's size.

    Single pages from all over a cluster share little with each other, so a smaller
    table is a sixth faster and loses nothing; with shorter matches, which are what
    index pages have, those come out smaller by up to 7 %. Matches of 5 bytes would take
    a tenth longer, and gain 2 % with UUIDs only. Differences are long stretches of the
    same.
    """

    PAGES = (7, 16)
    SCATTERED = (6, 13)
    DIFFERENCES = (7, 13)


def compressor(
    level: int, content: Content = Content.PAGES
) -> zstandard.ZstdCompressor:
    """Return a compressor for one thread.

    Levels 3 and 4 look for matches of 7 bytes and more only, in one small table: on
    heap, index and JSON pages that is a quarter faster than zstd's own choice, and 2 to
    3 % smaller. Plain text takes 6 % more; level 5 is for who has much of it.
    """
    tuned = _tuned(*content.value) if level in (3, 4) else {}
    parameters = zstandard.ZstdCompressionParameters.from_level(
        level, source_size=FRAME_BYTES, write_content_size=1, **tuned
    )
    return zstandard.ZstdCompressor(compression_params=parameters)


def _tuned(min_match: int, hash_log: int) -> dict[str, int]:
    return {
        "strategy": zstandard.STRATEGY_FAST,
        "min_match": min_match,
        "hash_log": hash_log,
        "target_length": 0,
    }


def compress(with_: zstandard.ZstdCompressor, plain: Buffer) -> tuple[Buffer, int]:
    """Return the payload and its codec: compressed only where that is smaller."""
    packed = with_.compress(plain)
    if len(packed) < len(plain):
        return packed, ZSTD
    return plain, STORED


def decompress(name: str, payload: bytes, plain: int, codec: int) -> Buffer:
    """Return exactly `plain` bytes.

    Raises:
        Corrupt: the payload of object `name` expands to another length, or does not.
    """
    if codec == STORED:
        if len(payload) != plain:
            raise _wrong_length(name)
        return payload
    try:
        if zstandard.frame_content_size(payload) != plain:
            raise _wrong_length(name)
        decoder = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW)
        unpacked = decoder.decompress(
            payload, max_output_size=plain, allow_extra_data=False
        )
    except zstandard.ZstdError as error:
        raise Corrupt(f"a frame of object {name} does not decompress") from error
    return unpacked if codec == ZSTD else _pages(name, unpacked, codec)


def _pages(name: str, differences: bytes, width: int) -> Buffer:
    # `wal push` comes through this module, and must not import numpy
    from drkit.repository.differences import undo  # noqa: PLC0415

    if len(differences) % PAGE:
        raise _wrong_length(name)
    return undo(differences, width)


def _wrong_length(name: str) -> Corrupt:
    return Corrupt(f"a frame of object {name} has another length than its index says")
