"""WAL files in the repository: archived once, compared when they come again.

On the path of `wal push`: imports no more than that needs.
"""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from drkit.crypto.sealing import HEADER_BYTES, Opener
from drkit.errors import (
    Corrupt,
    KeyLost,
    KeyUnavailable,
    NotFound,
    ObjectExists,
    ObjectNotFound,
    PolicyError,
    TooLong,
    WalRefused,
)
from drkit.model.wal import WalFileKind, WalFileName
from drkit.repository import limits
from drkit.repository.objects import Sealing, seal, unseal_signature, unseal_signed
from drkit.repository.wal_signature import WalSigning, read_signature, sign_wal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from drkit.crypto.keys import Dek
    from drkit.protocols import Buffer, Storage
    from drkit.repository.keyring import Keyring
    from drkit.repository.layout import Layout
    from drkit.repository.wal_signature import WalSignature, WalTrust

T = TypeVar("T")
_PLACE = re.compile(
    r"([0-9A-F]{8})/([0-9A-F]{8})/(\1\2[0-9A-F]{8}(\.partial|\.[0-9A-F]{8}\.backup)?)"
    r"(?:-([1-9][0-9]*))?\Z"
)
_HISTORY = re.compile(r"([0-9A-F]{8}\.history)(?:-([1-9][0-9]*))?\Z")
_KINDS = {
    None: WalFileKind.SEGMENT,
    ".partial": WalFileKind.PARTIAL,
    ".backup": WalFileKind.BACKUP,
}


_UNSIGNED = WalSigning()


class StoredWal(NamedTuple):
    """A WAL file as a listing shows it.

    Attributes:
        size: what it takes in the repository.
        number: which of the file's names it lies at; 0 for its own.
    """

    file: WalFileName
    size: int
    number: int = 0


