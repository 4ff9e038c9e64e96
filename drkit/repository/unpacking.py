"""Reading file content out of packs: each frame once, authenticated, bounded."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from drkit.crypto.sealing import HEADER_BYTES, TAG, Opener
from drkit.errors import Corrupt, ObjectNotFound, StorageError
from drkit.repository.codec import decompress

if TYPE_CHECKING:
    from collections.abc import Iterator

    from drkit.model.manifest import Manifest
    from drkit.protocols import Buffer
    from drkit.repository.repository import Repository

    Run = tuple[int, int, int, int]


class PackReader:
    """Reads the packs of one backup; used by one thread."""

    def __init__(self, repository: Repository, manifest: Manifest) -> None:
        self._repository = repository
        self._manifest = manifest
        counts = manifest.packs["frames"]
        self._first_frame = np.concatenate(([0], np.cumsum(counts, dtype=np.int64)))
        self._by_frame = np.argsort(manifest.runs["frame"], kind="stable")
        self._sorted = manifest.runs["frame"][self._by_frame]
        self._owner = manifest.run_files()

    def frames(self, pack: int) -> Iterator[tuple[list[Run], memoryview]]:
        """Yield the plaintext of each frame of a pack, with the runs that lie in it.

        A run is its file's number, its position there, its offset in the plaintext, and
        its length.

        Raises:
            Corrupt: the pack is missing, or is not what the manifest says.
        """
        name = self._name(pack)
        data = memoryview(self._fetch(name, pack))
        opener = self._opener(name, data)
        offset = HEADER_BYTES
        first, end = int(self._first_frame[pack]), int(self._first_frame[pack + 1])
        for frame in range(first, end):
            stored = int(self._manifest.frames["stored"][frame])
            sealed = data[offset : offset + stored]
            plain = self._open(opener, name, frame - first, frame, sealed)
            yield self._runs_in(frame), memoryview(plain)
            offset += stored

    def file(self, number: int) -> bytes:
        """Return one small file's content, by range requests.

        Raises:
            Corrupt: an object that it lies in is missing or damaged.
        """
        content = bytearray(int(self._manifest.files["size"][number]))
        runs = np.flatnonzero(self._owner == number)
        for run in self._manifest.runs[runs].tolist():
            position, length, frame, offset, _ = run
            plain = self._one_frame(frame)
            content[position : position + length] = plain[offset : offset + length]
        return bytes(content)

    def _one_frame(self, frame: int) -> bytes:
        pack = int(np.searchsorted(self._first_frame, frame, side="right")) - 1
        first = int(self._first_frame[pack])
        name = self._name(pack)
        stored = self._manifest.frames["stored"]
        offset = HEADER_BYTES + int(stored[first:frame].sum(dtype=np.int64))
        storage = self._repository.storage
        try:
            opener = self._opener(name, storage.get(name, 0, HEADER_BYTES))
            sealed = storage.get(name, offset, int(stored[frame]))
        except ObjectNotFound:
            raise self._missing(name) from None
        except StorageError as error:
            # A range that reaches past the end, unless the store failed otherwise.
            if storage.size(name) != int(self._manifest.packs[pack]["size"]):
                raise self._damaged(name) from error
            raise
        return self._open(opener, name, frame - first, frame, sealed)

    def _open(
        self, opener: Opener, name: str, number: int, frame: int, sealed: Buffer
    ) -> bytes:
        row = self._manifest.frames[frame]
        payload = opener.open_frame(number, sealed)
        return decompress(name, payload, int(row["plain"]), int(row["codec"]))

    def _runs_in(self, frame: int) -> list[Run]:
        low = np.searchsorted(self._sorted, frame, side="left")
        high = np.searchsorted(self._sorted, frame, side="right")
        chosen = self._by_frame[low:high]
        runs = self._manifest.runs[chosen]
        columns = (
            self._owner[chosen].tolist(),
            runs["position"].tolist(),
            runs["offset"].tolist(),
            runs["length"].tolist(),
        )
        return list(zip(*columns, strict=True))

    def _fetch(self, name: str, pack: int) -> bytes:
        row = self._manifest.packs[pack]
        try:
            data = self._repository.storage.get(name)
        except ObjectNotFound:
            raise self._missing(name) from None
        digest = hashlib.sha256(data).digest()
        if len(data) != int(row["size"]) or digest != row["sha256"].tobytes():
            raise self._damaged(name)
        return data

    def _opener(self, name: str, head: Buffer) -> Opener:
        repository = self._repository
        find = repository.keyring.finder("backup")
        return Opener(find, repository.lineage, name, "backup", head)

    def _name(self, pack: int) -> str:
        head = self._manifest.head
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


def stored_bound(plain: int) -> int:
    """Return the most that a frame of `plain` bytes takes in its object."""
    return plain + TAG
