"""Measures what manifests cost: writing, loading, and laying chains of them together.

    python benchmarks/manifest.py
    python benchmarks/manifest.py --files 1000000 --limit 5 --memory 600

Each figure is of a process of its own, so that its peak memory is its own too. See
README.md.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from drkit.crypto.keys import new_dek
from drkit.crypto.sealing import overhead
from drkit.model.head import ManifestHead, ParentRef, ServerDescription, WalPosition
from drkit.model.label import BackupKind
from drkit.model.lsn import Lsn
from drkit.model.manifest import (
    DAMAGED,
    FILE,
    FRAME,
    PACK,
    RUN,
    FileKind,
    Manifest,
    empty,
)
from drkit.model.pagemap import compose
from drkit.repository.manifest import decode, encode
from drkit.repository.objects import Sealing, seal, unseal

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from drkit.crypto.keys import Dek

    Numbers = npt.NDArray[np.int64]

_PAGE, _FRAME_RUNS, _PACK_FRAMES = 8192, 256, 32
_NAME, _LINEAGE = "alpha/backups/benchmark/manifest", bytes(16)
_TIME = datetime(2026, 1, 15, 10, 30, tzinfo=UTC)


class Cost(NamedTuple):
    """What one phase took."""

    phase: str
    seconds: float
    peak_bytes: int
    note: str


def main() -> int:
    """Measure, print, and say whether the limits were kept."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="drkit-manifest-") as work:
        key = new_dek("catalog")
        place = Path(work) / "manifest"
        costs = [
            _apart(write, options.files, place, key),
            _apart(load, place, key),
            _apart(lay_small, options.files // 10, 100),
            _apart(lay_large, 2000, 100, 10_000),
        ]
    print("| phase | seconds | peak memory, MB | |\n|---|---:|---:|---|")
    for cost in costs:
        peak = cost.peak_bytes / 1e6
        print(f"| {cost.phase} | {cost.seconds:.2f} | {peak:.0f} | {cost.note} |")
    slow = sum(cost.seconds for cost in costs[:2]) > options.limit
    large = max(cost.peak_bytes for cost in costs[:2]) > options.memory * 1e6
    if slow or large:
        print("writing and loading went past a limit", file=sys.stderr)
    return int(slow or large)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument(
        "--limit", type=float, default=float("inf"), help="seconds to write and load"
    )
    parser.add_argument(
        "--memory", type=float, default=float("inf"), help="MB, of either"
    )
    return parser.parse_args()


def _apart(work: Callable[..., Cost], *arguments: object) -> Cost:
    """Run a phase in a process of its own."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(work, *arguments).result()


def write(count: int, place: Path, key: Dek) -> Cost:
    """Encode and seal a full backup's manifest of `count` files, a run in each."""
    manifest = full(count)
    start = time.perf_counter()
    sealed = seal(Sealing(key, _LINEAGE, _NAME), encode(manifest))
    seconds = time.perf_counter() - start
    place.write_bytes(sealed)
    return _cost("write", seconds, f"{count} files, {len(sealed) / 1e6:.0f} MB stored")


def load(place: Path, key: Dek) -> Cost:
    """Open, decode and compose that manifest."""
    start = time.perf_counter()
    plain = unseal(lambda _: key, _LINEAGE, _NAME, "catalog", place.read_bytes())
    page_map = compose((decode(_NAME, plain),))
    seconds = time.perf_counter() - start
    return _cost("load", seconds, f"{len(page_map.paths)} files")


def lay_small(count: int, depth: int) -> Cost:
    """Lay small incrementals over a full backup of `count` files."""
    layers = [full(count)]
    chance = np.random.default_rng(1)
    for _ in range(depth):
        chosen = np.sort(chance.choice(count, count // 100, replace=False))
        layers.append(incremental(layers[0], chosen, chance, 4 * len(chosen)))
    return _laid("lay small incrementals", layers)


def lay_large(count: int, depth: int, runs: int) -> Cost:
    """Lay incrementals with many runs over a full backup of large files."""
    layers = [full(count, blocks=16_384)]
    chance = np.random.default_rng(2)
    every = np.arange(count)
    layers += [incremental(layers[0], every, chance, runs) for _ in range(depth)]
    return _laid("lay large incrementals", layers)


def _laid(phase: str, layers: list[Manifest]) -> Cost:
    start = time.perf_counter()
    page_map = compose(layers)
    seconds = time.perf_counter() - start
    note = (
        f"{len(layers) - 1} of {len(layers[1].runs)} runs over {len(page_map.paths)} "
        f"files: {len(page_map.pieces)} pieces"
    )
    return _cost(phase, seconds, note)


def _cost(phase: str, seconds: float, note: str) -> Cost:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Cost(phase, seconds, peak, note)


def full(count: int, blocks: int = 1) -> Manifest:
    """Return a full backup's manifest of `count` files of so many blocks each."""
    paths = [b"base/16384/%08d" % number for number in range(count)]
    files = _files(count, np.full(count, blocks * _PAGE))
    parts = -(-blocks // _FRAME_RUNS)
    position = np.tile(np.arange(parts) * _FRAME_RUNS * _PAGE, count)
    length = np.full(len(position), min(blocks, _FRAME_RUNS) * _PAGE)
    owner = np.repeat(np.arange(count), parts)
    return _manifest(None, paths, files, owner, position, length)


def incremental(
    parent: Manifest, chosen: Numbers, chance: np.random.Generator, runs: int
) -> Manifest:
    """Return a manifest of `runs` random pages, spread over the chosen files."""
    owner = np.sort(chance.integers(0, len(chosen), runs))
    sizes = parent.files["size"][chosen]
    block = chance.integers(0, (sizes // _PAGE).astype(np.int64)[owner])
    pages = np.unique(np.stack((owner, block)), axis=1)
    files = _files(len(chosen), sizes)
    files["kept"] = sizes
    paths = [parent.paths[number] for number in chosen.tolist()]
    length = np.full(pages.shape[1], _PAGE)
    return _manifest(
        ParentRef("20260115-103000-full", "0" * 64),
        paths,
        files,
        pages[0],
        pages[1] * _PAGE,
        length,
    )


def _files(count: int, sizes: npt.NDArray[np.uint64] | Numbers) -> np.ndarray:
    files = np.zeros(count, dtype=FILE)
    files["kind"], files["mode"], files["size"] = FileKind.FILE, 0o600, sizes
    files["mtime"] = 1_768_473_000 + np.arange(count) % 1000
    files["identity"] = 1_000_000 + np.arange(count)
    return files


def _manifest(
    parent: ParentRef | None,
    paths: list[bytes],
    files: np.ndarray,
    owner: Numbers,
    position: Numbers,
    length: Numbers,
) -> Manifest:
    runs = np.zeros(len(owner), dtype=RUN)
    place = np.arange(len(owner))
    runs["position"], runs["length"] = position, length
    runs["frame"] = place // _FRAME_RUNS
    runs["offset"] = place % _FRAME_RUNS * _PAGE
    runs["digest"] = np.random.default_rng(0).integers(0, 256, (len(runs), 16), "u1")
    files["runs"] = np.bincount(owner, minlength=len(files))
    packs, frames = _stored(-(-len(runs) // _FRAME_RUNS))
    head = _head(parent)
    return Manifest(head, paths, files, packs, frames, runs, empty(DAMAGED))


def _stored(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return packs and frames that look like a writer's."""
    frames = np.zeros(count, dtype=FRAME)
    frames["stored"], frames["plain"], frames["codec"] = 500_000, 256 * _PAGE, 1
    cuts = range(0, count, _PACK_FRAMES)
    packs = np.zeros(len(cuts), dtype=PACK)
    packs["frames"] = [min(_PACK_FRAMES, count - cut) for cut in cuts]
    packs["size"] = overhead(0) + packs["frames"].astype(np.int64) * (500_000 + 12)
    return packs, frames


def _head(parent: ParentRef | None) -> ManifestHead:
    kind = BackupKind.INCREMENTAL if parent else BackupKind.FULL
    position = WalPosition(Lsn(0x2000028), 1, _TIME)
    return ManifestHead(
        drkit_version="benchmark",
        cluster="alpha",
        label=f"20260115-103000-{kind}",
        attempt="ab" * 16,
        kind=kind,
        parent=parent,
        source="local",
        dek_id="0" * 32,
        server=ServerDescription(
            "7300000000000000001", 180000, 202506291, 1800, _PAGE, 131072,
            16 << 20, data_checksums=True, group_access=False,
        ),
        start=position,
        stop=position,
        backup_label="",
        tablespace_map="",
        tablespaces=(),
        warnings=(),
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
