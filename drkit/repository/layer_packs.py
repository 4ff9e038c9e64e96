"""The packs of one backup: which frames they hold, and fetching them out of it."""

from __future__ import annotations

import hashlib
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from drkit.crypto.sealing import HEADER_BYTES, Opener
from drkit.errors import Corrupt, ObjectNotFound, StorageError
from drkit.repository.codec import decompress
from drkit.repository.framing import DIGEST_BYTES, content_digest
from drkit.repository.packing import digest_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import numpy.typing as npt

    from drkit.model.manifest import Manifest
    from drkit.protocols import Buffer
    from drkit.repository.repository import Repository

_WORTH_WHOLE = 2  # read a pack whole if at least a half of it is needed
_WORTH_GAP = 256 << 10  # read over what is not needed rather than ask twice


class LayerPacks:
    """The packs of one backup of a chain.

    Holds nothing that changes, so several threads may use it.
    """

    def __init__(self, repository: Repository, manifest: Manifest) -> None:
        self.manifest = manifest
        self._repository = repository
        self._stored = manifest.frames["stored"].astype(np.int64)
        counts = manifest.packs["frames"]
        self._first_frame = np.concatenate(([0], np.cumsum(counts, dtype=np.int64)))
        self._behind = np.concatenate(([0], np.cumsum(self._stored)))

    @cached_property
    def digest_key(self) -> bytes:
        """Return the key of the digests of the backup's runs."""
        dek_id = bytes.fromhex(self.manifest.head.dek_id)
        dek = self._repository.keyring.get("backup", dek_id)
        return digest_key(dek, self._repository.lineage)

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
    ) -> Iterator[tuple[int, Buffer]]:
        """Yield frames of one pack, ascending, with their plaintext.

        Raises:
            Corrupt: the pack is missing, or is not what the manifest says.
        """
        stored = _StoredPack(self._repository, self.manifest, pack)
        if self.reads_whole(pack, frames):
            data = memoryview(stored.whole())
            opener = stored.opener(data)
            for frame in frames.tolist():
                yield frame, self._open(stored, opener, frame, data)
            return
        opener = stored.opener(stored.range(0, HEADER_BYTES))
        for first, last in self._stretches(frames):
            start, end = self._offset(pack, first), self._offset(pack, last + 1)
            data = memoryview(stored.range(start, end - start))
            for frame in frames[(frames >= first) & (frames <= last)].tolist():
                yield frame, self._open(stored, opener, frame, data, start)

    def refuse_forged(self, frame: int, plain: Buffer, runs: Iterable[int]) -> None:
        """Hold runs of a pack that is read in parts against their digests.

        A frame's tag proves no more than that whoever sealed it had the key. A run lies
        wholly in its frame, and is checked as a whole whatever of it is needed.

        Args:
            frame: its number in the manifest.
            plain: its plaintext.
            runs: their numbers in the manifest; one that comes again is passed over.

        Raises:
            Corrupt: one holds other bytes.
        """
        numbers, view, key = (
            list(dict.fromkeys(runs)),
            memoryview(plain),
            self.digest_key,
        )
        rows = self.manifest.runs[numbers]
        digests = rows["digest"].tobytes()
        starts, lengths = rows["offset"].tolist(), rows["length"].tolist()
        for place, (start, length) in enumerate(zip(starts, lengths, strict=True)):
            right = digests[place * DIGEST_BYTES : (place + 1) * DIGEST_BYTES]
            if content_digest(key, view[start : start + length]) != right:
                raise self._forged(frame, numbers[place])

    def fetched_bytes(self, pack: int, frames: npt.NDArray[np.int64]) -> int:
        """Return how many stored bytes `plaintexts` fetches."""
        if self.reads_whole(pack, frames):
            return int(self.manifest.packs["size"][pack])
        stretches = self._stretches(frames)
        behind = (self._behind[last + 1] - self._behind[at] for at, last in stretches)
        return HEADER_BYTES + int(sum(behind))

    def reads_whole(self, pack: int, frames: npt.NDArray[np.int64]) -> bool:
        """Say whether `plaintexts` reads a pack whole: its SHA-256 is proven then."""
        size = int(self.manifest.packs["size"][pack])
        needed = int(self._stored[frames].sum())
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
        """Return where a frame begins in its pack."""
        before = self._behind[frame] - self._behind[self._first_frame[pack]]
        return HEADER_BYTES + int(before)

    def _forged(self, frame: int, run: int) -> Corrupt:
        manifest = self.manifest
        pack = self.pack_of(frame)
        name = _StoredPack(self._repository, manifest, pack).name
        path = manifest.paths[manifest.run_files()[run]].decode(errors="replace")
        return Corrupt(
            f"pack {name} is not what its manifest says: frame "
            f"{frame - int(self._first_frame[pack])} holds other content of {path}",
            hint="somebody who has its key has changed it; choose another backup, or "
            "bring the pack back from a copy of the repository",
        )

    def _open(
        self,
        stored: _StoredPack,
        opener: Opener,
        frame: int,
        data: memoryview,
        start: int = 0,
    ) -> Buffer:
        """Open a frame that lies in `data`, which the pack has from `start` on."""
        at = self._offset(stored.number, frame) - start
        sealed = data[at : at + int(self._stored[frame])]
        row = self.manifest.frames[frame]
        number = frame - int(self._first_frame[stored.number])
        payload = opener.open_frame(number, sealed)
        return decompress(stored.name, payload, int(row["plain"]), int(row["codec"]))


class _StoredPack:
    """One pack as it is stored."""

    def __init__(self, repository: Repository, manifest: Manifest, pack: int) -> None:
        head, row = manifest.head, manifest.packs[pack]
        self.number = pack
        self._repository = repository
        self._storage = repository.storage
        self.name = repository.layout.pack(head.label, head.attempt, pack)
        self._size = int(row["size"])
        self._sha256 = row["sha256"].tobytes()

    def whole(self) -> bytes:
        """Read all of it, which must be what the manifest says."""
        if self._stored_size() != self._size:
            raise self._damaged()
        data = self.range(0, self._size)
        if hashlib.sha256(data).digest() != self._sha256:
            raise self._damaged()
        return data

    def range(self, offset: int, length: int) -> bytes:
        """Read a range, never more than the manifest lets an object be long."""
        try:
            return self._storage.get(self.name, offset, length)
        except ObjectNotFound:
            raise self._missing() from None
        except StorageError as error:
            # A range that reaches past the end, unless the store failed otherwise.
            if self._storage.size(self.name) != self._size:
                raise self._damaged() from error
            raise

    def opener(self, head: Buffer) -> Opener:
        """Return what opens its frames; `head` begins with its header."""
        repository = self._repository
        find = repository.keyring.finder("backup")
        return Opener(find, repository.lineage, self.name, "backup", head)

    def _stored_size(self) -> int:
        try:
            return self._storage.size(self.name)
        except ObjectNotFound:
            raise self._missing() from None

    def _damaged(self) -> Corrupt:
        return Corrupt(
            f"pack {self.name} is damaged: it is not what its manifest says",
            hint="choose another backup; `drkit info` lists them",
        )

    def _missing(self) -> Corrupt:
        return Corrupt(
            f"pack {self.name} is missing, though its backup was committed",
            hint="choose another backup; `drkit info` lists them",
        )
