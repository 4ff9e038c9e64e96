"""The log of a cluster: signed, chained entries; the commit point and the lock.

The head is found by reading on until a name is not there. A listing only ever shows
more: what it lacks may be there. What lies at a name and is no entry is passed over.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from drkit.errors import AttemptFenced, Corrupt, KeyUnavailable, ObjectExists
from drkit.model.log import LogState
from drkit.repository.heads import Forgetful, HeadGuard
from drkit.repository.log_blocks import ENTRIES, LogBlocks
from drkit.repository.log_entries import LogEntries, Void

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from drkit.crypto.keys import Dek
    from drkit.model.log import Entry
    from drkit.protocols import Clock, HeadMemory, Storage
    from drkit.repository.keyring import Keyring
    from drkit.repository.layout import Layout
    from drkit.repository.log_entries import EntryCopy, LoggedEntry, LogIdentity

_NUMBER = re.compile(r"[0-9]{10}\Z")
_FROM_COPY = "restore it from a copy of the repository"


class Log:
    """One cluster's log; `read` brings it to the head, `append` adds an entry.

    Attributes:
        identity: whose signatures count, here and in the chain of evidence.
        key_ids: of the DEKs that the entries read so far are sealed under.
        void: what lies at names behind the newest entry and is no entry.
        strays: names among the log's own that no entry can have.
        broken: why nothing behind the last entry is believed, where one can't be.
        guard: knows whether the head that was read is the last one there was.
    """

    def __init__(
        self,
        storage: Storage,
        layout: Layout,
        lineage: bytes,
        keyring: Keyring,
        identity: LogIdentity,
        clock: Clock,
        memory: HeadMemory | None = None,
    ) -> None:
        self._storage = storage
        self._layout = layout
        self.guard = HeadGuard(storage, layout, lineage, keyring, memory or Forgetful())
        self.identity = identity
        self._clock = clock
        self._objects = LogEntries(storage, layout, lineage, keyring, identity)
        self._blocks = LogBlocks(storage, layout, lineage, keyring)
        # Of entries that were read one by one, by the first of their block.
        self._copies: dict[int, list[EntryCopy]] = {}
        self._listed: list[int] | None = None  # at first, ascending
        self._passed: tuple[Void, ...] = ()  # between the head and the first free name
        self._until: int | None = None
        self.entries: list[LoggedEntry] = []
        self.state = LogState()
        self.key_ids: set[bytes] = set()
        self.void: tuple[Void, ...] = ()
        self.strays: tuple[str, ...] = ()
        self.broken: Corrupt | None = None

    @property
    def head(self) -> int:
        """The number of the newest entry that was read; -1 if there is none."""
        return self.entries[-1].sequence if self.entries else -1

    @property
    def behind(self) -> range:
        """The names behind the head: those that are void, and the first free one."""
        return range(self.head + 1, self.head + 2 + len(self._passed))

    def read(self) -> LogState:
        """Read every entry that has come since the last call; return the state.

        Raises:
            Corrupt: an entry is damaged or missing, from an untrusted signer, out of
                the chain, or not allowed where it stands.
        """
        fresh = self._listed is None
        if fresh:
            self._list()
        while self._read_block(self.head + 1) or self._read_entry(fresh):
            pass
        return self.state

    def read_proven(self) -> LogState:
        """Read as `read` does; stop before an entry that can't be believed.

        Then `broken` says why, and the log stays as it was in front of that entry.

        Raises:
            Corrupt: not even the first entry can be believed.
        """
        try:
            return self.read()
        except Corrupt as error:
            if not self.entries:
                raise
            self.broken = error
            self.stop_at(self.head)
            return self.state

    def stop_at(self, sequence: int) -> None:
        """Read no further than the entry of that number, and append nothing."""
        self._until = sequence

    def append(self, decide: Callable[[LogState], Entry]) -> LoggedEntry:
        """Add the entry that `decide` chooses, seeing the state that it will follow.

        `decide` is called again whenever another writer's entry came first; what it
        raises goes through, and nothing is written.

        Raises:
            AttemptFenced: the state machine does not allow the entry.
            Corrupt: the log can't be believed, or was read in part.
            RolledBack: the log's newest entries are gone or hidden.
        """
        while True:
            known = self.guard.memory.recall()
            self.read()
            self.guard.confirm(known, self)
            entry = decide(self.state)
            refusal = self.state.refusal(entry)
            if refusal is not None:
                raise AttemptFenced(
                    f"the log refuses `{entry.TYPE}`: {refusal}",
                    hint="another host acted on this work; run the command again",
                )
            sequence = self.head + 1 + len(self._passed)
            if not self._put(sequence, entry):
                continue
            # Read on from the entry before it: had the names between them or behind
            # it been changed meanwhile, so that another writer used them, that shows.
            self.read()
            self._store_blocks()
            self.guard.remember(self)
            for logged in reversed(self.entries):
                if logged.sequence == sequence:
                    return logged
            name = self._layout.log_entry(sequence)
            raise Corrupt(
                f"log entry {name} was written, and is gone",
                hint=f"somebody deleted it; {_FROM_COPY}",
            )

    def dek(self) -> Dek:
        """Return the log's DEK, for what is kept beside it.

        Raises:
            ValueError: the log was never read, or is empty.
        """
        if self._objects.dek is None:
            raise ValueError("a log without entries has no key yet")
        return self._objects.dek

    def _put(self, sequence: int, entry: Entry) -> bool:
        """Write an entry; say whether its name was free."""
        if self._until is not None:
            raise self.broken or Corrupt(
                f"the log was read up to entry {self._until} only, so nothing is "
                "added to it"
            )
        before = self.entries[-1] if self.entries else None
        now = self._clock.now()
        data = self._objects.seal(sequence, before, self._passed, entry, now)
        try:
            self._storage.put(self._layout.log_entry(sequence), data)
        except ObjectExists:
            return False
        return True

    def _list(self) -> None:
        prefix = self._layout.log()
        names = [info.name for info in self._storage.list(prefix)]
        ends = [name.removeprefix(prefix) for name in names]
        self._listed = [int(end) for end in ends if _NUMBER.match(end)]
        self.strays = tuple(prefix + end for end in ends if not _NUMBER.match(end))

    def _read_entry(self, fresh: bool) -> bool:
        """Read the next entry; say whether there was one.

        Args:
            fresh: whether what is listed was listed just now.
        """
        found = self._find(fresh)
        if found is None:
            return False
        sequence, copy = found
        first = sequence - sequence % ENTRIES
        if self.head + 1 < first and self._read_block(first):
            return True
        self._objects.verify(sequence, copy.plain)
        logged = self._objects.decode(copy.plain, sequence)
        self._refuse_break(logged)
        if self.head < first:
            self._copies[first] = []
        if first in self._copies:
            self._copies[first].append(copy)
        self._apply(logged, copy.key_id)
        return True

    def _find(self, fresh: bool) -> tuple[int, EntryCopy] | None:
        """Find the next entry, wherever it lies; None if there is none."""
        passed: list[Void] = []
        free = self.head + 1
        while self._within(free):
            found = self._objects.look(free)
            if found is None:
                break
            if not isinstance(found, Void):
                self._passed = tuple(passed)
                return free, found
            passed.append(found)
            free += 1
        self._passed = self.void = tuple(passed)
        behind = {one for one in self._listed or () if one > free}
        return self._find_behind(free, behind if fresh else behind | {free + 1})

    def _find_behind(
        self, free: int, behind: Collection[int]
    ) -> tuple[int, EntryCopy] | None:
        """Find an entry behind a name that nothing lies at, if one is there.

        It has come meanwhile; or it calls that name void, of which the object has been
        deleted since; or an entry is missing.
        """
        for number in sorted(behind):
            if not self._within(number):
                break
            found = self._look_behind(number)
            if isinstance(found, Void):
                self.void += (found,)
            elif found is not None:
                came = self._objects.look(free) is not None
                return self._find(fresh=False) if came else (number, found)
        return None

    def _look_behind(self, number: int) -> EntryCopy | Void | None:
        try:
            return self._objects.look(number)
        except (Corrupt, KeyUnavailable) as error:
            if self.entries or isinstance(error, KeyUnavailable):
                raise
            return Void(number, b"", error.message)  # in front of the first entry

    def _within(self, number: int) -> bool:
        return self._until is None or number <= self._until

    def _read_block(self, first: int) -> bool:
        """Read the next entries by their block; say whether there was a sound one."""
        last = first + ENTRIES - 1
        listed = self._listed[-1] if self._listed else -1
        if first % ENTRIES or last > listed or not self._within(last):
            return False
        copies = self._blocks.get(first)
        chain = (
            None if copies is None else self._chained(copies, range(first, last + 1))
        )
        if copies is None or chain is None:
            return False
        for logged, copy in zip(chain, copies, strict=True):
            self._apply(logged, copy.key_id)
        return True

    def _chained(
        self, copies: Sequence[EntryCopy], numbers: range
    ) -> list[LoggedEntry] | None:
        """Return a block's entries if they lead from the head to one that is there.

        Where they don't, reading the entries one by one tells what is wrong.
        """
        objects, chain = self._objects, self.entries[-1:]
        known = len(chain)
        try:
            for copy in copies:
                logged = objects.decode(copy.plain)
                follows = logged.follows(chain[-1] if chain else None)
                if not (
                    follows and logged.sequence in numbers and objects.trusts(copy)
                ):
                    return None
                chain.append(logged)
            last = chain[-1].sequence
            end = objects.look(last)
            if end is None or isinstance(end, Void) or end.plain != copies[-1].plain:
                return None
            objects.verify(last, end.plain)
            objects.adopt(end.key_id)
        except Corrupt:
            return None
        return chain[known:]

    def _store_blocks(self) -> None:
        """Store the blocks that were missing, of entries that were read one by one."""
        whole = [one for one in self._copies if one + ENTRIES - 1 <= self.head]
        for first in whole:
            self._blocks.put(first, self._copies.pop(first), self.dek())

    def _refuse_break(self, logged: LoggedEntry) -> None:
        """Refuse an entry that is not the next one of this log."""
        if logged.follows(self.entries[-1] if self.entries else None):
            return
        name, void = self._layout.log_entry, logged.sequence - logged.void
        if self.entries and void <= self.head:
            raise Corrupt(
                f"log entry {name(logged.sequence)} says that {name(void)} holds none, "
                "and it does",
                hint="two hosts have written at once, since somebody who can delete "
                f"objects hid one from the other; {_FROM_COPY}",
            )
        if self.head + 1 < void:  # names in between that it does not call void
            why = next((one.why for one in self._passed), None)
            what = "is missing, though later ones are there"
            raise Corrupt(
                f"log entry {name(self.head + 1)} "
                + (
                    what if why is None else f"was replaced; a later one follows: {why}"
                ),
                hint=f"somebody deleted or changed it; {_FROM_COPY}",
            )
        raise Corrupt(
            f"log entry {name(logged.sequence)} does not follow the entry before it",
            hint="the repository was rolled back, forked, or put together from two",
        )

    def _apply(self, logged: LoggedEntry, key_id: bytes) -> None:
        try:
            self.state.apply(logged.entry)
        except ValueError as error:
            name = self._layout.log_entry(logged.sequence)
            raise Corrupt(f"log entry {name} may not stand there: {error}") from None
        self._objects.adopt(key_id)
        self.entries.append(logged)
        self.key_ids.add(key_id)
