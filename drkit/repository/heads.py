"""A log against what is known of it elsewhere: was it put back, or cut off?

Signatures and digests show what was changed in a log. That its newest entries are not
there shows only to somebody who has seen them, or in what they left in the store.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from drkit.crypto.sealing import HEADER_BYTES
from drkit.errors import RolledBack
from drkit.model.log_head import KnownHead, LogHead
from drkit.repository.objects import is_header_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from drkit.model.log import LogState
    from drkit.protocols import HeadMemory, Storage
    from drkit.repository.keyring import Keyring
    from drkit.repository.layout import Layout

_SHOWN = 5
_HERE = "this host has seen"


class Forgetful:
    """The memory of a host that has none."""

    problem: str | None = "nothing was asked to remember the log"

    def recall(self) -> KnownHead | None:
        """Know nothing."""
        return None

    def remember(self, seen: KnownHead) -> None:
        """Keep nothing."""

    def replace(self, seen: KnownHead) -> None:
        """Keep nothing."""


class Chained(Protocol):
    """What is asked of a log entry here."""

    @property
    def sequence(self) -> int:
        """Its number."""

    @property
    def time(self) -> datetime:
        """When it was written, by its writer's clock."""

    @property
    def digest(self) -> str:
        """SHA-256 of its plaintext, in hex."""


class ReadLog(Protocol):
    """A log, as it was read to its head."""

    @property
    def entries(self) -> Sequence[Chained]:
        """All of them."""

    @property
    def state(self) -> LogState:
        """What they say."""

    @property
    def behind(self) -> range:
        """The numbers behind the head, to the first name at which nothing lies."""


class HeadGuard:
    """Holds a log, as it was read to its head, against what is known of it.

    What is known must be asked for before the log is read: whatever was seen by then,
    by this process or another, is in it.

    Attributes:
        memory: what this host has seen.
    """

    def __init__(
        self,
        storage: Storage,
        layout: Layout,
        lineage: bytes,
        keyring: Keyring,
        memory: HeadMemory,
    ) -> None:
        self._storage = storage
        self._layout = layout
        self._lineage = lineage
        self._keyring = keyring
        self.memory = memory

    def confirm(self, known: KnownHead | None, log: ReadLog) -> None:
        """Refuse to go on behind a head that is not the last one there was.

        Raises:
            RolledBack: newer entries are hidden, or newer ones are known.
        """
        found = self.departure(known, log) or self.hidden(log)
        if found is not None:
            raise found

    def departure(
        self, known: KnownHead | None, log: ReadLog, seen: str = _HERE
    ) -> RolledBack | None:
        """Say that a log lacks, or belies, what is known of it.

        Args:
            known: an entry that was there once; None if none is known.
            log: as it was read since.
            seen: how it is known, to stand before "entry 5".
        """
        if known is None:
            return None
        entries, state = log.entries, log.state
        place, end = known.head.sequence, entries[-1].sequence if entries else -1
        digests = (one.digest for one in reversed(entries) if one.sequence == place)
        if next(digests, "").startswith(known.head.digest):
            return None
        cluster = self._layout.cluster
        when = f", of {known.time:%Y-%m-%d %H:%M:%S} UTC" if known.time else ""
        if place <= end:
            what = f"entry {place} of the log of {cluster} is not the one that"
            told = f"{what} {seen}{when}{_lost(state, known)}"
        else:
            ends = f"ends at entry {end}" if entries else "has no entry"
            what = f"the log of {cluster} {ends}, and {seen} entry {place}"
            told = f"{what}{when}: {_gone(end + 1, place)}{_lost(state, known)}"
        return RolledBack(told, hint=_advice(cluster, head_of(entries)))

    def hidden(self, log: ReadLog) -> RolledBack | None:
        """Say that the next entry was deleted or replaced, and is still stored.

        Only what a holder of the keys has sealed counts: anybody may put something in
        an entry's place, and delete it again.
        """
        names = [self._layout.log_entry(number) for number in log.behind]
        name = next(filter(self._hides_entry, names), None)
        if name is None:
            return None
        return RolledBack(
            f"log entry {name} was deleted or replaced, and {self._storage.url} still "
            "has it: somebody has hidden the newest entries",
            hint="remove the delete markers of that name and of those behind it, or "
            "what lies over it (`aws s3api list-object-versions`, then `delete-object` "
            "with the version id of each marker), and find out who did that",
        )

    def remember(self, log: ReadLog) -> None:
        """Have this host remember the log's head, unless it knows a newer one."""
        seen = _seen(log)
        if seen is not None:
            self.memory.remember(seen)

    def accept(self, log: ReadLog) -> None:
        """Have this host take the log's head for right, whatever it remembers."""
        seen = _seen(log)
        if seen is not None:
            self.memory.replace(seen)

    def _hides_entry(self, name: str) -> bool:
        if name not in (self._storage.hidden(name) or ()):
            return False
        find = self._keyring.finder("catalog")
        return any(
            is_header_of(find, self._lineage, name, "catalog", head)
            for head in self._storage.beneath(name, HEADER_BYTES)
        )


def head_of(entries: Sequence[Chained]) -> LogHead | None:
    """Return the head of a log that was read; None of an empty one."""
    if not entries:
        return None
    return LogHead(entries[-1].sequence, entries[-1].digest)


def _seen(log: ReadLog) -> KnownHead | None:
    head = head_of(log.entries)
    if head is None:
        return None
    return KnownHead(head, log.entries[-1].time, tuple(log.state.backups))


def _gone(first: int, last: int) -> str:
    return (
        f"entry {last} is gone"
        if first == last
        else (f"entries {first} to {last} are gone")
    )


def _lost(state: LogState, known: KnownHead) -> str:
    """Name the backups that were live then and that this log has never heard of."""
    ever = {attempt.begin.label for attempt in state.attempts.values()}
    lost = [label for label in known.labels if label not in ever]
    if not lost:
        return ""
    more = f" and {len(lost) - _SHOWN} more" if len(lost) > _SHOWN else ""
    what = "the backup" if len(lost) == 1 else "the backups"
    return f", and with it {what} {', '.join(lost[-_SHOWN:])}{more}"


def _advice(cluster: str, head: LogHead | None) -> str:
    told = (
        "somebody put the repository back to an older state, or deleted its newest log "
        "entries: bring them back from a copy, or from versions that the store keeps"
    )
    if head is None:
        return told
    return (
        f"{told}. If it was put back on purpose, and only then: drkit check {cluster} "
        f"--accept-head {head}"
    )
