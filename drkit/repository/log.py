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
from drkit.model.log import Entry, LogState, Open
from drkit.model.log_json import UnknownEntry, entry_from_json, entry_to_json
from drkit.repository.log_blocks import ENTRIES, EntryCopy, LogBlocks
from drkit.repository.objects import Sealing, seal, unseal

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from datetime import datetime

    from drkit.crypto.keys import Dek
    from drkit.crypto.signing import Signer
    from drkit.protocols import Clock, Storage
    from drkit.repository.keyring import Keyring
    from drkit.repository.layout import Layout

_NOTHING = "0" * 64
_MAX_ENTRY = 1 << 20
_PAYLOAD = SIGNATURE_BYTES + PUBLIC_BYTES  # where it begins


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
        identity: whose signatures count, here and in the chain of evidence.
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
        self.identity = identity
        self._clock = clock
        self._blocks = LogBlocks(storage, layout, lineage, keyring)
        # Of entries that were read one by one, by the first of their block.
        self._copies: dict[int, list[EntryCopy]] = {}
        self._dek: Dek | None = None
        self._listed: str | None = None  # the newest entry that was listed at first
        self.entries: list[LoggedEntry] = []
        self.state = LogState()
        self.key_ids: set[bytes] = set()

    def read(self) -> LogState:
        """Read every entry that has come since the last call; return the state.

        Raises:
            Corrupt: an entry is damaged, from an untrusted signer, out of the chain,
                or not allowed where it stands.
        """
        if self._listed is None:
            names = [info.name for info in self._storage.list(self._layout.log())]
            self._listed = max(names, default="")
        while self._read_block(self._listed) or self._read_entry():
            pass
        self._refuse_hole(self._listed)
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
            self._store_blocks()
            return self.entries[sequence]

    def dek(self) -> Dek:
        """Return the DEK of the newest entry, for what is kept beside the log.

        Raises:
            ValueError: the log was never read, or is empty.
        """
        if self._dek is None or not self.entries:
            raise ValueError("a log without entries has no key yet")
        return self._dek

    def _read_entry(self) -> bool:
        """Read the next entry; say whether there was one."""
        sequence = len(self.entries)
        name = self._layout.log_entry(sequence)
        try:
            data = self._storage.get(name)
        except ObjectNotFound:
            return False
        copy = self._open(name, data)
        self._verify(name, copy.plain)
        self._apply(name, _decode(self._layout, copy.plain, self.entries))
        self._copies.setdefault(sequence - sequence % ENTRIES, []).append(copy)
        self.key_ids.add(copy.key_id)
        return True

    def _read_block(self, listed: str) -> bool:
        """Read the next entries by their block; say whether there was a sound one."""
        first = len(self.entries)
        last = self._layout.log_entry(first + ENTRIES - 1)
        if first % ENTRIES or last > listed:
            return False
        copies = self._blocks.get(first)
        chain = None if copies is None else self._chained(copies, last)
        if copies is None or chain is None:
            return False
        for logged in chain:
            self._apply(self._layout.log_entry(logged.sequence), logged)
        self.key_ids |= {copy.key_id for copy in copies}
        return True

    def _chained(
        self, copies: Sequence[EntryCopy], last: str
    ) -> list[LoggedEntry] | None:
        """Return a block's entries if they lead from the head to the entry `last`.

        Where they don't, reading the entries one by one tells what is wrong.
        """
        try:
            end = self._open(last, self._storage.get(last))
            self._verify(last, end.plain)
            if end.plain != copies[-1].plain:
                return None
            chain = self.entries[-1:]
            known = len(chain)
            for copy in copies:
                if _signer(copy.plain) not in self.identity.trusted:
                    return None
                chain.append(_decode(self._layout, copy.plain, chain))
        except (Corrupt, ObjectNotFound):
            return None
        return chain[known:]

    def _store_blocks(self) -> None:
        """Store the blocks that were missing, of entries that were read one by one."""
        whole = [one for one, copies in self._copies.items() if len(copies) == ENTRIES]
        for first in whole:
            self._blocks.put(first, self._copies.pop(first), self.dek())

    def _refuse_hole(self, listed: str) -> None:
        """Refuse a log in which an entry is missing though later ones were listed."""
        head = self._layout.log_entry(len(self.entries))
        if listed > head:
            raise Corrupt(
                f"log entry {head} is missing, though later ones are there",
                hint="somebody deleted it; restore it from a copy of the repository",
            )

    def _encode(self, name: str, sequence: int, entry: Entry) -> memoryview:
        payload = json.dumps(
            {
                "drkit": "log",
                "format": 1,
                "sequence": sequence,
                "previous": self.entries[-1].digest if self.entries else _NOTHING,
                "time": self._clock.now().isoformat(),
                "host": self.identity.host,
            }
            | entry_to_json(entry)
        ).encode()
        signer = self.identity.signer()
        signature = signer.sign(self._signed(name, payload))
        if self._dek is None:
            self._dek = self._keyring.create("catalog")
        sealing = Sealing(self._dek, self._lineage, name)
        return seal(sealing, signature + signer.public + payload)

    def _open(self, name: str, data: bytes) -> EntryCopy:
        """Unseal an entry, and keep its DEK: the next entry is sealed under it."""
        used: list[Dek] = []

        def find(key_id: bytes) -> Dek:
            used[:] = [self._keyring.get("catalog", key_id)]
            return used[0]

        plain = unseal(find, self._lineage, name, "catalog", data, _MAX_ENTRY)
        self._dek = used[0]
        if len(plain) <= SIGNATURE_BYTES + PUBLIC_BYTES:
            raise Corrupt(f"log entry {name} is too short")
        return EntryCopy(self._dek.key_id, plain)

    def _verify(self, name: str, plain: bytes) -> None:
        public, payload = _signer(plain), plain[_PAYLOAD:]
        signed, trusted = self._signed(name, payload), self.identity.trusted
        if not verify(public, plain[:SIGNATURE_BYTES], signed, trusted):
            raise Corrupt(
                f"log entry {name} is not signed by a key that the policy trusts",
                hint=f"its signer is ed25519:{public.hex()}; if that is yours, add it "
                "to `keys.trusted` in the policy",
            )

    def _apply(self, name: str, logged: LoggedEntry) -> None:
        try:
            self.state.apply(logged.entry)
        except ValueError as error:
            raise Corrupt(f"log entry {name} may not stand there: {error}") from None
        self.entries.append(logged)

    def _signed(self, name: str, payload: bytes) -> bytes:
        return length_prefixed("drkit/1/log", self._lineage, name) + payload


