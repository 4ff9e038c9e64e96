"""The log of a cluster: signed, chained entries; the commit point and the lock.

The head is found by reading on until a name is not there, never by a listing.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from drkit.crypto.derive import length_prefixed
from drkit.crypto.signing import PUBLIC_BYTES, SIGNATURE_BYTES, verify
from drkit.errors import AttemptFenced, Corrupt, ObjectExists, ObjectNotFound
from drkit.model import members
from drkit.model.log import Entry, LogState, Open, entry_from_json, entry_to_json
from drkit.repository.objects import Sealing, seal, unseal

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from datetime import datetime

    from drkit.crypto.keys import Dek
    from drkit.crypto.signing import Signer
    from drkit.protocols import Clock, Storage
    from drkit.repository.keyring import Keyring
    from drkit.repository.layout import Layout

_NOTHING = "0" * 64
_MAX_ENTRY = 1 << 20


@dataclass(frozen=True, slots=True)
class LoggedEntry:
    """An entry with what every entry carries; `digest` is what the next one chains."""

    sequence: int
    time: datetime
    host: str
    entry: Entry
    digest: str


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


class Log:
    """One cluster's log; `read` brings it to the head, `append` adds an entry.

    Attributes:
        key_ids: of the DEKs that the entries read so far are sealed under.
    """

    def __init__(
        self,
        storage: Storage,
        layout: Layout,
        lineage: bytes,
        keyring: Keyring,
        identity: LogIdentity,
        clock: Clock,
    ) -> None:
        self._storage = storage
        self._layout = layout
        self._lineage = lineage
        self._keyring = keyring
        self._identity = identity
        self._clock = clock
        self._dek: Dek | None = None
        self._complete = False  # whether the listing was held against what was read
        self.entries: list[LoggedEntry] = []
        self.state = LogState()
        self.key_ids: set[bytes] = set()

    def read(self) -> LogState:
        """Read every entry that has come since the last call; return the state.

        Raises:
            Corrupt: an entry is damaged, from an untrusted signer, out of the chain,
                or not allowed where it stands.
        """
        while (data := self._next()) is not None:
            self._take(self._layout.log_entry(len(self.entries)), data)
        if not self._complete:
            self._refuse_hole()
        return self.state

    def append(self, decide: Callable[[LogState], Entry]) -> LoggedEntry:
        """Add the entry that `decide` chooses, seeing the state that it will follow.

        `decide` is called again whenever another writer's entry came first; what it
        raises goes through, and nothing is written.

        Raises:
            AttemptFenced: the state machine does not allow the entry.
        """
        while True:
            entry = decide(self.read())
            refusal = self.state.refusal(entry)
            if refusal is not None:
                raise AttemptFenced(
                    f"the log refuses `{entry.TYPE}`: {refusal}",
                    hint="another host acted on this work; run the command again",
                )
            sequence = len(self.entries)
            name = self._layout.log_entry(sequence)
            try:
                self._storage.put(name, self._encode(name, sequence, entry))
            except ObjectExists:
                continue
            self.read()
            return self.entries[sequence]

    def _next(self) -> bytes | None:
        try:
            return self._storage.get(self._layout.log_entry(len(self.entries)))
        except ObjectNotFound:
            return None

    def _refuse_hole(self) -> None:
        """Refuse a log in which an entry is missing though later ones are listed.

        What is listed is there. An entry past the head may have come since the head was
        read; then the one before it has come as well.
        """
        head = self._layout.log_entry(len(self.entries))
        listed = [info.name for info in self._storage.list(self._layout.log())]
        if any(name > head for name in listed) and self._next() is None:
            raise Corrupt(
                f"log entry {head} is missing, though later ones are there",
                hint="somebody deleted it; restore it from a copy of the repository",
            )
        self._complete = True

    def _encode(self, name: str, sequence: int, entry: Entry) -> memoryview:
        payload = json.dumps(
            {
                "drkit": "log",
                "format": 1,
                "sequence": sequence,
                "previous": self._head_digest(),
                "time": self._clock.now().isoformat(),
                "host": self._identity.host,
            }
            | entry_to_json(entry)
        ).encode()
        signer = self._identity.signer()
        signature = signer.sign(self._signed(name, payload))
        if self._dek is None:
            self._dek = self._keyring.create("catalog")
        sealing = Sealing(self._dek, self._lineage, name)
        return seal(sealing, signature + signer.public + payload)

    def _take(self, name: str, data: bytes) -> None:
        find = self._keyring.finder("catalog")
        dek_for = self._remember(find)
        plain = unseal(dek_for, self._lineage, name, "catalog", data, _MAX_ENTRY)
        if len(plain) <= SIGNATURE_BYTES + PUBLIC_BYTES:
            raise Corrupt(f"log entry {name} is too short")
        signature, rest = plain[:SIGNATURE_BYTES], plain[SIGNATURE_BYTES:]
        public, payload = rest[:PUBLIC_BYTES], rest[PUBLIC_BYTES:]
        trusted = self._identity.trusted
        if not verify(public, signature, self._signed(name, payload), trusted):
            raise Corrupt(
                f"log entry {name} is not signed by a key that the policy trusts",
                hint=f"its signer is ed25519:{public.hex()}; if that is yours, add it "
                "to `keys.trusted` in the policy",
            )
        logged = self._decode(name, payload, hashlib.sha256(plain).hexdigest())
        try:
            self.state.apply(logged.entry)
        except ValueError as error:
            raise Corrupt(f"log entry {name} may not stand there: {error}") from None
        self.entries.append(logged)

    def _decode(self, name: str, payload: bytes, digest: str) -> LoggedEntry:
        try:
            found = members.parse_object(payload)
            ours = (found["drkit"], found["format"], found["sequence"])
            logged = LoggedEntry(
                len(self.entries),
                members.moment(found, "time"),
                members.text(found, "host"),
                entry_from_json(found),
                digest,
            )
            previous = found["previous"]
        except (ValueError, KeyError, TypeError):
            raise Corrupt(f"log entry {name} is malformed") from None
        if ours != ("log", 1, len(self.entries)):
            raise Corrupt(f"log entry {name} is another entry or of another format")
        if previous != self._head_digest():
            raise Corrupt(
                f"log entry {name} does not follow the entry before it",
                hint="the repository was rolled back, forked, or put together from two",
            )
        if isinstance(logged.entry, Open):
            _check_owner(name, logged.entry, self._layout.cluster)
        return logged

    def _remember(self, find: Callable[[bytes], Dek]) -> Callable[[bytes], Dek]:
        """Keep the newest entry's DEK: the next entry is sealed under it."""

        def found(key_id: bytes) -> Dek:
            self.key_ids.add(key_id)
            self._dek = find(key_id)
            return self._dek

        return found

    def _head_digest(self) -> str:
        return self.entries[-1].digest if self.entries else _NOTHING

    def _signed(self, name: str, payload: bytes) -> bytes:
        return length_prefixed("drkit/1/log", self._lineage, name) + payload


def _check_owner(name: str, entry: Open, cluster: str) -> None:
    if entry.cluster != cluster:
        raise Corrupt(f"log entry {name} belongs to cluster {entry.cluster}")
