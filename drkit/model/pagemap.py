"""Page maps: which stored run each byte of a backup's files comes from.

A full backup's manifest is a page map by itself. An incremental's lists what differs
from its parent, and is laid over the parent's map: see docs/repository-format.md, "Page
maps". A restore reads the map that comes out, and never replays a chain.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from drkit.model.manifest import FILE, Rows, find_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from drkit.model.head import ManifestHead
    from drkit.model.manifest import Manifest

PIECE = np.dtype(
    [
        ("position", "<u8"),
        ("length", "<u4"),
        ("layer", "<u4"),
        ("run", "<u4"),
        ("offset", "<u4"),
    ]
)
"""A stretch of a file: `offset` bytes into run `run` of layer `layer`."""

FRAME_BITS = 32

# Files stand side by side on one line of bytes, each at its number times this, so that
# cutting all files' runs at once is arithmetic on that line. No file is longer.
_SPAN = np.uint64(1 << 40)
_MAX_FILES = (1 << 24) - 1

Positions = npt.NDArray[np.uint64]
Numbers = npt.NDArray[np.int64]


class _Listed:
    """Files of a chain of manifests; its attributes are those of `PageMap`."""

    __slots__ = ()
    layers: tuple[Manifest, ...]
    paths: list[bytes]

    @property
    def head(self) -> ManifestHead:
        """Return the head of the backup's own manifest."""
        return self.layers[-1].head

    def find(self, path: bytes) -> int | None:
        """Return the number of the file at `path`, or None."""
        return find_path(self.paths, path)


@dataclass(frozen=True, slots=True, eq=False)
class PageMap(_Listed):
    """All files of a backup, whichever backups of its chain hold their bytes.

    Attributes:
        layers: the chain's manifests, the full backup's first.
        paths: one per row of `files`, in strictly ascending byte order.
        files: `runs` counts a file's pieces; `kept` is 0.
        pieces: PIECE rows in the order of files, ascending inside each.
    """

    layers: tuple[Manifest, ...]
    paths: list[bytes]
    files: Rows
    pieces: Rows

    def pieces_of(self, number: int) -> Rows:
        """Return the pieces of one file."""
        ends = self.ends()
        start = int(ends[number - 1]) if number else 0
        return self.pieces[start : int(ends[number])]

    def ends(self) -> npt.NDArray[np.int64]:
        """Return for each file where its pieces end."""
        return np.cumsum(self.files["runs"], dtype=np.int64)

    def piece_files(self) -> npt.NDArray[np.uint32]:
        """Return for each piece the number of its file."""
        numbers = np.arange(len(self.files), dtype=np.uint32)
        return np.repeat(numbers, self.files["runs"])

    def piece_frames(self) -> npt.NDArray[np.int64]:
        """Return each piece's layer, shifted by FRAME_BITS, and its frame there."""
        counts = [len(manifest.runs) for manifest in self.layers]
        first = np.concatenate(([0], np.cumsum(counts)))
        frames = np.concatenate([manifest.runs["frame"] for manifest in self.layers])
        layers = self.pieces["layer"].astype(np.int64)
        found: npt.NDArray[np.int64] = layers << FRAME_BITS
        found |= frames[first[layers] + self.pieces["run"]]
        return found

    def pieces_in(self, layer: int, frames: Iterable[int]) -> npt.NDArray[np.intp]:
        """Return the places of the pieces that lie in frames of a layer."""
        wanted = np.array([layer << FRAME_BITS | frame for frame in frames], np.int64)
        return np.flatnonzero(np.isin(self.piece_frames(), wanted))

    def content_bytes(self) -> int:
        """Return the length of all files together."""
        return int(self.files["size"].sum())


def compose(layers: Sequence[Manifest]) -> PageMap:
    """Lay each manifest over the one before it; the first is a full backup's.

    Raises:
        ValueError: one does not fit what is below it.
    """
    if len(layers) == 1:
        manifest = layers[0]
        pieces = _as_pieces(0, manifest.runs)
        return PageMap((manifest,), manifest.paths, manifest.files, pieces)
    return Chain(layers).page_map()


