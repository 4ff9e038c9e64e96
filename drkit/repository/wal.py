"""WAL files in the repository: archived once, compared when they come again.

On the path of `wal push`: imports no more than that needs.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from drkit.errors import (
    Corrupt,
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

    from drkit.protocols import Buffer, Storage
    from drkit.repository.keyring import Keyring
    from drkit.repository.layout import Layout
    from drkit.repository.wal_signature import WalSignature, WalTrust


_PLACE = re.compile(
    r"([0-9A-F]{8})/([0-9A-F]{8})/(\1\2[0-9A-F]{8}(\.partial|\.[0-9A-F]{8}\.backup)?)\Z"
)
_KINDS = {
    None: WalFileKind.SEGMENT,
    ".partial": WalFileKind.PARTIAL,
    ".backup": WalFileKind.BACKUP,
}


_UNSIGNED = WalSigning()


class StoredWal(NamedTuple):
    """A WAL file as a listing shows it; `size` is what it takes in the repository."""

    file: WalFileName
    size: int


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
        name = self._layout.wal_file(self._system, file)
        dek = self._keyring.for_wal_day(now.strftime("%Y%m%d"))
        if signer is not None:
            signature = sign_wal(signer(), self._lineage, name, content)
        sealed = seal(Sealing(dek, self._lineage, name), content, level, signature)
        try:
            self._storage.put(name, sealed)
        except ObjectExists:
            self._compare(file, content)
            return False
        return True

    def get(self, file: WalFileName) -> bytes:
        """Return a WAL file's content.

        Raises:
            NotFound: the store answered that it is not archived.
            TooLong: it is longer than a file of its kind.
            Corrupt: it is damaged, or nobody who is trusted has signed it.
        """
        return self._get(file, self._most(file))

    def _get(self, file: WalFileName, most: int) -> bytes:
        name = self._layout.wal_file(self._system, file)
        try:
            data = self._storage.get(name, limit=limits.sealed(most))
        except ObjectNotFound:
            raise _not_archived(file) from None
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
        name = self._layout.wal_file(self._system, file)
        find = self._keyring.finder("wal")
        try:
            frame = unseal_signature(find, self._lineage, name, "wal", self._storage)
        except ObjectNotFound:
            raise _not_archived(file) from None
        return self._verified(file, name, frame)

    def trust(self) -> WalTrust:
        """Return whose signatures count, and from where on there must be one."""
        return self._signing.trust()

    def has(self, file: WalFileName) -> bool:
        """Say whether a file of that name is archived."""
        try:
            self._storage.size(self._layout.wal_file(self._system, file))
        except ObjectNotFound:
            return False
        return True

    def name(self, file: WalFileName) -> str:
        """Return the name of a WAL file's object."""
        return self._layout.wal_file(self._system, file)

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
                timeline, _, name, suffix = match.groups()
                kind = _KINDS[suffix and suffix[suffix.rindex(".") :]]
                file = WalFileName(name, kind, int(timeline, 16))
                yield StoredWal(file, info.size)

    def histories(self) -> Iterator[StoredWal]:
        """Yield the archived timeline histories, by timeline."""
        for info in self._storage.list(self._layout.wal_history(self._system)):
            try:
                file = WalFileName.parse(info.name.rpartition("/")[2])
            except ValueError:
                continue
            if info.name == self._layout.wal_file(self._system, file):
                yield StoredWal(file, info.size)

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

    def _compare(self, file: WalFileName, content: Buffer) -> None:
        try:
            same = self._get(file, len(content)) == content
        except TooLong:
            same = False
        if not same:
            raise WalRefused(
                f"another content is archived as {file.name} at {self._storage.url}",
                hint="two clusters archive under one policy, or this one was restored "
                "without a new timeline; give each its own policy",
            )


def _not_archived(file: WalFileName) -> NotFound:
    return NotFound(f"WAL file {file.name} is not archived")
