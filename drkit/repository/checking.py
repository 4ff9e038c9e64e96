"""Checking packs: everything a pack's manifest says of it, frame by frame.

A restore stops at the first thing that is wrong. Here the rest is looked at as well, so
that damage is named by its frames.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from drkit.crypto.sealing import HEADER_BYTES, Frame, Opener
from drkit.errors import Corrupt, ObjectNotFound, StorageError
from drkit.model.damage import DamageKind, PackPlace
from drkit.repository.codec import decompress
from drkit.repository.findings import stretches
from drkit.repository.framing import content_digest
from drkit.repository.packing import digest_key

if TYPE_CHECKING:
    from collections.abc import Callable

    from drkit.crypto.keys import Dek
    from drkit.model.manifest import Manifest
    from drkit.repository.repository import Repository

    Look = Callable[[int, memoryview], None]


class Verdict(NamedTuple):
    """How a pack was found; `kind` is None if it is sound."""

    name: str
    kind: DamageKind | None
    what: str
    place: PackPlace


class PackChecker:
    """Checks the packs of one backup; holds nothing that changes.

    Raises:
        KeyUnavailable: the key of the packs can't be had.
    """

    def __init__(self, repository: Repository, manifest: Manifest) -> None:
        head = manifest.head
        self.manifest = manifest
        self._repository = repository
        self._dek = repository.keyring.get("backup", bytes.fromhex(head.dek_id))
        self._digest_key = digest_key(self._dek, repository.lineage)
        counts = manifest.packs["frames"]
        self._first = np.concatenate(([0], np.cumsum(counts, dtype=np.int64)))
        self._by_frame = np.argsort(manifest.runs["frame"], kind="stable")
        self._sorted = manifest.runs["frame"][self._by_frame]

    def check(self, pack: int, look: Look) -> Verdict:
        """Read a pack whole and check all of it.

        Args:
            look: given each run's number and plaintext, once that has been found right.

        Raises:
            StorageError: the store failed, so that nothing is known of the pack.
        """
        name = pack_name(self._repository, self.manifest, pack)
        size = int(self.manifest.packs["size"][pack])
        found = self._fetch(name, size)
        if isinstance(found, tuple):
            return self._lost(pack, *found)
        data = memoryview(found)
        whole = hashlib.sha256(data).digest()
        right = whole == self.manifest.packs["sha256"][pack].tobytes()
        try:
            opener = Opener(
                self._dek_for, self._repository.lineage, name, "backup", data
            )
        except Corrupt as error:
            return self._lost(pack, DamageKind.CONTENT, _rest(name, error))
        bad = self._damaged_frames(pack, opener, data, look)
        if right and not bad:
            return Verdict(name, None, "", self._place(pack, ()))
        return self._told(pack, bad, right=right)

    def runs_of(self, frame: int) -> list[int]:
        """Return the numbers of the runs that lie in a frame."""
        low = np.searchsorted(self._sorted, frame, side="left")
        high = np.searchsorted(self._sorted, frame, side="right")
        found: list[int] = self._by_frame[low:high].tolist()
        return found

    def frames_of(self, pack: int) -> range:
        """Return a pack's frames, counted through all packs."""
        return range(int(self._first[pack]), int(self._first[pack + 1]))

    def _fetch(self, name: str, size: int) -> bytes | tuple[DamageKind, str]:
        storage = self._repository.storage
        try:
            return storage.get(name, 0, size)
        except ObjectNotFound:
            return DamageKind.MISSING, "is missing, though its backup was committed"
        except StorageError:
            # A range that reaches past the end, unless the store failed otherwise.
            there = storage.size(name)
            if there == size:
                raise
            return DamageKind.SIZE, f"has {there} bytes, not {size}"

    def _dek_for(self, key_id: bytes) -> Dek:
        """Return the one key that the manifest says; a header can't ask for others."""
        if key_id != self._dek.key_id:
            raise Corrupt("its header names another key than its manifest")
        return self._dek

    def _damaged_frames(
        self, pack: int, opener: Opener, data: memoryview, look: Look
    ) -> list[int]:
        bad, at = [], HEADER_BYTES
        for place, number in enumerate(self.frames_of(pack)):
            row = Frame(*self.manifest.frames[number].tolist())
            sealed = data[at : at + row.stored]
            at += row.stored
            try:
                payload = opener.open_frame(place, sealed)
                plain = decompress("", payload, row.plain, row.codec)
            except Corrupt:
                bad.append(number)
                continue
            if not self._runs_hold(number, memoryview(plain), look):
                bad.append(number)
        return bad

    def _runs_hold(self, frame: int, plain: memoryview, look: Look) -> bool:
        runs, holds = self.manifest.runs, True
        for number in self.runs_of(frame):
            start = int(runs["offset"][number])
            data = plain[start : start + int(runs["length"][number])]
            digest = runs["digest"][number].tobytes()
            if content_digest(self._digest_key, data) == digest:
                look(number, data)
            else:
                holds = False
        return holds

    def _told(self, pack: int, bad: list[int], *, right: bool) -> Verdict:
        first = int(self._first[pack])
        name = pack_name(self._repository, self.manifest, pack)
        if right:
            what = (
                f"holds other content than its manifest says in {_frames(bad, first)}"
            )
            return Verdict(name, DamageKind.CONTENT, what, self._place(pack, bad))
        where = f"{_frames(bad, first)} can't be opened" if bad else "in its index"
        what = f"is not what its manifest says: {where}"
        place = self._place(pack, bad)._replace(lost=stretches(self.frames_of(pack)))
        return Verdict(name, DamageKind.CONTENT, what, place)

    def _lost(self, pack: int, kind: DamageKind, what: str) -> Verdict:
        name = pack_name(self._repository, self.manifest, pack)
        return Verdict(name, kind, what, self._place(pack, self.frames_of(pack)))

    def _place(self, pack: int, frames: range | list[int] | tuple[()]) -> PackPlace:
        return pack_place(self.manifest, pack, stretches(frames))


def pack_place(
    manifest: Manifest, pack: int, frames: tuple[tuple[int, int], ...] | None = None
) -> PackPlace:
    """Return a pack's place with its damaged frames; all of them if none are given."""
    if frames is None:
        first = int(manifest.packs["frames"][:pack].sum())
        count = int(manifest.packs["frames"][pack])
        frames = ((first, first + count - 1),) if count else ()
    head = manifest.head
    return PackPlace(head.label, head.attempt, pack, frames, frames)


def pack_name(repository: Repository, manifest: Manifest, pack: int) -> str:
    """Return the name of a backup's pack."""
    head = manifest.head
    return repository.layout.pack(head.label, head.attempt, pack)


def _frames(bad: list[int], first: int) -> str:
    """Name frames by their numbers in the pack."""
    told = ", ".join(
        str(low - first) if low == high else f"{low - first} to {high - first}"
        for low, high in stretches(bad)
    )
    return f"frame {told}" if len(bad) == 1 else f"frames {told}"


def _rest(name: str, error: Corrupt) -> str:
    """Return what an error says behind its object's name."""
    return error.message.removeprefix(f"object {name} ")
