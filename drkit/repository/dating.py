"""Whether records of evidence are of the time that they say, by the log.

A record's times are its writer's word. But the log says when the record was named in
it, behind which other record, and when the backup that it restored was committed; so
nobody can date one into a quarter that had passed.
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

from drkit.model.clock import CLOCKS_DIFFER
from drkit.model.log import Commit, Evidence

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime

    from drkit.model.evidence import Record
    from drkit.repository.log_entries import LoggedEntry


class Misdated(NamedTuple):
    """A record whose times the log contradicts.

    Attributes:
        stored: when the log named it, as far as clocks can be believed.
        why: a sentence that names the record.
    """

    sequence: int
    stored: datetime
    why: str


class LogTimes:
    """When the log's entries were written.

    Clocks of hosts differ, and some were wrong for a while, but entries stand in the
    order in which they were written. So an entry is no later than any behind it says,
    and no earlier than any before it.

    Args:
        entries: of the whole log, with one at least.
        now: for records that the log does not name yet.
    """

    def __init__(self, entries: Sequence[LoggedEntry], now: datetime) -> None:
        times = [*(one.time for one in entries), now]
        self._latest = list(accumulate(times, max))
        self._earliest = list(accumulate(reversed(times), min))[::-1]
        self._committed: dict[str, int] = {}
        self._named: dict[int, int] = {}
        for place, logged in enumerate(entries):
            match logged.entry:
                case Commit(backup=backup):
                    self._committed[backup.label] = place
                case Evidence(record=record):
                    self._named.setdefault(record, place)

    def misdated(self, records: Iterable[Record]) -> Iterator[Misdated]:
        """Yield those of the records whose times can't be."""
        for record in records:
            why = self._contradiction(record)
            if why is not None:
                stored = self.stored(record.sequence)
                what = f"record {record.sequence} is not of the time that it says: "
                yield Misdated(record.sequence, stored, what + why)

    def stored(self, sequence: int) -> datetime:
        """Return when a record was named in the log; now, if it was not yet."""
        return self._earliest[self._named.get(sequence, -1)]

    def _contradiction(self, record: Record) -> str | None:
        began, ended = record.started, record.finished
        if ended < began:
            return f"it ended at {_told(ended)}, before it began at {_told(began)}"
        named = self._named.get(record.sequence, -1)
        if ended > self._latest[named] + CLOCKS_DIFFER:
            return (
                f"it ended at {_told(ended)}, and was stored at "
                f"{_told(self._latest[named])} already"
            )
        before = self._earliest[self._named.get(record.sequence - 1, 0)]
        if ended < before - CLOCKS_DIFFER:
            return (
                f"it ended at {_told(ended)}, and what stands before it was written at "
                f"{_told(before)} only"
            )
        return self._too_early(record)

    def _too_early(self, record: Record) -> str | None:
        """Say that a backup was not there yet when it was restored."""
        label = record.restored.label if record.restored is not None else ""
        if label not in self._committed:
            return None
        committed = self._earliest[self._committed[label]]
        if record.started >= committed - CLOCKS_DIFFER:
            return None
        return (
            f"it began at {_told(record.started)}, and restored backup {label}, which "
            f"was committed at {_told(committed)} only"
        )


def _told(time: datetime) -> str:
    return time.isoformat(sep=" ", timespec="seconds")
