"""Whole sealed objects from and to bytes: WAL files, manifests, log entries."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, NamedTuple

from drkit.crypto.sealing import MAX_OBJECT, Opener, Sealer, open_whole, overhead
from drkit.errors import Corrupt, KeyUnavailable, TooLong
from drkit.repository.codec import FRAME_BYTES, compress, compressor, decompress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from drkit.crypto.keys import Dek
    from drkit.protocols import Buffer


class Sealing(NamedTuple):
    """The name and key that an object is sealed under."""

    dek: Dek
    lineage: bytes
    name: str


def seal(sealing: Sealing, plain: Buffer, level: int = 3) -> memoryview:
    """Return `plain`, cut into frames, compressed and sealed as one object."""
    view = memoryview(plain)
    with_ = compressor(level)
    cuts = range(0, len(view), FRAME_BYTES)
    parts = [view[cut : cut + FRAME_BYTES] for cut in cuts]
    payloads = [(compress(with_, part), len(part)) for part in parts]
    size = overhead(len(parts)) + sum(len(payload) for (payload, _), _ in payloads)
    sealer = Sealer(*sealing, bytearray(size))
    for (payload, codec), length in payloads:
        sealer.add(payload, length, codec)
    return sealer.finish()


def why_foreign(sealing: Sealing, data: Buffer) -> str | None:
    """Say why bytes were never sealed for this name under this key; None if they were.

    It takes the key to make a header that passes; what is behind it may be damaged.
    """

    def own(key_id: bytes) -> Dek:
        if key_id != sealing.dek.key_id:
            raise Corrupt("its header names another key")
        return sealing.dek

    try:
        Opener(own, sealing.lineage, sealing.name, sealing.dek.purpose, data)
    except Corrupt as error:
        return error.message
    return None


def unseal(
    dek_for: Callable[[bytes], Dek],
    lineage: bytes,
    name: str,
    purpose: str,
    data: Buffer,
    limit: int = MAX_OBJECT,
) -> bytes:
    """Return the plaintext of a whole object.

    Raises:
        Corrupt: not the object of that name and purpose, or damaged.
        TooLong: its plaintext is longer than `limit` bytes.
    """
    opener = Opener(dek_for, lineage, name, purpose, data)
    return joined(_parts(opener, name, data, limit))


def joined(parts: Iterable[Buffer]) -> bytes:
    """Return parts as one; each is let go of when the next comes."""
    whole = io.BytesIO()  # hands out its own buffer
    for part in parts:
        whole.write(part)
    return whole.getvalue()


def _parts(opener: Opener, name: str, data: Buffer, limit: int) -> Iterator[Buffer]:
    total = 0
    for frame, payload in open_whole(opener, name, data):
        total += frame.plain
        if total > limit:
            raise TooLong(f"object {name} expands to more than {limit} bytes")
        yield decompress(name, payload, frame.plain, frame.codec)


def is_header_of(
    dek_for: Callable[[bytes], Dek],
    lineage: bytes,
    name: str,
    purpose: str,
    head: Buffer,
) -> bool:
    """Say whether a holder of the keys has sealed an object of that name.

    Its header commits to name, purpose and key, so it is enough for that. What comes
    behind it may be damaged.

    Args:
        dek_for: returns the DEK of a 16-byte id.
        lineage: of the repository.
        name: of the object.
        purpose: of its key.
        head: its first HEADER_BYTES bytes.
    """
    try:
        Opener(dek_for, lineage, name, purpose, head)
    except (Corrupt, KeyUnavailable):
        return False
    return True
