"""The objects of a log's entries: sealed, signed and read, each by itself.

An object that was never sealed for its name under the log's key is **void**: it is no
entry for anybody, and nobody without that key can make anything else. How entries go on
behind it is in docs/repository-format.md, "Void names".
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from drkit.crypto.derive import length_prefixed
from drkit.crypto.sealing import HEADER_BYTES
from drkit.crypto.signing import (
    PUBLIC_BYTES,
    SIGNATURE_BYTES,
    foreign_signer,
    format_public,
    verify,
)
from drkit.errors import Corrupt, ObjectNotFound, TooLong
from drkit.model import members
from drkit.model.log import Entry, Open
from drkit.model.log_json import UnknownEntry, entry_from_json, entry_to_json
from drkit.repository import limits
from drkit.repository.objects import Sealing, seal, unseal, why_foreign

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from datetime import datetime

    from drkit.crypto.keys import Dek
    from drkit.crypto.signing import Signer
    from drkit.protocols import Storage
    from drkit.repository.keyring import Keyring
    from drkit.repository.layout import Layout

NOTHING = "0" * 64
_PAYLOAD = SIGNATURE_BYTES + PUBLIC_BYTES  # where it begins


@dataclass(frozen=True, slots=True)
class LoggedEntry:
    """An entry with what every entry carries.

    Attributes:
        digest: what the next one chains.
        previous: the digest of the entry before it.
        void: how many names between that entry and this one hold none.
    """

    sequence: int
    time: datetime
    host: str
    entry: Entry
    digest: str
    previous: str
    void: int = 0

    def follows(self, before: LoggedEntry | None) -> bool:
        """Say whether this is the entry behind `before`; None: the first."""
        if before is None:
            return (self.previous, self.sequence, self.void) == (NOTHING, 0, 0)
        between = self.sequence - before.sequence - 1
        return (self.previous, self.void) == (before.digest, between)


@dataclass(frozen=True, slots=True)
class LogIdentity:
    """Who writes log entries, and whose a reader believes.

    Attributes:
        signer: called at first use; readers need no private key.
        trusted: public keys that the policy pins.
    """

    host: str
    signer: Callable[[], Signer]
    trusted: Collection[bytes]


class EntryCopy(NamedTuple):
    """The plaintext of a log entry, and which DEK the entry is sealed under."""

    key_id: bytes
    plain: bytes


class Void(NamedTuple):
    """An object at a log name that is no entry, and never was one.

    Attributes:
        digest: SHA-256 of what takes the place of its header.
        why: what tells that it is none; a sentence.
    """

    sequence: int
    digest: bytes
    why: str


class LogEntries:
    """The objects of one cluster's log.

    Attributes:
        dek: the log's key; None until its first entry is known.
    """

    def __init__(
        self,
        storage: Storage,
        layout: Layout,
        lineage: bytes,
        keyring: Keyring,
        identity: LogIdentity,
    ) -> None:
        self._storage = storage
        self._layout = layout
        self._lineage = lineage
        self._keyring = keyring
        self._identity = identity
        self.dek: Dek | None = None

    def look(self, sequence: int) -> EntryCopy | Void | None:
        """Return the entry of that number, not verified yet; None if nothing is there.

        Raises:
            Corrupt: somebody with the log's key sealed it, and it is damaged.
            KeyUnavailable: it may be the first entry, and its key is not here.
        """
        name = self._layout.log_entry(sequence)
        try:
            data = self._storage.get(name, limit=limits.sealed(limits.LOG_ENTRY))
        except ObjectNotFound:
            return None
        except TooLong:  # nothing, or damaged, whatever there is behind the header
            data = self._storage.get(name, 0, HEADER_BYTES)
        if self.dek is not None:
            why = why_foreign(Sealing(self.dek, self._lineage, name), data)
            if why is not None:
                digest = hashlib.sha256(data[:HEADER_BYTES]).digest()
                return Void(sequence, digest, why)
        find = self._keyring.finder("catalog")
        plain = unseal(find, self._lineage, name, "catalog", data, limits.LOG_ENTRY)
        if len(plain) <= _PAYLOAD:
            raise Corrupt(f"log entry {name} is too short")
        return EntryCopy(bytes(data[16:32]), plain)

    def adopt(self, key_id: bytes) -> None:
        """Take the key of the first entry for the log's."""
        if self.dek is None:
            self.dek = self._keyring.get("catalog", key_id)

    def trusts(self, copy: EntryCopy) -> bool:
        """Say whether an entry names a signer that the policy pins."""
        return _signer(copy.plain) in self._identity.trusted

    def verify(self, sequence: int, plain: bytes) -> None:
        """Check an entry's signature.

        Raises:
            Corrupt: no trusted key signed it for that place.
        """
        name = self._layout.log_entry(sequence)
        public, payload = _signer(plain), plain[_PAYLOAD:]
        signed, trusted = self._signed(name, payload), self._identity.trusted
        if not verify(public, plain[:SIGNATURE_BYTES], signed, trusted):
            raise Corrupt(
                f"log entry {name} is not signed by a key that the policy trusts",
                hint=foreign_signer(format_public(public), "keys.trusted"),
            )

    def decode(self, plain: bytes, sequence: int | None = None) -> LoggedEntry:
        """Read an entry.

        Args:
            plain: with its signature, which this does not check.
            sequence: what it must be; None: what it says.

        Raises:
            Corrupt: it is malformed, another one, or of a later version.
        """
        try:
            found = members.parse_object(plain[_PAYLOAD:])
            if sequence is None:
                sequence = members.count(found, "sequence")
            name = self._layout.log_entry(sequence)
            ours = (found["drkit"], found["format"], found["sequence"])
            logged = LoggedEntry(
                sequence,
                members.moment(found, "time"),
                members.text(found, "host"),
                entry_from_json(found),
                hashlib.sha256(plain).hexdigest(),
                str(found["previous"]),
                _void(found),
            )
        except UnknownEntry as error:
            raise Corrupt(
                f"log entry {name} can't be read: {error}",
                hint="a later drkit wrote it; use that version here as well",
            ) from None
        except (ValueError, KeyError, TypeError):
            where = "" if sequence is None else self._layout.log_entry(sequence)
            raise Corrupt(f"log entry {where} is malformed") from None
        if ours != ("log", 1, sequence):
            raise Corrupt(f"log entry {name} is another entry or of another format")
        entry, cluster = logged.entry, self._layout.cluster
        if isinstance(entry, Open) and entry.cluster != cluster:
            raise Corrupt(f"log entry {name} belongs to cluster {entry.cluster}")
        return logged

    def seal(
        self,
        sequence: int,
        before: LoggedEntry | None,
        void: Sequence[Void],
        entry: Entry,
        now: datetime,
    ) -> memoryview:
        """Return a new entry's object, signed and sealed.

        Args:
            sequence: its number.
            before: the entry that it follows; None: it is the first.
            void: the names between them.
            entry: what it says.
            now: the time that it bears.
        """
        name = self._layout.log_entry(sequence)
        common: members.Members = {
            "drkit": "log",
            "format": 1,
            "sequence": sequence,
            "previous": NOTHING if before is None else before.digest,
            "time": now.isoformat(),
            "host": self._identity.host,
        }
        if void:
            digest = hashlib.sha256(b"".join(one.digest for one in void)).hexdigest()
            common["void"] = {"count": len(void), "sha256": digest}
        payload = json.dumps(common | entry_to_json(entry)).encode()
        signer = self._identity.signer()
        signature = signer.sign(self._signed(name, payload))
        dek = self.dek or self._keyring.create("catalog")
        sealing = Sealing(dek, self._lineage, name)
        return seal(sealing, signature + signer.public + payload)

    def _signed(self, name: str, payload: bytes) -> bytes:
        return length_prefixed("drkit/1/log", self._lineage, name) + payload


def _signer(plain: bytes) -> bytes:
    """Return the public key that an entry names as its signer's."""
    return plain[SIGNATURE_BYTES:_PAYLOAD]


def _void(found: members.Members) -> int:
    """Return how many names an entry calls void; it says so only if there are any."""
    if "void" not in found:
        return 0
    void = members.nested(found, "void")
    members.sha256(void, "sha256")
    return members.count(void, "count")
