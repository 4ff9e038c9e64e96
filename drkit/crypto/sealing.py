"""The envelope of every encrypted object: framed AES-256-GCM with key commitment.

The layout is in docs/repository-format.md, "Sealed objects". Buffers are the caller's
and are reused: at gigabytes a second, allocating costs more than encrypting.
"""

from __future__ import annotations

import hmac
import os
import struct
from typing import TYPE_CHECKING, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from drkit.crypto.derive import derive, length_prefixed
from drkit.crypto.keys import PURPOSES
from drkit.errors import Corrupt, KeyUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from drkit.crypto.keys import Dek
    from drkit.protocols import Buffer

MAX_FRAME = 4 << 20
MAX_FRAMES = 65536
MAX_OBJECT = 2 << 30
TAG = 16
STORED, ZSTD, MAX_CODEC = 0, 1, 127
"""Codec ids: the payload as it is, or one zstd frame; from 2 on one zstd frame of
differences between words that lie 8 bytes times the id apart."""
SIGNATURE_BYTES = 136
"""Length of the last data frame of a signed object, which says who made it."""

_MAGIC, _END = b"drkitobj", b"drkitend"
_PLAIN, _SIGNED = 1, 2  # format versions
_HEADER = struct.Struct("<8sHB5s16s32s32s")
_INDEX_ROW = struct.Struct("<IIB3s")
_FOOTER = struct.Struct("<QII8s")
HEADER_BYTES, FOOTER_BYTES = _HEADER.size, _FOOTER.size
INDEX_ROW_BYTES = _INDEX_ROW.size


class Frame(NamedTuple):
    """One frame's row in an index: lengths in bytes, and the payload's codec."""

    stored: int
    plain: int
    codec: int


_SIGNATURE = Frame(SIGNATURE_BYTES + TAG, SIGNATURE_BYTES, STORED)


def overhead(frames: int) -> int:
    """Return the bytes that sealing adds to the payloads of so many frames."""
    rows = frames * (_INDEX_ROW.size + TAG)
    return HEADER_BYTES + rows + TAG + FOOTER_BYTES


class _ObjectKey:
    """The keys of one object, derived from what the caller asked for."""

    def __init__(self, dek: Dek, lineage: bytes, name: str, salt: bytes) -> None:
        context = length_prefixed(lineage, name, dek.purpose)
        frame_key = length_prefixed("drkit/1/frame-key") + context
        commitment = length_prefixed("drkit/1/commitment") + context
        self.aead = AESGCM(derive(dek.secret, frame_key, salt=salt))
        self.commitment = derive(dek.secret, commitment, salt=salt)


def _nonce(number: int, *, index: bool) -> bytes:
    return number.to_bytes(11, "big") + (b"\x01" if index else b"\x00")


class Sealer:
    """Builds one sealed object in a buffer; used once and thrown away.

    Args:
        signed: the last frame will be a signature of SIGNATURE_BYTES, stored as it is.
    """

    def __init__(
        self,
        dek: Dek,
        lineage: bytes,
        name: str,
        buffer: bytearray | memoryview,
        *,
        signed: bool = False,
    ) -> None:
        salt = os.urandom(32)
        key = _ObjectKey(dek, lineage, name, salt)
        self._aead = key.aead
        self._header = _HEADER.pack(
            _MAGIC,
            _SIGNED if signed else _PLAIN,
            PURPOSES[dek.purpose],
            bytes(5),
            dek.key_id,
            salt,
            key.commitment,
        )
        self._view = memoryview(buffer)
        self._view[:HEADER_BYTES] = self._header
        self._end = HEADER_BYTES
        self.frames: list[Frame] = []

    def fits(self, payload: int) -> bool:
        """Say whether a frame of so many payload bytes still fits the buffer."""
        rows = (len(self.frames) + 1) * _INDEX_ROW.size + TAG + FOOTER_BYTES
        return (
            self._end + payload + TAG + rows <= len(self._view)
            and len(self.frames) < MAX_FRAMES
        )

    def add(self, payload: Buffer, plain: int, codec: int) -> int:
        """Seal a payload as the next frame; return the frame's number."""
        if plain > MAX_FRAME or not self.fits(len(payload)):
            raise ValueError("frame exceeds what its object can hold")
        number = len(self.frames)
        stored = len(payload) + TAG
        self._encrypt(number, payload, stored, index=False)
        self.frames.append(Frame(stored, plain, codec))
        return number

    def finish(self) -> memoryview:
        """Seal the index, write the footer, and return the whole object."""
        rows = b"".join(_INDEX_ROW.pack(*frame, bytes(3)) for frame in self.frames)
        start, stored, count = self._end, len(rows) + TAG, len(self.frames)
        self._encrypt(count, rows, stored, index=True)
        footer = _FOOTER.pack(start, stored, count, _END)
        self._view[self._end : self._end + FOOTER_BYTES] = footer
        return self._view[: self._end + FOOTER_BYTES]

    def _encrypt(self, number: int, payload: Buffer, size: int, *, index: bool) -> None:
        into = self._view[self._end : self._end + size]
        nonce = _nonce(number, index=index)
        self._aead.encrypt_into(nonce, payload, self._header, into)
        self._end += size


