"""Reading file content out of packs: each frame once, authenticated, bounded."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from drkit.model.pagemap import FRAME_BITS
from drkit.repository.layer_packs import LayerPacks

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from drkit.model.pagemap import PageMap
    from drkit.protocols import Buffer
    from drkit.repository.repository import Repository

    Run = list[int]

_FRAME = (1 << FRAME_BITS) - 1


class Pack(NamedTuple):
    """A pack of a chain: the number of its backup's layer, and its own there."""

    layer: int
    number: int


class _Opened(NamedTuple):
    """A frame's plaintext, and the run in it that was found right last."""

    layer: int
    frame: int
    run: int
    plain: Buffer


class PackReader:
    """Reads the packs of a backup and of those it builds on.

    What it hands out is what the manifests say, which a signature covers: by the pack's
    SHA-256 where it is read whole, and else by the digest of each piece's run.

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
        self._layers = [LayerPacks(repository, one) for one in page_map.layers]
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
        low, high = self._places(pack.layer, *layer.frames_of(pack.number))
        frames, chosen = self._sorted[low:high] & _FRAME, self._by_frame[low:high]
        needed, starts = np.unique(frames, return_index=True)
        runs = self._runs(pack.layer, chosen)
        whole = self._map.pieces["run"][chosen].tolist()
        ends = [*starts[1:].tolist(), len(runs)]
        proven = layer.reads_whole(pack.number, needed)
        plaintexts = layer.plaintexts(pack.number, needed)
        parts = zip(starts.tolist(), ends, plaintexts, strict=True)
        for start, end, (frame, plain) in parts:
            if not proven:
                layer.refuse_forged(frame, plain, whole[start:end])
            yield runs[start:end].tolist(), memoryview(plain)

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
        opened = _Opened(-1, -1, -1, b"")
        for piece in pieces[(pieces["position"] < end) & (behind > position)]:
            opened = self._opened(piece, opened)
            at = int(piece["position"])
            left, right = max(at, position), min(at + int(piece["length"]), end)
            offset = self._offset(piece) - at
            part = opened.plain[offset + left : offset + right]
            content[left - position : right - position] = part
        return bytes(content)

    def _opened(self, piece: np.void, before: _Opened) -> _Opened:
        """Return the frame of a piece, often the last one; its run is right."""
        number, run = int(piece["layer"]), int(piece["run"])
        if (before.layer, before.run) == (number, run):
            return before
        layer, plain = self._layers[number], before.plain
        frame = int(layer.manifest.runs["frame"][run])
        if (before.layer, before.frame) != (number, frame):
            ((_, plain),) = layer.plaintexts(layer.pack_of(frame), np.array([frame]))
        layer.refuse_forged(frame, plain, (run,))
        return _Opened(number, frame, run, plain)

    def _offset(self, piece: np.void) -> int:
        """Return where in its frame's plaintext a piece begins."""
        runs = self._layers[int(piece["layer"])].manifest.runs
        return int(runs["offset"][piece["run"]]) + int(piece["offset"])

    def _needed(self, layer: int, first: int, end: int) -> npt.NDArray[np.int64]:
        """Return the frames with wanted pieces, from `first` to before `end`."""
        low, high = self._places(layer, first, end)
        return np.unique(self._sorted[low:high]) & _FRAME

    def _places(self, layer: int, first: int, end: int) -> tuple[int, int]:
        """Return where the wanted pieces of frames begin and end, by their frame."""
        keys = [layer << FRAME_BITS | frame for frame in (first, end)]
        low, high = np.searchsorted(self._sorted, keys).tolist()
        return low, high

    def _runs(self, layer: int, chosen: npt.NDArray[np.intp]) -> npt.NDArray[np.int64]:
        """Return the runs of pieces of a layer, a row each."""
        pieces = self._map.pieces[chosen]
        offsets = self._layers[layer].manifest.runs["offset"][pieces["run"]]
        rows = np.empty((len(chosen), 4), dtype=np.int64)
        rows[:, 0] = self._owner[chosen]
        rows[:, 1] = pieces["position"]
        rows[:, 2] = pieces["offset"]
        rows[:, 2] += offsets
        rows[:, 3] = pieces["length"]
        return rows
