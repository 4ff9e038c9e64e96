"""Several writers over one log, whatever they do and whenever replies get lost.

Each writer's view may be old, and somebody without keys stores what is no entry at
names that are free. What the log then holds must be what a plain model of the rules
allows, and every reader must see the same.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
)

from drkit.errors import AttemptFenced, ObjectExists
from drkit.model.label import label_time
from drkit.model.log import (
    Abandon,
    AttemptState,
    Entry,
    ExpireDone,
    ExpireIntent,
    Pin,
    Proven,
    Unpin,
)
from drkit.model.log_wal import ExpireWal
from drkit.model.lsn import Lsn
from drkit.storage.local import LocalStorage
from drkit.storage.memory import MemoryStorage
from drkit.storage.retry import RetryingStorage
from tests.builders import EPOCH, World, begin, commit_entry
from tests.faults import FaultyStorage, unavailable
from tests.repository.logs import entry_name
from tests.repository.machines import run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from drkit.model.log import Begin
    from drkit.protocols import Storage
    from drkit.repository.repository import Repository

WRITERS = 3
WRITER = st.integers(0, WRITERS - 1)
PICK = st.integers(0, 1000)
START = st.integers(1, 9).map(lambda number: number << 24)


@dataclass
class Model:
    """The rules of docs/repository-format.md, "Log", said once more."""

    begins: list[Begin] = field(default_factory=list)
    running: set[str] = field(default_factory=set)
    abandoned: set[str] = field(default_factory=set)
    live: dict[str, str | None] = field(default_factory=dict)
    expiring: set[str] = field(default_factory=set)
    pinned: set[str] = field(default_factory=set)
    proven: set[str] = field(default_factory=set)
    wal: int = 0
    entries: int = 1
    head: int = 0
    garbage: set[int] = field(default_factory=set)

    def free(self) -> int:
        """Return the number of the next entry."""
        return next(n for n in itertools.count(self.head + 1) if n not in self.garbage)

    def grow(self) -> None:
        self.head, self.entries = self.free(), self.entries + 1

    def may_commit(self, begun: Begin) -> bool:
        parent_lives = begun.parent is None or begun.parent in self.live
        return begun.attempt in self.running and parent_lives

    def may_expire_wal(self, bound: int) -> bool:
        running = [b.start_lsn for b in self.begins if b.attempt in self.running]
        return all(bound <= start for start in running)

    def may_expire(self, labels: set[str]) -> bool:
        children = {p for label, p in self.live.items() if label not in labels}
        children |= {b.parent for b in self.begins if b.attempt in self.running}
        return labels <= self.live.keys() and not labels & (children | self.pinned)


class LogMachine(RuleBasedStateMachine):
    """Writers that act on the log in any order."""

    make_storage: ClassVar[Callable[[], Storage]] = MemoryStorage

    @initialize()
    def open(self) -> None:
        self.world = World(type(self).make_storage())
        self.faults = [FaultyStorage(self.world.storage) for _ in range(WRITERS)]
        self.world.repository()
        self.writers = [
            self.world.repository(
                host=f"host-{number}", storage=RetryingStorage(faulty, self.world.clock)
            )
            for number, faulty in enumerate(self.faults)
        ]
        self.model = Model()

    # -- what happens to the world

    @rule(hours=st.integers(-10 * 365 * 24, 10 * 365 * 24))
    def clock_jumps(self, hours: int) -> None:
        if abs(self.world.clock.time.year - 2026) < 60:
            self.world.clock.jump(hours=hours)

    @rule(writer=WRITER, lost=st.booleans())
    def next_put_fails(self, writer: int, lost: bool) -> None:
        faulty = self.faults[writer]
        fault = faulty.lose_reply if lost else faulty.fail
        fault("put", unavailable(), at=faulty.calls["put"] + 1)

    @rule(writer=WRITER)
    def forgets(self, writer: int) -> None:
        """A host starts anew, with nothing but the repository."""
        storage = RetryingStorage(self.faults[writer], self.world.clock)
        fresh = self.world.repository(host=f"host-{writer}", storage=storage)
        self.writers[writer] = fresh

    @rule(ahead=st.integers(1, 3), kind=PICK)
    def somebody_stores_garbage(self, ahead: int, kind: int) -> None:
        number = self.model.head + ahead
        data = self.world.storage.get(entry_name(0))
        made = (b"", b"no entry", data, data[:32], data[:96] + bytes(50), bytes(3000))
        try:
            self.world.storage.put(entry_name(number), made[kind % len(made)])
        except ObjectExists:
            assert number in self.model.garbage
        self.model.garbage.add(number)

    # -- what writers do

    @rule(writer=WRITER, child=st.booleans(), pick=PICK, start=START)
    def begins(self, writer: int, child: bool, pick: int, start: int) -> None:
        seen = list(self.model.live)
        parent = seen[pick % len(seen)] if child and seen else None
        if start < self.model.wal:
            with pytest.raises(AttemptFenced, match="needs WAL"):
                begin(self.writers[writer], parent=parent, start_lsn=start)
            return
        begun = begin(self.writers[writer], parent=parent, start_lsn=start)
        if self.model.begins:
            newest = self.model.begins[-1].label
            assert label_time(begun.label) > label_time(newest)
        self.model.begins.append(begun)
        self.model.running.add(begun.attempt)
        self.model.grow()

    @rule(writer=WRITER, pick=PICK)
    def begins_on_a_parent_that_is_gone(self, writer: int, pick: int) -> None:
        gone = [b.label for b in self.model.begins if b.label not in self.model.live]
        if gone:
            parent = gone[pick % len(gone)]
            with pytest.raises(AttemptFenced):
                begin(self.writers[writer], parent=parent, start_lsn=10 << 24)

    @rule(writer=WRITER, pick=PICK)
    def commits(self, writer: int, pick: int) -> None:
        if not self.model.begins:
            return
        begun = self.model.begins[pick % len(self.model.begins)]
        allowed = self.model.may_commit(begun)
        if self.append(writer, commit_entry(begun), allowed=allowed):
            self.model.running.remove(begun.attempt)
            self.model.live[begun.label] = begun.parent

    @rule(writer=WRITER, pick=PICK)
    def abandons(self, writer: int, pick: int) -> None:
        if not self.model.begins:
            return
        attempt = self.model.begins[pick % len(self.model.begins)].attempt
        allowed = attempt in self.model.running | self.model.abandoned
        if self.append(writer, Abandon(attempt, "lapsed"), allowed=allowed):
            self.model.running.discard(attempt)
            self.model.abandoned.add(attempt)

    @rule(writer=WRITER, picks=st.sets(PICK, min_size=1, max_size=3))
    def expires(self, writer: int, picks: set[int]) -> None:
        if not self.model.begins:
            return
        all_labels = [begun.label for begun in self.model.begins]
        labels = {all_labels[pick % len(all_labels)] for pick in picks}
        entry = ExpireIntent(tuple(sorted(labels)))
        if self.append(writer, entry, allowed=self.model.may_expire(labels)):
            for label in labels:
                del self.model.live[label]
            self.model.expiring |= labels
            self.model.proven -= labels

    @rule(writer=WRITER, pick=PICK)
    def finishes_expiring(self, writer: int, pick: int) -> None:
        if not self.model.begins:
            return
        label = self.model.begins[pick % len(self.model.begins)].label
        allowed = label in self.model.expiring
        if self.append(writer, ExpireDone((label,)), allowed=allowed):
            self.model.expiring.discard(label)

    @rule(writer=WRITER, bound=START, other=st.integers(0, 1 << 40))
    def expires_wal(self, writer: int, bound: int, other: int) -> None:
        """On timeline 1, where all backups are, and on another one."""
        entry = ExpireWal(((1, Lsn(bound)), (2, Lsn(other))))
        if self.append(writer, entry, allowed=self.model.may_expire_wal(bound)):
            self.model.wal = max(self.model.wal, bound)

    @rule(writer=WRITER, pick=PICK)
    def pins(self, writer: int, pick: int) -> None:
        label = self.any_label(pick)
        allowed = label in self.model.live
        if self.append(writer, Pin(label, f"reason {pick}", None), allowed=allowed):
            self.model.pinned.add(label)

    @rule(writer=WRITER, pick=PICK)
    def unpins(self, writer: int, pick: int) -> None:
        label = self.any_label(pick)
        if self.append(writer, Unpin(label), allowed=label in self.model.pinned):
            self.model.pinned.remove(label)

    @rule(writer=WRITER, pick=PICK)
    def proves(self, writer: int, pick: int) -> None:
        label = self.any_label(pick)
        entry = Proven(label, EPOCH, "ab" * 32)
        if self.append(writer, entry, allowed=label in self.model.live):
            self.model.proven.add(label)

    def any_label(self, pick: int) -> str:
        """Choose an attempt's label; one that never was if there is none."""
        labels = [begun.label for begun in self.model.begins]
        return labels[pick % len(labels)] if labels else "20260115-103000-full"

    def append(self, writer: int, entry: Entry, *, allowed: bool) -> bool:
        """Append, and hold the outcome against the model; say whether it was done."""
        if not allowed:
            with pytest.raises(AttemptFenced):
                self.writers[writer].log.append(lambda _: entry)
            return False
        logged = self.writers[writer].log.append(lambda _: entry)
        assert logged.entry == entry
        assert logged.sequence == self.model.free()
        self.model.grow()
        return True

    # -- what always holds

    @invariant()
    def every_reader_sees_the_model(self) -> None:
        if not hasattr(self, "model"):
            return
        fresh = self.world.repository()
        for reader in (fresh, *self.writers):
            self.agree(reader)
        void = {one.sequence for one in fresh.log.void}
        assert void == {one for one in self.model.garbage if one > self.model.head}

    def agree(self, reader: Repository) -> None:
        state, model = reader.log.read(), self.model
        assert len(reader.log.entries) == model.entries
        assert list(state.backups) == list(model.live)
        assert {begun.attempt for begun in state.running()} == model.running
        assert state.expiring == model.expiring
        assert state.pins.keys() == model.pinned
        assert state.proven.keys() == model.proven
        assert state.wal_bound(1) == model.wal
        abandoned = {
            attempt
            for attempt, one in state.attempts.items()
            if one.state is AttemptState.ABANDONED
        }
        assert abandoned == model.abandoned
        parents = {parent for parent in model.live.values() if parent}
        assert parents <= model.live.keys()


class DeletingMachine(LogMachine):
    """Somebody deletes what he stored, whether an entry has named it void or not."""

    @rule(pick=PICK)
    def somebody_deletes_garbage(self, pick: int) -> None:
        garbage = sorted(self.model.garbage)
        if garbage:
            number = garbage[pick % len(garbage)]
            self.world.storage.delete(entry_name(number))
            self.model.garbage.remove(number)


def test_garbage_that_comes_and_goes() -> None:
    run(DeletingMachine, examples=20, steps=25)


@pytest.mark.long
def test_garbage_that_comes_and_goes_for_long() -> None:
    run(DeletingMachine, examples=100, steps=50)


def test_writers_over_one_memory() -> None:
    run(LogMachine, examples=25, steps=25)


@pytest.mark.long
def test_writers_over_one_memory_for_long() -> None:
    run(LogMachine, examples=80, steps=50)


@pytest.mark.long
def test_writers_over_one_directory(tmp_path: Path) -> None:
    made = iter(range(1 << 30))

    class OverFiles(LogMachine):
        make_storage = staticmethod(
            lambda: LocalStorage.create(tmp_path / str(next(made)))
        )

    run(OverFiles, examples=20, steps=30)
