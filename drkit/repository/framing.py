"""Filling frames: stretches of files side by side, each digested, then compressed.

One `FrameFiller` serves one thread and reuses its buffer for as long as it lives.
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from blake3 import blake3

from drkit.errors import Corrupt
from drkit.model.frames import FILE_RUN, FilledFrame
from drkit.repository.codec import FRAME_BYTES, Content, decompress
from drkit.repository.pagecodec import PageCompressor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from drkit.model.manifest import Rows
    from drkit.protocols import Buffer

DIGEST_BYTES = 16
_ALIGN = 16  # so that pages behind a small file can be read as words
_CHECK_EVERY = 16


def content_digest(key: bytes, data: Buffer) -> bytes:
    """Return the keyed digest of a run's plaintext."""
    return blake3(data, key=key).digest(DIGEST_BYTES)


class _Waiting(NamedTuple):
    """The runs of a frame that is being filled, a column each."""

    files: list[int]
    positions: list[int]
    lengths: list[int]
    offsets: list[int]
    digests: list[bytes]

    def add(
        self,
        file: int,
        positions: list[int],
        lengths: list[int],
        offsets: list[int],
        digests: list[bytes],
    ) -> None:
        """Add runs of one file."""
        self.files.extend([file] * len(positions))
        self.positions.extend(positions)
        self.lengths.extend(lengths)
        self.offsets.extend(offsets)
        self.digests.extend(digests)

    def runs(self) -> Rows:
        """Return them as FILE_RUN rows."""
        runs = np.zeros(len(self.files), dtype=FILE_RUN)
        runs["file"], runs["position"] = self.files, self.positions
        runs["length"], runs["offset"] = self.lengths, self.offsets
        joined = np.frombuffer(b"".join(self.digests), dtype=np.uint8)
        runs["digest"] = joined.reshape(-1, DIGEST_BYTES)
        return runs


class FrameFiller:
    """Fills frames with stretches of files, and hands each over when it is full.

    Args:
        key: of the content's digests.
        level: of zstd.
        keep: takes a frame; its buffers are used again when it returns.
        content: what the stretches are.
    """

    def __init__(
        self,
        key: bytes,
        level: int,
        keep: Callable[[FilledFrame], None],
        content: Content = Content.PAGES,
    ) -> None:
        self._key = key
        self._compressor = PageCompressor(level, content)
        self._keep = keep
        self._frame = memoryview(bytearray(FRAME_BYTES))
        self._filled = 0
        self._waiting = _Waiting([], [], [], [], [])
        self._made = 0

    def space(self, unit: int) -> memoryview:
        """Return where the next bytes may be read to: at least `unit` of them."""
        if len(self._frame) - self._filled < unit:
            self.flush()
        return self._frame[self._filled :]

    def took(self, file: int, position: int, length: int) -> None:
        """Take the first `length` bytes of the last `space` as part of a file.

        Args:
            file: its number in the manifest.
            position: where in the file the bytes stood.
        """
        if not length:
            return
        start = self._filled
        digest = content_digest(self._key, self._frame[start : start + length])
        self._waiting.add(file, [position], [length], [start], [digest])
        self._filled = -(-(start + length) // _ALIGN) * _ALIGN
        # What lies between two runs is not anybody's: leave nothing of older frames.
        self._frame[start + length : self._filled] = bytes(
            self._filled - start - length
        )
        if self._filled >= len(self._frame):
            self.flush()

    def took_all(self, file: int, parts: Sequence[tuple[int, int]]) -> None:
        """Take stretches of a file that follow each other in the last `space`.

        An incremental takes tens of thousands of single pages: what is done for each
        here is as little as can be.

        Args:
            parts: where in the file each stood, and its length: whole pages.
        """
        frame, hasher, digests = self._frame, blake3(key=self._key), list[bytes]()
        update, digest, reset = hasher.update, hasher.digest, hasher.reset
        filled = [part for part in parts if part[1]]
        positions, lengths = [one for one, _ in filled], [one for _, one in filled]
        *offsets, self._filled = accumulate(lengths, initial=self._filled)
        for offset, length in zip(offsets, lengths, strict=True):
            update(frame[offset : offset + length])
            digests.append(digest(DIGEST_BYTES))
            reset()
        self._waiting.add(file, positions, lengths, offsets, digests)
        if self._filled >= len(frame):
            self.flush()

    def flush(self) -> None:
        """Hand over what is in the frame, if anything is."""
        if not self._waiting.files:
            return
        plain = self._frame[: self._filled]
        payload, codec = self._compressor.compress(plain)
        if self._made % _CHECK_EVERY == 0:
            _check(payload, codec, plain)
        self._made += 1
        self._keep(FilledFrame(payload, len(plain), codec, self._waiting.runs()))
        for column in self._waiting:
            column.clear()
        self._filled = 0


def _check(payload: Buffer, codec: int, plain: memoryview) -> None:
    """Decompress a sample of what goes up: bad memory shows now, not later."""
    # numpy compares at memory speed; a memoryview compares element by element
    restored = decompress("", bytes(payload), len(plain), codec)
    if not np.array_equal(_as_numbers(restored), _as_numbers(plain)):
        raise Corrupt(
            "compressing a frame lost its content",
            hint="this machine computes wrongly; check its memory",
        )


def _as_numbers(data: Buffer) -> npt.NDArray[np.unsignedinteger]:
    return np.frombuffer(data, dtype=np.uint64 if len(data) % 8 == 0 else np.uint8)