def _decode(layout: Layout, plain: bytes, before: Sequence[LoggedEntry]) -> LoggedEntry:
    """Read an entry that follows others, of which the last must be there."""
    sequence = before[-1].sequence + 1 if before else 0
    name = layout.log_entry(sequence)
    try:
        found = members.parse_object(plain[_PAYLOAD:])
        ours = (found["drkit"], found["format"], found["sequence"])
        logged = LoggedEntry(
            sequence,
            members.moment(found, "time"),
            members.text(found, "host"),
            entry_from_json(found),
            hashlib.sha256(plain).hexdigest(),
        )
        previous = found["previous"]
    except UnknownEntry as error:
        raise Corrupt(
            f"log entry {name} can't be read: {error}",
            hint="a later drkit wrote it; use that version here as well",
        ) from None
    except (ValueError, KeyError, TypeError):
        raise Corrupt(f"log entry {name} is malformed") from None
    if ours != ("log", 1, sequence):
        raise Corrupt(f"log entry {name} is another entry or of another format")
    if previous != (before[-1].digest if before else _NOTHING):
        raise Corrupt(
            f"log entry {name} does not follow the entry before it",
            hint="the repository was rolled back, forked, or put together from two",
        )
    if isinstance(logged.entry, Open):
        _check_owner(name, logged.entry, layout.cluster)
    return logged


def _signer(plain: bytes) -> bytes:
    """Return the public key that an entry names as its signer's."""
    return plain[SIGNATURE_BYTES:_PAYLOAD]


def _check_owner(name: str, entry: Open, cluster: str) -> None:
    if entry.cluster != cluster:
        raise Corrupt(f"log entry {name} belongs to cluster {entry.cluster}")
