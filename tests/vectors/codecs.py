"""Frames for the second reader: from a payload to its plaintext."""

from __future__ import annotations

import struct
from typing import NamedTuple

import zstandard

from tests.vectors.columns import Refused, need

PAGE, WORDS = 8192, struct.Struct("<1024Q")


class Frame(NamedTuple):
    stored: int
    plain: int
    codec: int


def expand(name: str, payload: bytes, frame: Frame) -> bytes:
    """Undo a frame's codec."""
    if frame.codec == 0:
        need(len(payload) == frame.plain, f"{name}: length of a frame")
        return payload
    try:
        declared = zstandard.frame_content_size(payload)
        need(declared == frame.plain, f"{name}: length of a frame")
        decoder = zstandard.ZstdDecompressor()
        plain = decoder.decompress(
            payload, max_output_size=frame.plain, allow_extra_data=False
        )
    except zstandard.ZstdError:
        raise Refused(f"{name}: a frame does not decompress") from None
    need(len(plain) == frame.plain, f"{name}: length of a frame")
    if frame.codec == 1:
        return plain
    need(len(plain) % PAGE == 0, f"{name}: differences of no whole pages")
    pages = range(0, len(plain), PAGE)
    return b"".join(undo(plain[at : at + PAGE], frame.codec) for at in pages)


def undo(differences: bytes, width: int) -> bytes:
    """Return the page that has these differences from `width` words before."""
    words = list(WORDS.unpack(differences))
    for place in range(width, len(words)):
        words[place] = (words[place] + words[place - width]) % (1 << 64)
    return WORDS.pack(*words)