class Chain(_Listed):
    """The manifests of a chain: its files, and the pieces of those that are asked for.

    Putting all pieces in place takes as long as the chain has runs, and an incremental
    backup asks for those of few files.

    Attributes:
        layers: the full backup's first.
        paths: one per row of `files`, in strictly ascending byte order.
        files: as the last layer leaves them; `runs` and `kept` are 0.

    Raises:
        ValueError: a manifest does not fit what is below it.
    """

    def __init__(self, layers: Sequence[Manifest]) -> None:
        self.layers = tuple(layers)
        known = _Files()
        self._numbers = [known.take(manifest) for manifest in layers]
        self.paths, self.files, self._numbered = known.listed()
        self._count = known.count
        self._ends = [
            np.cumsum(manifest.files["runs"], dtype=np.int64) for manifest in layers
        ]
        self._above: dict[int, list[tuple[int, int]]] = {}
        for layer, numbers in enumerate(self._numbers[1:], start=1):
            for row, number in enumerate(numbers.tolist()):
                self._above.setdefault(number, []).append((layer, row))

    def pieces_of(self, number: int) -> Rows:
        """Return the pieces of one file."""
        mine = int(self._numbered[number])
        below = [(0, mine)] if mine < len(self._numbers[0]) else []
        places = below + self._above.get(mine, [])
        if len(places) == 1:
            return self._pieces(*places[0])
        return _together([self._lay(*place) for place in places]).pieces

    def page_map(self) -> PageMap:
        """Put the pieces of all files in place; those of files that are gone go."""
        laid = [
            _lay(
                _as_pieces(layer, manifest.runs),
                numbers * _SPAN,
                manifest.files[["runs", "kept"]],
            )
            for layer, (manifest, numbers) in enumerate(
                zip(self.layers, self._numbers, strict=True)
            )
        ]
        whole = _together([laid[0], _together(laid[1:])]) if laid[1:] else laid[0]
        place = np.full(self._count, -1, dtype=np.int64)
        place[self._numbered] = np.arange(len(self._numbered))
        owner = place[whole.starts // _SPAN]
        live = np.flatnonzero(owner >= 0)
        order = live[np.argsort(owner[live], kind="stable")]
        files = self.files.copy()
        files["runs"] = np.bincount(owner[live], minlength=len(self.paths))
        return PageMap(self.layers, self.paths, files, whole.pieces[order])

    def _pieces(self, layer: int, row: int) -> Rows:
        """Return what one layer has stored of one file."""
        ends = self._ends[layer]
        first = int(ends[row - 1]) if row else 0
        return _as_pieces(layer, self.layers[layer].runs[first : int(ends[row])], first)

    def _lay(self, layer: int, row: int) -> _Laid:
        """Return what one layer lays of one file, which stands first on the line."""
        files = self.layers[layer].files[["runs", "kept"]][row : row + 1]
        return _lay(self._pieces(layer, row), np.zeros(1, np.uint64), files)


class _Files:
    """The files of a chain as its layers come; each has a number on the line of bytes.

    A path that was gone and is back is another file, with another number.

    Attributes:
        count: of all that ever were there; the first layer's have the first numbers.
    """

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {}
        self.count = 0
        self._rows = np.empty(0, dtype=FILE)

    def take(self, manifest: Manifest) -> Positions:
        """Take in what a manifest lists; return a number for each of its files."""
        for path in manifest.gone:
            if self._numbers.pop(path, None) is None:
                raise ValueError(f"{path!r} is gone, but never was there")
        numbers = np.array([self._number(path) for path in manifest.paths], np.uint64)
        if self.count > _MAX_FILES:
            raise ValueError("there are too many files")
        self._grow()
        if (manifest.files["kept"] > self._rows["size"][numbers]).any():
            raise ValueError("a file keeps more of its parent's than that has")
        self._rows[numbers] = manifest.files
        return numbers

    def listed(self) -> tuple[list[bytes], Rows, Numbers]:
        """Return the paths that are there in order, their rows, and their numbers."""
        paths = sorted(self._numbers)
        numbers = np.array([self._numbers[path] for path in paths], dtype=np.int64)
        files = self._rows[numbers]
        files["kept"] = files["runs"] = 0
        return paths, files, numbers

    def _number(self, path: bytes) -> int:
        number = self._numbers.setdefault(path, self.count)
        self.count = max(self.count, number + 1)
        return number

    def _grow(self) -> None:
        more = np.zeros(self.count - len(self._rows), dtype=FILE)
        if len(more):
            self._rows = np.concatenate((self._rows, more))


class _Laid(NamedTuple):
    """What one or several layers lay over those below.

    Attributes:
        starts: where each piece stands on the line of bytes, ascending.
        cover: stretches of the line, starts and ends, that hide what is below: pieces,
            and what is none's any more. Ascending; they neither overlap nor touch.
    """

    starts: Positions
    pieces: Rows
    cover: tuple[Positions, Positions]


def _lay(pieces: Rows, lines: Positions, files: Rows) -> _Laid:
    """Return what a manifest lays over those below: its runs, and its files' tails.

    Of each file that it lists, everything from `kept` on is its own.

    Args:
        lines: where on the line of bytes each file begins.
        files: how many of the pieces are each file's, and what it keeps.
    """
    starts = np.repeat(lines, files["runs"]) + pieces["position"]
    cover = _union(
        np.concatenate((starts, lines + files["kept"])),
        np.concatenate((starts + pieces["length"], lines + _SPAN)),
    )
    order = np.argsort(starts, kind="stable")
    return _Laid(starts[order], pieces[order], cover)


def _together(laid: Sequence[_Laid]) -> _Laid:
    """Lay layers over each other; by halves, for each piece is then moved seldom."""
    if len(laid) == 1:
        return laid[0]
    half = len(laid) // 2
    return _over(_together(laid[:half]), _together(laid[half:]))


def _over(below: _Laid, above: _Laid) -> _Laid:
    starts, pieces = _outside(below, above.cover)
    starts = np.concatenate((starts, above.starts))
    pieces = np.concatenate((pieces, above.pieces))
    order = np.argsort(starts, kind="stable")
    cover = _union(
        np.concatenate((below.cover[0], above.cover[0])),
        np.concatenate((below.cover[1], above.cover[1])),
    )
    return _Laid(starts[order], pieces[order], cover)


def _union(starts: Positions, ends: Positions) -> tuple[Positions, Positions]:
    """Return stretches in order, those that overlap or touch as one."""
    order = np.argsort(starts, kind="stable")
    starts, ends = starts[order], np.maximum.accumulate(ends[order])
    apart = np.flatnonzero(starts[1:] > ends[:-1])
    first, last = np.append(0, apart + 1), np.append(apart, len(starts) - 1)
    return (starts[first], ends[last]) if len(starts) else (starts, ends)


def _as_pieces(layer: int, runs: Rows, first: int = 0) -> Rows:
    """Return a manifest's own runs as pieces, the first of them being run `first`."""
    pieces = np.zeros(len(runs), dtype=PIECE)
    pieces["position"] = runs["position"]
    pieces["length"] = runs["length"]
    pieces["layer"] = layer
    pieces["run"] = np.arange(first, first + len(runs))
    return pieces


def _outside(
    below: _Laid, cover: tuple[Positions, Positions]
) -> tuple[Positions, Rows]:
    """Return what of the pieces lies outside of a cover, cut where it must be.

    Between two stretches of the cover is a hole; a piece is cut into its meetings with
    the holes.
    """
    starts, pieces = below.starts, below.pieces
    zero, infinite = np.zeros(1, np.uint64), np.full(1, np.iinfo(np.uint64).max)
    hole_starts = np.concatenate((zero, cover[1]))
    hole_ends = np.concatenate((cover[0], infinite))
    ends = starts + pieces["length"]
    first = np.searchsorted(hole_ends, starts, side="right")
    last = np.searchsorted(hole_starts, ends, side="left")
    counts = np.maximum(last - first, 0)
    whose = np.repeat(np.arange(len(pieces)), counts)
    within = np.arange(len(whose)) - np.repeat(np.cumsum(counts) - counts, counts)
    hole = first[whose] + within
    left = np.maximum(starts[whose], hole_starts[hole])
    right = np.minimum(ends[whose], hole_ends[hole])
    shift = left - starts[whose]
    cut = pieces[whose]
    cut["position"] += shift
    cut["offset"] += shift.astype(np.uint32)
    cut["length"] = (right - left).astype(np.uint32)
    return left, cut
