"""A backup with the ones it builds on: their manifests composed, their content read."""

from __future__ import annotations

import threading
from functools import cached_property, partial
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from drkit import workers
from drkit.errors import Corrupt
from drkit.model.pagemap import Chain, compose
from drkit.repository.framing import content_digest
from drkit.repository.manifests import read_manifest
from drkit.repository.packing import digest_key
from drkit.repository.unpacking import PackReader

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from drkit.model.log import Commit, LogState
    from drkit.model.manifest import Manifest, Row
    from drkit.model.pagemap import PageMap
    from drkit.protocols import Buffer
    from drkit.repository.repository import Repository

    Damaged = Mapping[str, set[int]]

S = TypeVar("S")
T = TypeVar("T")

_READERS = 8  # requests at a time: a chain may have hundreds of manifests and keys


def lineage(state: LogState, commit: Commit) -> list[Commit]:
    """Return a live backup's chain, its full backup first and itself last.

    Raises:
        Corrupt: an ancestor is no live backup, which the log's rules don't allow.
    """
    chain = [commit]
    while (parent := state.attempts[chain[-1].attempt].begin.parent) is not None:
        if parent not in state.backups:
            label = chain[-1].backup.label
            raise Corrupt(f"the parent of backup {label}, {parent}, has expired")
        chain.append(state.backups[parent])
    return chain[::-1]


def read_chain(repository: Repository, commit: Commit) -> PageMap:
    """Read a backup's manifest and those below it, and compose their page maps.

    Raises:
        Corrupt: one is missing, not what was committed, or does not fit the others.
    """
    return _fitting(commit, read_layers(repository, commit), compose)


def read_parent(repository: Repository, commit: Commit) -> Chain:
    """Read a backup's manifest and those below it, for an incremental on top.

    Raises:
        Corrupt: as `read_chain`.
    """
    return _fitting(commit, read_layers(repository, commit), Chain)


def _fitting(
    commit: Commit,
    layers: list[Manifest],
    putting: Callable[[list[Manifest]], T],
) -> T:
    try:
        return putting(layers)
    except ValueError as error:
        raise Corrupt(
            f"the manifests of backup {commit.backup.label} don't fit: {error}",
            hint="choose another backup; `drkit info` lists them",
        ) from error


def read_layers(repository: Repository, commit: Commit) -> list[Manifest]:
    """Read a backup's manifest and those below it, the full backup's first.

    Raises:
        Corrupt: one is missing, not what was committed, or names another parent.
    """
    commits = lineage(repository.log.state, commit)
    layers = _several_at_a_time(
        lambda one: read_manifest(repository, one.manifest), commits
    )
    for below, above, manifest in zip(commits, commits[1:], layers[1:], strict=False):
        parent = manifest.head.parent
        expected = (below.backup.label, below.manifest.sha256)
        if parent is None or (parent.label, parent.sha256) != expected:
            raise Corrupt(f"manifest {above.manifest.name} names another parent")
    if layers[0].head.parent is not None:
        raise Corrupt(f"manifest {commits[0].manifest.name} is of no full backup")
    return layers


def _several_at_a_time(do: Callable[[S], T], items: Sequence[S]) -> list[T]:
    """Call something for each item, which waits for the store; return its results."""

    def reader(first: int) -> Callable[[workers.Stop], list[T]]:
        def read(stop: workers.Stop) -> list[T]:
            return [do(one) for one in items[first::_READERS] if not stop.is_set()]

        return read

    count = min(_READERS, len(items))
    parts = workers.run([reader(first) for first in range(count)])
    return [parts[place % _READERS][place // _READERS] for place in range(len(items))]


class Digests:
    """The keyed digests of what a chain's runs hold."""

    def __init__(self, repository: Repository, layers: Sequence[Manifest]) -> None:
        self._layers = layers
        self._keys = _several_at_a_time(partial(_digest_key, repository), layers)

    def unchanged(self, piece: Row, data: Buffer) -> bool:
        """Say whether `data` is what a whole piece holds, by its keyed digest.

        Args:
            piece: a row of a page map's pieces.
        """
        run = self._layers[piece["layer"]].runs[piece["run"]]
        if not len(data) == piece["length"] == run["length"]:
            return False
        digest = content_digest(self._keys[piece["layer"]], data)
        return bool(digest == run["digest"].tobytes())


def _digest_key(repository: Repository, manifest: Manifest) -> bytes:
    dek = repository.keyring.get("backup", bytes.fromhex(manifest.head.dek_id))
    return digest_key(dek, repository.lineage)


class ChainContent:
    """What a backup's files hold, for comparing with a cluster's files.

    Args:
        lost: frames that are known to be damaged, by the attempt that stored them.
    """

    def __init__(self, repository: Repository, chain: Chain, lost: Damaged) -> None:
        self.chain = chain
        self._repository = repository
        self._digests = Digests(repository, chain.layers)
        self._lock = threading.Lock()
        any_lost = lost or any(len(one.damaged) for one in chain.layers)
        self._lost = _lost_stretches(self._page_map, lost) if any_lost else {}

    @cached_property
    def _page_map(self) -> PageMap:
        return self.chain.page_map()

    @cached_property
    def _reader(self) -> PackReader:
        return PackReader(self._repository, self._page_map)

    def unchanged(self, piece: Row, data: Buffer) -> bool:
        """Say whether `data` is what a whole piece holds, by its keyed digest."""
        return self._digests.unchanged(piece, data)

    def read(self, number: int, position: int, length: int) -> bytes:
        """Fetch stored bytes of a file; zeros where the backup has none."""
        with self._lock:
            reader = self._reader
        return reader.read(number, position, length)

    def damaged(self, number: int) -> list[tuple[int, int]]:
        """Return the stretches of a file, (start, end), that are known to be lost."""
        return self._lost.get(number, [])


def _lost_stretches(
    page_map: PageMap, lost: Damaged
) -> dict[int, list[tuple[int, int]]]:
    """Return by file number what can't be had from the repository, or is bad there.

    Beside lost frames these are the pages that were damaged when they were read.
    """
    found: dict[int, list[tuple[int, int]]] = {}
    owner = page_map.piece_files()
    for layer, manifest in enumerate(page_map.layers):
        frames = lost.get(manifest.head.attempt)
        if frames:
            places = page_map.pieces_in(layer, frames)
            for place in places.tolist():
                start = int(page_map.pieces["position"][place])
                end = start + int(page_map.pieces["length"][place])
                found.setdefault(int(owner[place]), []).append((start, end))
        size = manifest.head.server.block_size
        for file, block in manifest.damaged.tolist():
            number = page_map.find(manifest.paths[file])
            if number is not None and _is_from(page_map, number, block * size, layer):
                stretch = (block * size, (block + 1) * size)
                found.setdefault(number, []).append(stretch)
    return {number: sorted(stretches) for number, stretches in found.items()}


def _is_from(page_map: PageMap, number: int, position: int, layer: int) -> bool:
    """Say whether a byte of a file still comes from a layer, not from a newer one."""
    pieces = page_map.pieces_of(number)
    place = int(np.searchsorted(pieces["position"], position, side="right")) - 1
    return place >= 0 and bool(pieces["layer"][place] == layer)