class WalArchive:
    """The WAL of one cluster under one system identifier.

    Args:
        segment_size: returns the cluster's, in bytes, where that is known: no segment
            is longer.
        signing: by default nothing is signed, and no signature is asked for.
    """

    def __init__(
        self,
        storage: Storage,
        layout: Layout,
        lineage: bytes,
        keyring: Keyring,
        system_identifier: str,
        *,
        segment_size: Callable[[], int | None] = lambda: None,
        signing: WalSigning = _UNSIGNED,
    ) -> None:
        self._storage = storage
        self._layout = layout
        self._lineage = lineage
        self._keyring = keyring
        self._system = system_identifier
        self._segment_size = segment_size
        self._signing = signing

    def push(
        self, file: WalFileName, content: Buffer, now: datetime, level: int = 3
    ) -> bool:
        """Archive a WAL file; return False if the same content was there already.

        Where what lies at its name can't be opened, it takes the next name.

        Raises:
            WalRefused: another content is archived under that name.
            PolicyError: it must be signed, and there is no key for that.
        """
        signer, signature = self._signing.signer, None
        if signer is None and self._signing.trust().trusted:
            raise PolicyError(
                f"{file.name} would be archived unsigned, and readers would refuse it: "
                "the policy pins keys.trusted_wal, and has no keys.wal_signing",
                hint="refer to the signing key of WAL there, where drkit archives",
            )
        dek = self._keyring.for_wal_day(now.strftime("%Y%m%d"))
        for number in itertools.count():
            name = self.name(file, number)
            if signer is not None:
                signature = sign_wal(signer(), self._lineage, name, content)
            sealed = seal(Sealing(dek, self._lineage, name), content, level, signature)
            try:
                self._storage.put(name, sealed)
            except ObjectExists:
                if self._holds(file, number, content):
                    return False
            else:
                return True
        raise AssertionError("there is always another name")

    def get(self, file: WalFileName) -> bytes:
        """Return a WAL file's content, from the first of its names that holds it.

        Raises:
            NotFound: the store answered that it is not archived.
            TooLong: it is longer than a file of its kind.
            Corrupt: it is damaged, or nobody who is trusted has signed it.
            KeyUnavailable: its key is not here.
        """
        return self._get(file, self._most(file))

    def _get(self, file: WalFileName, most: int) -> bytes:
        return self._first(file, lambda name: self._open(file, name, most))

    def _first(self, file: WalFileName, read: Callable[[str], T]) -> T:
        """Read from the first of a file's names at which something opens.

        Raises:
            NotFound: there is nothing, or what no writer sealed and none follows.
            Corrupt, KeyUnavailable: what lies at its names can't be opened.
        """
        failure: Corrupt | KeyUnavailable | None = None
        for number in itertools.count():
            try:
                return read(self.name(file, number))
            except ObjectNotFound:
                if number:  # at its own, something may have been deleted
                    break
            except (Corrupt, KeyUnavailable) as error:
                failure = failure or error
        if failure is None or self._is_end(file):
            why = "" if failure is None else f": {failure.message}, and no WAL follows"
            raise NotFound(f"WAL file {file.name} is not archived{why}")
        raise failure

    def _open(self, file: WalFileName, name: str, most: int) -> bytes:
        data = self._storage.get(name, limit=limits.sealed(most))
        find = self._keyring.finder("wal")
        content, frame = unseal_signed(find, self._lineage, name, "wal", data, most)
        signature = self._verified(file, name, frame)
        if signature is not None and not signature.fits(content):
            raise Corrupt(
                f"object {name} does not hold what was signed",
                hint="somebody who has the key of WAL changed it; look for an intact "
                "copy of the repository",
            )
        return content

    def _most(self, file: WalFileName) -> int:
        """Return how many bytes a file of that kind has at most."""
        if file.kind in (WalFileKind.SEGMENT, WalFileKind.PARTIAL):
            return self._segment_size() or limits.WAL_SEGMENT
        return limits.WAL_TEXT

    def signature(self, file: WalFileName) -> WalSignature | None:
        """Return what a file's signature says of it, without fetching the file.

        None if it is not signed, and need not be.

        Raises:
            NotFound: the store answered that it is not archived.
            Corrupt: it is damaged, or nobody who is trusted has signed it.
        """
        find, storage = self._keyring.finder("wal"), self._storage

        def read(name: str) -> WalSignature | None:
            frame = unseal_signature(find, self._lineage, name, "wal", storage)
            return self._verified(file, name, frame)

        return self._first(file, read)

    def trust(self) -> WalTrust:
        """Return whose signatures count, and from where on there must be one."""
        return self._signing.trust()

    def has(self, file: WalFileName) -> bool:
        """Say whether a file of that name is archived, sound or damaged."""
        try:
            return any(not void for void in self._there(file))
        except KeyUnavailable:
            return True  # whatever it is: this host can't look into it

    def is_void(self, file: WalFileName) -> bool:
        """Say whether something lies at a file's name that was never archived.

        Raises:
            KeyUnavailable: the policy's key for WAL is none of this repository's, or
                what it was sealed under is lost: then it may well be WAL.
        """
        there = list(self._there(file))
        return bool(there) and all(there)

    def _is_end(self, file: WalFileName) -> bool:
        """Say whether what lies at a file's name is void, and no WAL follows it.

        Whoever can store objects could end every recovery with an error, otherwise, by
        one at the name of the next segment.
        """
        if not self.is_void(file):
            return False
        history = file.kind is WalFileKind.HISTORY
        return all(
            self.is_void(stored.file)
            for stored in self.list()
            if stored.file.timeline == file.timeline
            and (history or stored.file.name > file.name)
        )

    def _there(self, file: WalFileName) -> Iterator[bool]:
        """Yield for each object at a file's names whether no writer sealed it so."""
        for number in itertools.count():
            name = self.name(file, number)
            try:
                yield self._storage.size(name) < HEADER_BYTES or self._foreign(name)
            except ObjectNotFound:
                if number:
                    return

    def _foreign(self, name: str) -> bool:
        def find(key_id: bytes) -> Dek:
            found = self._keyring.find("wal", key_id)
            if found is not None:
                return found
            if self._keyring.speaks_for(key_id):
                raise KeyLost(
                    f"data key {key_id.hex()} (wal) is lost or damaged",
                    hint="restore the key's object from a copy of the repository; "
                    "`drkit verify` says which one",
                )
            raise Corrupt("no writer of this repository made that key")

        head = self._storage.get(name, 0, HEADER_BYTES)
        try:
            Opener(find, self._lineage, name, "wal", head)
        except Corrupt:
            return True
        return False

    def name(self, file: WalFileName, number: int = 0) -> str:
        """Return the name of a WAL file's object."""
        return self._layout.wal_file(self._system, file, number)

    def list(self) -> Iterator[StoredWal]:
        """Yield the archived files but histories, by timeline and position."""
        return self._listed(self._layout.wal(self._system))

    def stretch(self, timeline: int, start: int, end: int) -> Iterator[StoredWal]:
        """Yield a timeline's archived files from around `start` to around `end`.

        Lists no more of the archive than the groups of 4 GiB that these LSNs lie in.
        """
        for high in range(start >> 32, (end >> 32) + 1):
            yield from self._listed(
                self._layout.wal_group(self._system, timeline, high)
            )

    def _listed(self, prefix: str) -> Iterator[StoredWal]:
        behind = len(self._layout.wal(self._system))
        for info in self._storage.list(prefix):
            # Anybody who can write can put a name there that no server asks for.
            match = _PLACE.match(info.name, behind)
            if match is not None:
                timeline, _, name, suffix, number = match.groups()
                kind = _KINDS[suffix and suffix[suffix.rindex(".") :]]
                file = WalFileName(name, kind, int(timeline, 16))
                yield StoredWal(file, info.size, int(number or 0))

    def histories(self) -> Iterator[StoredWal]:
        """Yield the archived timeline histories, by timeline."""
        for info in self._storage.list(self._layout.wal_history(self._system)):
            match = _HISTORY.match(info.name.rpartition("/")[2])
            if match is None:
                continue
            file, number = WalFileName.parse(match[1]), int(match[2] or 0)
            if info.name == self.name(file, number):
                yield StoredWal(file, info.size, number)

    def _verified(
        self, file: WalFileName, name: str, frame: bytes | None
    ) -> WalSignature | None:
        """Return what a file's signature says, if its signer is trusted.

        Raises:
            Corrupt: it is not, or there is none and must be.
        """
        trust = self._signing.trust()
        if frame is not None:
            return read_signature(self._lineage, name, frame, trust.trusted)
        if not trust.demands(file):
            return None
        raise Corrupt(
            f"WAL file {file.name} is not signed, and must be: object {name}",
            hint="either somebody without the signing key of WAL put it there, or a "
            "host archives without `keys.wal_signing` in its policy; "
            "runbooks/restore.md says what to do",
        )

    def _holds(self, file: WalFileName, number: int, content: Buffer) -> bool:
        """Say whether this content lies at a file's name; False if nothing that opens.

        Raises:
            WalRefused: another content does.
        """
        name = self.name(file, number)
        try:
            same = self._open(file, name, len(content)) == content
        except TooLong:
            if self._foreign(name):
                return False
            same = False
        except (Corrupt, KeyUnavailable, ObjectNotFound):
            return False
        if not same:
            raise WalRefused(
                f"another content is archived as {file.name} at {self._storage.url}",
                hint="two clusters archive under one policy, or this one was restored "
                "without a new timeline; give each its own policy",
            )
        return True
