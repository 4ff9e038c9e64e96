"""Reading file content out of packs: each frame once, authenticated, bounded."""

from __future__ import annotations

import hashlib
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from drkit.crypto.sealing import HEADER_BYTES, Opener
from drkit.errors import Corrupt, ObjectNotFound, StorageError
from drkit.model.pagemap import FRAME_BITS
from drkit.repository.codec import decompress

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from drkit.model.manifest import Manifest
    from drkit.model.pagemap import PageMap
    from drkit.protocols import Buffer
    from drkit.repository.repository import Repository

    Run = tuple[int, int, int, int]

_WORTH_WHOLE = 2  # read a pack whole if at least a half of it is needed
_WORTH_GAP = 256 << 10  # read over what is not needed rather than ask twice


class Pack(NamedTuple):
    """A pack of a chain: the number of its backup's layer, and its own there."""

    layer: int
    number: int


class PackReader:
    """Reads the packs of a backup and of those it builds on.

    Holds nothing that changes, so several threads may use it.

    Args:
        wanted: for each piece whether `packs` and `frames` shall hand it out; all of
            them by default.
    """

    def __init__(
        self,
        repository: Repository,
        page_map: PageMap,
        wanted: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        self._repository = repository
        self._map = page_map
        self._layers = [_Layer(repository, one) for one in page_map.layers]
        frames = page_map.piece_frames()
        order = np.argsort(frames, kind="stable")
        self._by_frame = order if wanted is None else order[wanted[order]]
        self._sorted = frames[self._by_frame]
        self._owner = page_map.piece_files()
        self._ends = page_map.ends()

    def packs(self) -> list[Pack]:
        """Return the packs that hold wanted pieces, the oldest backup's first."""
        found = []
        for layer, one in enumerate(self._layers):
            needed = self._needed(layer, 0, len(one.manifest.frames))
            found += [Pack(layer, pack) for pack in one.packs_of(needed)]
        return found

    def fetched_bytes(self) -> int:
        """Return how many stored bytes reading all packs fetches."""
        total = 0
        for pack in self.packs():
            layer = self._layers[pack.layer]
            needed = self._needed(pack.layer, *layer.frames_of(pack.number))
            total += layer.fetched_bytes(pack.number, needed)
        return total

    def frames(self, pack: Pack) -> Iterator[tuple[list[Run], memoryview]]:
        """Yield the plaintext of each needed frame of a pack, with what lies in it.

        A run is its file's number, its position there, its offset in the plaintext, and
        its length.

        Raises:
            Corrupt: the pack is missing, or is not what the manifest says.
        """
        layer = self._layers[pack.layer]
        first, end = layer.frames_of(pack.number)
        needed = self._needed(pack.layer, first, end)
        for frame, plain in layer.plaintexts(pack.number, needed):
            yield self._runs_in(pack.layer, frame), memoryview(plain)

    def file(self, number: int) -> bytes:
        """Return one small file's content, by range requests.

        Raises:
            Corrupt: an object that it lies in is missing or damaged.
        """
        return self.read(number, 0, int(self._map.files["size"][number]))

    def read(self, number: int, position: int, length: int) -> bytes:
        """Return a stretch of a file, by range requests; zeros where there are no runs.

        Raises:
            Corrupt: an object that it lies in is missing or damaged.
        """
        content, end = bytearray(length), position + length
        start = int(self._ends[number - 1]) if number else 0
        pieces = self._map.pieces[start : int(self._ends[number])]
        behind = pieces["position"] + pieces["length"]
        opened: tuple[int, int, bytes] = (-1, -1, b"")
        for piece in pieces[(pieces["position"] < end) & (behind > position)]:
            opened = self._opened(piece, opened)
            at = int(piece["position"])
            left, right = max(at, position), min(at + int(piece["length"]), end)
            offset = self._offset(piece) - at
            part = opened[2][offset + left : offset + right]
            content[left - position : right - position] = part
        return bytes(content)

    def _opened(
        self, piece: np.void, before: tuple[int, int, bytes]
    ) -> tuple[int, int, bytes]:
        """Return layer, frame and plaintext of a piece's frame, often the last one."""
        number = int(piece["layer"])
        layer = self._layers[number]
        frame = int(layer.manifest.runs["frame"][piece["run"]])
        if before[:2] == (number, frame):
            return before
        ((_, plain),) = layer.plaintexts(layer.pack_of(frame), np.array([frame]))
        return number, frame, plain

    def _offset(self, piece: np.void) -> int:
        """Return where in its frame's plaintext a piece begins."""
        runs = self._layers[int(piece["layer"])].manifest.runs
        return int(runs["offset"][piece["run"]]) + int(piece["offset"])

    def _needed(self, layer: int, first: int, end: int) -> npt.NDArray[np.int64]:
        """Return the frames with wanted pieces, from `first` to before `end`."""
        low = np.searchsorted(self._sorted, layer << FRAME_BITS | first, side="left")
        high = np.searchsorted(self._sorted, layer << FRAME_BITS | end, side="left")
        return np.unique(self._sorted[low:high]) & ((1 << FRAME_BITS) - 1)

    def _runs_in(self, layer: int, frame: int) -> list[Run]:
        key = layer << FRAME_BITS | frame
        low = np.searchsorted(self._sorted, key, side="left")
        high = np.searchsorted(self._sorted, key, side="right")
        chosen = self._by_frame[low:high]
        pieces = self._map.pieces[chosen]
        runs = self._layers[layer].manifest.runs["offset"][pieces["run"]]
        columns = (
            self._owner[chosen].tolist(),
            pieces["position"].tolist(),
            (runs + pieces["offset"]).tolist(),
            pieces["length"].tolist(),
        )
        return list(zip(*columns, strict=True))


class _Layer:
    """The packs of one backup."""

    def __init__(self, repository: Repository, manifest: Manifest) -> None:
        self.manifest = manifest
        self.stored = manifest.frames["stored"].astype(np.int64)
        self._repository = repository
        counts = manifest.packs["frames"]
        self._first_frame = np.concatenate(([0], np.cumsum(counts, dtype=np.int64)))
        self._behind = np.concatenate(([0], np.cumsum(self.stored)))

    def frames_of(self, pack: int) -> tuple[int, int]:
        """Return a pack's first frame and the one behind its last."""
        return int(self._first_frame[pack]), int(self._first_frame[pack + 1])

    def pack_of(self, frame: int) -> int:
        """Return the pack that holds a frame."""
        return int(np.searchsorted(self._first_frame, frame, side="right")) - 1

    def packs_of(self, frames: npt.NDArray[np.int64]) -> list[int]:
        """Return the packs that hold any of the frames."""
        places = np.searchsorted(self._first_frame, frames, side="right") - 1
        found: list[int] = np.unique(places).tolist()
        return found

    def plaintexts(
        self, pack: int, frames: npt.NDArray[np.int64]
    ) -> Iterator[tuple[int, bytes]]:
        """Yield frames of one pack, ascending, with their plaintext."""
        name, size = self._name(pack), int(self.manifest.packs["size"][pack])
        if self._worth_whole(pack, frames):
            data = memoryview(self._whole(name, pack, size))
            opener = self._opener(name, data)
            for frame in frames.tolist():
                at = self._offset(pack, frame)
                sealed = data[at : at + int(self.stored[frame])]
                yield frame, self._open(opener, name, pack, frame, sealed)
            return
        opener = self._opener(name, self._range(name, 0, HEADER_BYTES, size))
        for first, last in self._stretches(frames):
            start, end = self._offset(pack, first), self._offset(pack, last + 1)
            data = memoryview(self._range(name, start, end - start, size))
            for frame in frames[(frames >= first) & (frames <= last)].tolist():
                at = self._offset(pack, frame) - start
                sealed = data[at : at + int(self.stored[frame])]
                yield frame, self._open(opener, name, pack, frame, sealed)

    def fetched_bytes(self, pack: int, frames: npt.NDArray[np.int64]) -> int:
        """Return how many stored bytes `plaintexts` fetches."""
        if self._worth_whole(pack, frames):
            return int(self.manifest.packs["size"][pack])
        stretches = self._stretches(frames)
        behind = (self._behind[last + 1] - self._behind[at] for at, last in stretches)
        return HEADER_BYTES + int(sum(behind))

    def _worth_whole(self, pack: int, frames: npt.NDArray[np.int64]) -> bool:
        size = int(self.manifest.packs["size"][pack])
        needed = int(self.stored[frames].sum())
        return size <= _WORTH_GAP or needed * _WORTH_WHOLE >= size

    def _stretches(self, frames: npt.NDArray[np.int64]) -> Iterator[tuple[int, int]]:
        """Cut frames where more lies between two than is worth reading over."""
        wanted = frames.tolist()
        first = wanted[0]
        for before, after in pairwise(wanted):
            if self._behind[after] - self._behind[before + 1] > _WORTH_GAP:
                yield first, before
                first = after
        yield first, wanted[-1]

    def _offset(self, pack: int, frame: int) -> int:
        before = self._behind[frame] - self._behind[self._first_frame[pack]]
        return HEADER_BYTES + int(before)

    def _open(
        self, opener: Opener, name: str, pack: int, frame: int, sealed: Buffer
    ) -> bytes:
        row = self.manifest.frames[frame]
        payload = opener.open_frame(frame - int(self._first_frame[pack]), sealed)
        return decompress(name, payload, int(row["plain"]), int(row["codec"]))

    def _whole(self, name: str, pack: int, size: int) -> bytes:
        if self._size(name) != size:
            raise self._damaged(name)
        data = self._range(name, 0, size, size)
        expected = self.manifest.packs["sha256"][pack].tobytes()
        if hashlib.sha256(data).digest() != expected:
            raise self._damaged(name)
        return data

    def _size(self, name: str) -> int:
        try:
            return self._repository.storage.size(name)
        except ObjectNotFound:
            raise self._missing(name) from None

    def _range(self, name: str, offset: int, length: int, size: int) -> bytes:
        """Read a range, never more than the manifest lets an object be long."""
        storage = self._repository.storage
        try:
            return storage.get(name, offset, length)
        except ObjectNotFound:
            raise self._missing(name) from None
        except StorageError as error:
            # A range that reaches past the end, unless the store failed otherwise.
            if storage.size(name) != size:
                raise self._damaged(name) from error
            raise

    def _opener(self, name: str, head: Buffer) -> Opener:
        repository = self._repository
        find = repository.keyring.finder("backup")
        return Opener(find, repository.lineage, name, "backup", head)

    def _name(self, pack: int) -> str:
        head = self.manifest.head
        return self._repository.layout.pack(head.label, head.attempt, pack)

    def _damaged(self, name: str) -> Corrupt:
        return Corrupt(
            f"pack {name} is damaged: it is not what its manifest says",
            hint="choose another backup; `drkit info` lists them",
        )

    def _missing(self, name: str) -> Corrupt:
        return Corrupt(
            f"pack {name} is missing, though its backup was committed",
            hint="choose another backup; `drkit info` lists them",
        )
