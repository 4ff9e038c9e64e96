"""Whole sealed objects from and to bytes: WAL files, manifests, log entries."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, NamedTuple

from drkit.crypto.sealing import (
    FOOTER_BYTES,
    HEADER_BYTES,
    MAX_OBJECT,
    SIGNATURE_BYTES,
    STORED,
    TAG,
    Opener,
    Sealer,
    index_place,
    open_whole,
    overhead,
)
from drkit.errors import Corrupt, KeyUnavailable, TooLong
from drkit.repository.codec import FRAME_BYTES, compress, compressor, decompress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from drkit.crypto.keys import Dek
    from drkit.protocols import Buffer, Storage

_END_BYTES = 8192
"""Where the index and the signature of a WAL segment lie, up to the largest one."""


class Sealing(NamedTuple):
    """The name and key that an object is sealed under."""

    dek: Dek
    lineage: bytes
    name: str


def seal(
    sealing: Sealing, plain: Buffer, level: int = 3, signature: bytes | None = None
) -> memoryview:
    """Return `plain`, cut into frames, compressed and sealed as one object.

    Args:
        signature: a signed object's last frame, SIGNATURE_BYTES long.
    """
    view = memoryview(plain)
    with_ = compressor(level)
    cuts = range(0, len(view), FRAME_BYTES)
    parts = [view[cut : cut + FRAME_BYTES] for cut in cuts]
    payloads = [(compress(with_, part), len(part)) for part in parts]
    if signature is not None:
        payloads.append(((signature, STORED), len(signature)))
    size = overhead(len(payloads)) + sum(len(payload) for (payload, _), _ in payloads)
    sealer = Sealer(*sealing, bytearray(size), signed=signature is not None)
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


def unseal_signed(
    dek_for: Callable[[bytes], Dek],
    lineage: bytes,
    name: str,
    purpose: str,
    data: Buffer,
    limit: int = MAX_OBJECT,
) -> tuple[bytes, bytes | None]:
    """Return the plaintext of a whole object, and its signature's frame if it has one.

    Raises:
        Corrupt: as `unseal`.
    """
    opener = Opener(dek_for, lineage, name, purpose, data)
    limit += SIGNATURE_BYTES if opener.signed else 0
    signature: list[bytes] = []

    def content() -> Iterator[Buffer]:
        last: Buffer | None = None
        for part in _parts(opener, name, data, limit):
            if last is not None:
                yield last
            last = part
        if last is not None and opener.signed:
            signature.append(bytes(last))
        elif last is not None:
            yield last

    whole = joined(content())
    return whole, signature[0] if signature else None


def unseal_signature(
    dek_for: Callable[[bytes], Dek],
    lineage: bytes,
    name: str,
    purpose: str,
    storage: Storage,
) -> bytes | None:
    """Return the signature's frame of a stored object, reading its two ends only.

    None if it is not a signed one.

    Raises:
        ObjectNotFound: it is not there.
        Corrupt: not the object of that name and purpose, or its end is damaged.
    """
    size = storage.size(name)
    head = storage.get(name, 0, min(size, HEADER_BYTES))
    opener = Opener(dek_for, lineage, name, purpose, head)
    if not opener.signed:
        return None
    begin = max(0, size - _END_BYTES)
    end = storage.get(name, begin, size - begin)
    footer = end[-FOOTER_BYTES:]
    start, stored, count = index_place(name, footer, size)
    if start - SIGNATURE_BYTES - TAG < begin:
        begin = max(0, start - SIGNATURE_BYTES - TAG)
        end = storage.get(name, begin, size - begin)
    index = start - begin
    opener.open_index(footer, end[index : index + stored], size)
    return opener.open_frame(count - 1, end[index - SIGNATURE_BYTES - TAG : index])


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
