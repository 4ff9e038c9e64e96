"""Somebody who sees the whole repository, and says what must never be otherwise."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from drkit.errors import ObjectExists
from drkit.model.log import (
    Abandon,
    AttemptState,
    Begin,
    Commit,
    ExpireDone,
    ExpireIntent,
    Pin,
    Unpin,
)
from drkit.model.log_wal import ExpireWal
from drkit.model.wal import Segment, WalFileName
from drkit.repository.chain import lineage, read_chain
from drkit.repository.manifests import read_manifest
from tests.builders import SEGMENT
from tests.chains import read_files
from tests.operations.backup_tools import difference_from_log

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from drkit.model.log import Entry, LogState
    from drkit.model.objects import ObjectInfo
    from drkit.protocols import Buffer, Storage
    from tests.builders import World
    from tests.repository.madeup import MadeUpServer


class OneTimeNames:
    """A storage in which no name may be used twice, not even after its deletion.

    A lease may come back: a put whose reply was lost is repeated, and meanwhile another
    host may have cleared the lease away. Nothing is decided by leases.
    """

    def __init__(self, inner: Storage) -> None:
        self._inner = inner
        self._lock = threading.Lock()
        self.ever: set[str] = set()

    @property
    def url(self) -> str:
        return self._inner.url

    def put(self, name: str, data: Buffer) -> None:
        self._inner.put(name, data)
        with self._lock:
            before = name in self.ever and "/leases/" not in name
            assert not before, f"{name} was there before"
            self.ever.add(name)

    def get(
        self,
        name: str,
        offset: int = 0,
        length: int | None = None,
        *,
        limit: int | None = None,
    ) -> bytes:
        return self._inner.get(name, offset, length, limit=limit)

    def size(self, name: str) -> int:
        return self._inner.size(name)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return self._inner.list(prefix)

    def delete(self, name: str) -> None:
        assert "/log/" not in name, f"{name} is an entry of the log"
        self._inner.delete(name)

    def hidden(self, prefix: str) -> Sequence[str] | None:
        return self._inner.hidden(prefix)

    def beneath(self, name: str, length: int) -> Sequence[bytes]:
        return self._inner.beneath(name, length)


class Rules:
    """What the log may never say, told apart from drkit's own state machine."""

    def __init__(self) -> None:
        self.parents: dict[str, str | None] = {}
        self.began: dict[str, str] = {}
        self.running: set[str] = set()
        self.live: set[str] = set()
        self.gone: set[str] = set()
        self.pinned: set[str] = set()
        self.deleted: set[str] = set()
        self.starts: dict[str, int] = {}
        self.expired_wal = 0  # where what is left of timeline 1 begins

    def hear(self, entry: Entry) -> None:
        match entry:
            case Begin():
                assert entry.label not in self.parents, f"{entry.label} came twice"
                assert entry.parent is None or entry.parent in self.live
                assert entry.start_lsn >= self.expired_wal, f"{entry.label} is late"
                self.starts[entry.label] = entry.start_lsn
                self.parents[entry.label] = entry.parent
                self.began[entry.attempt] = entry.label
                self.running.add(entry.label)
            case Commit():
                label = self.began[entry.attempt]
                assert label == entry.backup.label
                assert label in self.running, f"{label} was abandoned or committed"
                assert label not in self.gone
                self.running.remove(label)
                self.live.add(label)
            case Abandon():
                label = self.began[entry.attempt]
                assert label not in self.live | self.gone
                self.running.discard(label)
            case ExpireIntent():
                self._expire(set(entry.labels))
            case ExpireDone():
                assert set(entry.labels) <= self.gone - self.deleted
                self.deleted |= set(entry.labels)
            case ExpireWal():
                self._expire_wal(dict(entry.bounds)[1])
            case Pin():
                assert entry.label in self.live
                self.pinned.add(entry.label)
            case Unpin():
                self.pinned.remove(entry.label)
        needed = {self.parents[one] for one in self.live | self.running} - {None}
        assert needed <= self.live, f"{needed - self.live} went, their children live"

    def _expire_wal(self, bound: int) -> None:
        assert bound > self.expired_wal, "it says nothing new"
        for label in self.running | self.live:
            assert self.starts[label] >= bound, f"{label} needs WAL before {bound}"
        self.expired_wal = bound

    def _expire(self, labels: set[str]) -> None:
        assert labels <= self.live
        assert not labels & self.pinned, f"{labels & self.pinned} went though pinned"
        self.live -= labels
        self.gone |= labels


