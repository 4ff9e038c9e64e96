"""Writing file content into packs: frames filled, compressed, sealed, put.

One `PackWriter` serves one thread and reuses its buffers for as long as it lives.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from blake3 import blake3

from drkit.crypto.derive import derive, length_prefixed
from drkit.crypto.sealing import Sealer
from drkit.errors import Corrupt
from drkit.model.manifest import FRAME, PACK, RUN, Rows
from drkit.repository.codec import FRAME_BYTES, compress, compressor, decompress

if TYPE_CHECKING:
    import itertools
    from collections.abc import Callable, Sequence

    from drkit.crypto.keys import Dek
    from drkit.crypto.sealing import Frame
    from drkit.protocols import Buffer, Storage

MAX_PACK = 64 << 20
_MIN_PACK = 8 << 20
_ALIGN = 16  # so that pages behind a small file can be read as words
_CHECK_EVERY = 16
DIGEST_BYTES = 16

# Runs are collected with their file's number, which the manifest drops again.
FILE_RUN = np.dtype([("file", "<u4"), *RUN.descr])


class Packing(NamedTuple):
    """What all writers of one backup share.

    Attributes:
        name: names a pack by its number.
    """

    storage: Storage
    dek: Dek
    lineage: bytes
    level: int
    name: Callable[[int], str]
    numbers: itertools.count[int]


@dataclass(slots=True)
class Packed:
    """Packs that were put, and the runs in them.

    Attributes:
        runs: FILE_RUN rows of each pack; their frames count from 0 in each.
    """

    numbers: list[int] = field(default_factory=list)
    packs: list[Rows] = field(default_factory=list)
    frames: list[Rows] = field(default_factory=list)
    runs: list[Rows] = field(default_factory=list)

    def extend(self, other: Packed) -> None:
        """Take in another writer's packs."""
        self.numbers += other.numbers
        self.packs += other.packs
        self.frames += other.frames
        self.runs += other.runs