class Opener:
    """Opens frames of one sealed object, authenticating each before it hands it out.

    Args:
        dek_for: returns the DEK of a 16-byte id.
        head: the object's first HEADER_BYTES bytes, or more.

    Attributes:
        signed: the last data frame is a signature, which only WAL has.

    Raises:
        Corrupt: the header is not that of this object under this key, or what is stored
            of the DEK is damaged.
        KeyUnavailable: the DEK that the header names can't be had.
    """

    def __init__(
        self,
        dek_for: Callable[[bytes], Dek],
        lineage: bytes,
        name: str,
        purpose: str,
        head: Buffer,
    ) -> None:
        self._name = name
        if len(head) < HEADER_BYTES:
            raise Corrupt(f"object {name} is cut off inside its header")
        self._header = bytes(head[:HEADER_BYTES])
        magic, version, code, zero, key_id, salt, commitment = _HEADER.unpack(
            self._header
        )
        if magic != _MAGIC or zero != bytes(5):
            raise Corrupt(f"object {name} is no sealed object of drkit")
        self.signed = version == _SIGNED and purpose == "wal"
        if version != _PLAIN and not self.signed:
            raise Corrupt(
                f"object {name} has format version {version}",
                hint="a newer drkit wrote it; upgrade this one",
            )
        if code != PURPOSES[purpose]:
            raise Corrupt(f"object {name} is sealed for another purpose than {purpose}")
        try:
            self.dek = dek_for(key_id)
        except (Corrupt, KeyUnavailable) as error:
            kind = Corrupt if isinstance(error, Corrupt) else KeyUnavailable
            raise kind(
                f"object {name} can't be opened: {error.message}", hint=error.hint
            ) from error
        key = _ObjectKey(self.dek, lineage, name, salt)
        if not hmac.compare_digest(key.commitment, commitment):
            raise Corrupt(
                f"object {name} was not sealed under this name and key",
                hint="it was swapped, changed, or comes from another repository",
            )
        self._aead = key.aead

    def open_frame(self, number: int, sealed: Buffer) -> bytes:
        """Return a data frame's payload."""
        return self._decrypt(number, sealed, index=False)

    def open_frame_into(self, number: int, sealed: Buffer, into: memoryview) -> None:
        """Decrypt a data frame's payload into a buffer of exactly its length."""
        try:
            self._aead.decrypt_into(
                _nonce(number, index=False), sealed, self._header, into
            )
        except (InvalidTag, ValueError):
            # A failed decrypt_into leaves unauthenticated plaintext behind.
            into[:] = bytes(len(into))
            raise self._damaged(f"frame {number}") from None

    def open_index(self, footer: Buffer, sealed: Buffer, size: int) -> list[Frame]:
        """Return the frame table that the object carries.

        Args:
            footer: the object's last FOOTER_BYTES bytes.
            sealed: the index frame, as `index_place` located it.
            size: the object's length.
        """
        start, stored, count = index_place(self._name, footer, size)
        rows = self._decrypt(count, sealed, index=True)
        if len(rows) != count * _INDEX_ROW.size or len(sealed) != stored:
            raise self._damaged("its index")
        frames = []
        for length, plain, codec, zero in _INDEX_ROW.iter_unpack(rows):
            if codec > MAX_CODEC:
                raise Corrupt(
                    f"object {self._name} has a frame of codec {codec}",
                    hint="a newer drkit wrote it; upgrade this one",
                )
            if zero != bytes(3) or plain > MAX_FRAME:
                raise self._damaged("its index")
            frames.append(Frame(length, plain, codec))
        if HEADER_BYTES + sum(frame.stored for frame in frames) != start:
            raise self._damaged("its index")
        if self.signed and frames[-1:] != [_SIGNATURE]:
            raise Corrupt(f"object {self._name} is damaged: it has no signature")
        return frames

    def _decrypt(self, number: int, sealed: Buffer, *, index: bool) -> bytes:
        nonce = _nonce(number, index=index)
        try:
            return self._aead.decrypt(nonce, sealed, self._header)
        except (InvalidTag, ValueError):
            what = "its index" if index else f"frame {number}"
            raise self._damaged(what) from None

    def _damaged(self, what: str) -> Corrupt:
        return Corrupt(f"object {self._name} is damaged: {what} does not authenticate")


def index_place(name: str, footer: Buffer, size: int) -> tuple[int, int, int]:
    """Read a footer: offset and stored length of the index, and count of frames.

    Raises:
        Corrupt: the footer does not fit an object of `size` bytes.
    """
    damaged = Corrupt(f"object {name} is damaged: its footer is wrong or cut off")
    if len(footer) != FOOTER_BYTES:
        raise damaged
    start, stored, count, magic = _FOOTER.unpack(bytes(footer))
    expected = count * _INDEX_ROW.size + TAG
    if (
        magic != _END
        or count > MAX_FRAMES
        or stored != expected
        or start < HEADER_BYTES
        or start + stored + FOOTER_BYTES != size
    ):
        raise damaged
    return start, stored, count


def open_whole(
    opener: Opener, name: str, data: Buffer
) -> Iterator[tuple[Frame, bytes]]:
    """Yield each frame's row and payload of an object that is wholly in memory."""
    view = memoryview(data)
    footer = view[-FOOTER_BYTES:]
    start, stored, _ = index_place(name, footer, len(view))
    frames = opener.open_index(footer, view[start : start + stored], len(view))
    offset = HEADER_BYTES
    for number, frame in enumerate(frames):
        end = offset + frame.stored
        yield frame, opener.open_frame(number, view[offset:end])
        offset = end
