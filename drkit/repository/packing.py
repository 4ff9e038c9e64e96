"""Writing file content into packs: frames filled, sealed, put.

One `PackWriter` serves one thread and reuses its buffers for as long as it lives.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from drkit.crypto.derive import derive, length_prefixed
from drkit.crypto.sealing import Sealer
from drkit.model.frames import FILE_RUN
from drkit.model.manifest import FRAME, PACK, Rows
from drkit.repository.framing import FrameFiller

if TYPE_CHECKING:
    import itertools
    from collections.abc import Callable, Sequence

    from drkit.crypto.keys import Dek
    from drkit.crypto.sealing import Frame
    from drkit.model.frames import FilePages, FilledFrame
    from drkit.protocols import Buffer, PageFramer, Storage

MAX_PACK = 64 << 20
_MIN_PACK = 8 << 20


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


class PackWriter:
    """Seals frames with stretches of files, and puts a pack whenever one is full.

    Args:
        size: the most bytes of a pack.
        framer: reads pages in a process of its own.
    """

    def __init__(
        self, packing: Packing, size: int, framer: PageFramer | None = None
    ) -> None:
        self._packing = packing
        self._filler = FrameFiller(
            digest_key(packing.dek, packing.lineage), packing.level, self._seal
        )
        self._framer = framer
        # not a bytearray, which would touch all of it: most incrementals are small
        self._buffer = np.empty(size, dtype=np.uint8).data
        self._sealer: Sealer | None = None
        self._number = -1
        self._runs: list[Rows] = []
        self.packed = Packed()

    def space(self, unit: int) -> memoryview:
        """Return where the next bytes may be read to: at least `unit` of them."""
        return self._filler.space(unit)

    def took(self, file: int, position: int, length: int) -> None:
        """Take the first `length` bytes of the last `space` as part of a file."""
        self._filler.took(file, position, length)

    def took_all(self, file: int, parts: Sequence[tuple[int, int]]) -> None:
        """Take stretches of a file that follow each other in the last `space`."""
        self._filler.took_all(file, parts)

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

    def read_pages(self, pages: Sequence[FilePages], *, verify: bool) -> bool:
        """Let the framer read pages, and take them; say whether it could."""
        frame = self._framer.frame(pages, verify=verify) if self._framer else None
        if frame is None:
            return False
        self._seal(frame)
        return True

    def close(self) -> Packed:
        """Put what is left, and return all that this writer put."""
        self._filler.flush()
        self._put_pack()
        return self.packed

    def _seal(self, frame: FilledFrame) -> None:
        if self._sealer is not None and not self._sealer.fits(len(frame.payload)):
            self._put_pack()
        sealer = self._sealer or self._begin_pack()
        frame.runs["frame"] = sealer.add(frame.payload, frame.plain, frame.codec)
        self._runs.append(frame.runs)

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
        self.packed.numbers.append(self._number)
        self.packed.packs.append(pack)
        self.packed.frames.append(np.array(frames, dtype=FRAME))
        self.packed.runs.append(_join(self._runs, FILE_RUN))
        self._runs.clear()


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