class Witness:
    """Holds the repository against the log and against what the server's files were.

    Attributes:
        garbage: numbers of log names at which somebody stored what is no entry.
    """

    def __init__(self, world: World, server: MadeUpServer) -> None:
        self._world, self._server = world, server
        self._repository = world.repository(host="witness")
        self._rules = Rules()
        self._heard = 0
        self._objects: dict[str, set[str]] = {}
        self._first_segment = server.segment
        self.garbage: set[int] = set()

    def look(self) -> None:
        """Fail if a live backup is not whole, or the log has said what it may not."""
        state = self._repository.log.read()
        for logged in self._repository.log.entries[self._heard :]:
            self._rules.hear(logged.entry)
        self._heard = len(self._repository.log.entries)
        assert state.backups.keys() == self._rules.live
        there = {info.name for info in self._world.storage.list("")}
        for label in state.backups:
            if label not in self._objects:
                self.read(label)
                self._objects[label] = self._objects_of(state, label)
            lacking = self._objects[label] - there
            assert not lacking, f"{label} lives without {lacking}"
        self._look_for_wal(state, there)

    def store_garbage(self, ahead: int) -> None:
        """Store what is no entry at a log name behind the head, if it is free."""
        number = self._repository.log.head + ahead
        name = self._repository.layout.log_entry(number)
        try:
            self._world.storage.put(name, b"no entry")
        except ObjectExists:
            return
        self.garbage.add(number)

    def read(self, label: str) -> None:
        """Fail unless a backup holds what was read from the server."""
        repository = self._world.repository(host="reader")
        commit = repository.log.state.backups[label]
        found = read_files(repository, read_chain(repository, commit))
        assert found == self._server.read[commit.backup.start_lsn], label

    def compare_readers(self) -> None:
        """Fail unless somebody who knows nothing reads the same log."""
        ours, fresh = self._repository.log, self._world.repository(host="reader").log
        assert fresh.read() == ours.read()
        assert fresh.entries == ours.entries
        used = {one.sequence for one in fresh.entries}
        assert used.isdisjoint(self.garbage)
        assert used | self.garbage >= set(range(max(used)))

    def look_at_all(self) -> None:
        """Do what takes longer: read every backup, and look for left-overs."""
        self.look()
        self.compare_readers()
        state = self._repository.log.state
        for label in state.backups:
            self.read(label)
        assert state.running() == []
        assert state.expiring == set()
        unaccounted, lacking = difference_from_log(self._world)  # type: ignore[arg-type]
        garbage = {self._repository.layout.log_entry(one) for one in self.garbage}
        assert (unaccounted - garbage, lacking) == (set(), set())

    def _objects_of(self, state: LogState, label: str) -> set[str]:
        """Return the names of all that a backup and those below it consist of."""
        repository, names = self._repository, set()
        for commit in lineage(state, state.backups[label]):
            names.add(commit.manifest.name)
            packs = len(read_manifest(repository, commit.manifest).packs)
            where = (commit.backup.label, commit.attempt)
            names |= {repository.layout.pack(*where, one) for one in range(packs)}
            begin = state.attempts[commit.attempt].begin
            names |= {
                repository.layout.dek_generation(purpose, bytes.fromhex(key), 1)
                for purpose, key in begin.keys
            }
        return names

    def _look_for_wal(self, state: LogState, there: set[str]) -> None:
        """Fail unless recovery from every backup can go on up to now."""
        starts = [commit.backup.start_lsn for commit in state.backups.values()]
        first = min([*starts, self._rules.expired_wal]) // SEGMENT
        first = max(first, self._first_segment)
        for number in range(first, self._server.segment):
            name = Segment(1, number).name(SEGMENT)
            file = self._repository.wal.name(WalFileName.parse(name))
            assert file in there, f"WAL {name} is gone, a backup needs it"


def abandoned(state: LogState) -> list[str]:
    """Return the labels of abandoned attempts."""
    return [
        one.begin.label
        for one in state.attempts.values()
        if one.state is AttemptState.ABANDONED
    ]