def pack_bytes(writers: int) -> int:
    """Return the pack size at which so many writers' buffers stay within 64 MiB."""
    return max(_MIN_PACK, MAX_PACK // max(writers, 1))


def digest_key(dek: Dek, lineage: bytes) -> bytes:
    """Return the key of a backup's content digests."""
    return derive(dek.secret, length_prefixed("drkit/1/content-digest", lineage))


def content_digest(key: bytes, data: Buffer) -> bytes:
    """Return the keyed digest of a run's plaintext."""
    return blake3(data, key=key).digest(DIGEST_BYTES)


class PackWriter:
    """Fills frames with stretches of files and puts a pack whenever one is full."""

    def __init__(self, packing: Packing, size: int) -> None:
        self._packing = packing
        self._digest_key = digest_key(packing.dek, packing.lineage)
        self._compressor = compressor(packing.level)
        self._frame = memoryview(bytearray(FRAME_BYTES))
        self._filled = 0
        self._waiting: list[tuple[int, int, int, int, bytes]] = []
        # not a bytearray, which would touch all of it: most incrementals are small
        self._buffer = np.empty(size, dtype=np.uint8).data
        self._sealer: Sealer | None = None
        self._number = -1
        self._runs: list[tuple[int, int, int, int, int, bytes]] = []
        self.packed = Packed()

    def space(self, unit: int) -> memoryview:
        """Return where the next bytes may be read to: at least `unit` of them."""
        if len(self._frame) - self._filled < unit:
            self._seal_frame()
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
        digest = content_digest(self._digest_key, self._frame[start : start + length])
        self._waiting.append((file, position, length, start, digest))
        self._filled = -(-(start + length) // _ALIGN) * _ALIGN
        # What lies between two runs is not anybody's: leave nothing of older frames.
        self._frame[start + length : self._filled] = bytes(
            self._filled - start - length
        )
        if self._filled >= len(self._frame):
            self._seal_frame()

    def took_all(self, file: int, parts: Sequence[tuple[int, int]]) -> None:
        """Take stretches of a file that follow each other in the last `space`.

        An incremental takes tens of thousands of single pages: what is done for each
        here is as little as can be.

        Args:
            parts: where in the file each stood, and its length: whole pages.
        """
        frame, key, at = self._frame, self._digest_key, self._filled
        waiting = self._waiting
        for position, length in parts:
            if not length:
                continue
            digest = blake3(frame[at : at + length], key=key).digest(DIGEST_BYTES)
            waiting.append((file, position, length, at, digest))
            at += length
        self._filled = at
        if at >= len(frame):
            self._seal_frame()

    def add(self, file: int, position: int, data: Buffer) -> None:
        """Take bytes that are in memory already."""
        view = memoryview(data)
        while view:
            space = self.space(1)
            part = view[: len(space)]
            space[: len(part)] = part
            self.took(file, position, len(part))
            position += len(part)
            view = view[len(part) :]

    def close(self) -> Packed:
        """Put what is left, and return all that this writer put."""
        self._seal_frame()
        self._put_pack()
        return self.packed

    def _seal_frame(self) -> None:
        if not self._waiting:
            return
        plain = self._frame[: self._filled]
        payload, codec = compress(self._compressor, plain)
        if self._sealer is not None and not self._sealer.fits(len(payload)):
            self._put_pack()
        sealer = self._sealer or self._begin_pack()
        number = sealer.add(payload, len(plain), codec)
        if number % _CHECK_EVERY == 0:
            self._check(payload, codec, plain)
        self._runs += [
            (file, position, length, number, offset, digest)
            for file, position, length, offset, digest in self._waiting
        ]
        self._waiting.clear()
        self._filled = 0

    def _begin_pack(self) -> Sealer:
        packing = self._packing
        self._number = next(packing.numbers)
        name = packing.name(self._number)
        self._sealer = Sealer(packing.dek, packing.lineage, name, self._buffer)
        return self._sealer

    def _put_pack(self) -> None:
        if self._sealer is None:
            return
        sealed = self._sealer.finish()
        name = self._packing.name(self._number)
        self._packing.storage.put(name, sealed)
        self._record(sealed, self._sealer.frames)
        self._sealer = None

    def _record(self, sealed: memoryview, frames: list[Frame]) -> None:
        digest = np.frombuffer(hashlib.sha256(sealed).digest(), dtype=np.uint8)
        pack = np.zeros(1, dtype=PACK)
        pack[0] = (len(sealed), digest, len(frames))
        runs = np.zeros(len(self._runs), dtype=FILE_RUN)
        for column, name in enumerate(
            ("file", "position", "length", "frame", "offset")
        ):
            runs[name] = [run[column] for run in self._runs]
        digests = b"".join(run[5] for run in self._runs)
        runs["digest"] = np.frombuffer(digests, dtype=np.uint8).reshape(
            -1, DIGEST_BYTES
        )
        self._runs.clear()
        self.packed.numbers.append(self._number)
        self.packed.packs.append(pack)
        self.packed.frames.append(np.array(frames, dtype=FRAME))
        self.packed.runs.append(runs)

    def _check(self, payload: Buffer, codec: int, plain: memoryview) -> None:
        """Decompress a sample of what goes up: bad memory shows now, not later."""
        name = self._packing.name(self._number)
        # bytes compare at memory speed; a memoryview compares element by element
        if decompress(name, bytes(payload), len(plain), codec) != bytes(plain):
            raise Corrupt(
                f"compressing a frame for {name} lost its content",
                hint="this machine computes wrongly; check its memory",
            )


def assemble(packed: Packed) -> tuple[Rows, Rows, Rows]:
    """Return packs and frames in the packs' order, and runs by file and position.

    Frames of the runs count through all packs, as the manifest has them.
    """
    order = sorted(range(len(packed.numbers)), key=packed.numbers.__getitem__)
    if [packed.numbers[place] for place in order] != list(range(len(order))):
        raise ValueError("a pack is missing")
    base, all_runs = 0, []
    for place in order:
        runs = packed.runs[place]
        runs["frame"] += base
        base += len(packed.frames[place])
        all_runs.append(runs)
    packs = _join([packed.packs[place] for place in order], PACK)
    frames = _join([packed.frames[place] for place in order], FRAME)
    runs = _join(all_runs, FILE_RUN)
    return packs, frames, runs[np.lexsort((runs["position"], runs["file"]))]


def _join(parts: list[Rows], dtype: np.dtype[np.void]) -> Rows:
    return np.concatenate([np.empty(0, dtype=dtype), *parts])
