"""Expirers that sleep over WAL, and backups of standbys that lag behind it.

A machine of few rules: among all that hosts do (test_two_hosts.py) it takes long until
one is asleep with WAL to delete, and another begins just there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
)

from drkit.model.wal import parse_segment
from drkit.storage.local import LocalStorage
from drkit.storage.memory import MemoryStorage
from tests.builders import SEGMENT
from tests.repository.hosts import Call
from tests.repository.hosts_scene import ONE, TO_THE_END, TWO, Scene
from tests.repository.machines import run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from drkit.model.retention import Retention
    from drkit.protocols import Storage
    from tests.repository.hosts import Host

PICK = st.integers(0, 1000)
CALLS = st.just(TO_THE_END) | st.integers(0, 12)
RETENTION = st.sampled_from([ONE, TWO])
WAL_DELETED = Call("delete", "/wal/")
WHERE = st.sampled_from([WAL_DELETED, Call("put", "/log/"), Call("list", "/wal/")])


class WalMachine(RuleBasedStateMachine):
    """Three hosts that back up a standby, expire WAL, sleep, die, and lose replies."""

    make_storage: ClassVar[Callable[[], Storage]] = MemoryStorage

    @initialize(fulls=st.integers(2, 4))
    def open(self, fulls: int) -> None:
        self.scene = Scene(type(self).make_storage())
        for _ in range(fulls):
            self.scene.back_up("a")

    def host(self, pick: int, *, busy: bool) -> Host | None:
        hosts = [one for one in self.scene.hosts.values() if one.busy is busy]
        return hosts[pick % len(hosts)] if hosts else None

    def lag(self, place: int) -> int:
        """Return how far back a standby is that starts with some archived segment."""
        numbers = sorted(
            parse_segment(stored.file.name, SEGMENT).number
            for stored in self.scene.world.repository().wal.list()
        )
        return self.scene.server.segment + 1 - numbers[place % len(numbers)]

    @rule(pick=PICK)
    def backs_up(self, pick: int) -> None:
        if host := self.host(pick, busy=False):
            self.scene.pass_time(minutes=15)  # no lease is in the way
            host.begin(host.backing_up())
            self.scene.go_on(host, TO_THE_END)

    @rule(pick=PICK, place=PICK, calls=CALLS)
    def backs_up_a_standby(self, pick: int, place: int, calls: int) -> None:
        if host := self.host(pick, busy=False):
            self.scene.pass_time(minutes=15)
            host.begin(host.backing_up(lag=self.lag(place)))
            self.scene.go_on(host, calls)

    @rule(pick=PICK, retention=RETENTION, where=WHERE, calls=st.integers(0, 2))
    def expires(self, pick: int, retention: Retention, where: Call, calls: int) -> None:
        """It falls asleep as it deletes WAL, writes an entry, or lists WAL."""
        host = self.host(pick, busy=False)
        if host is None:
            return
        host.begin(host.expiring(retention))
        while (call := host.process.call) is not None:
            if call.method == where.method and where.name in call.name:
                break
            self.scene.step(host)
        self.scene.go_on(host, calls)

    @rule(pick=PICK, place=PICK, calls=CALLS)
    def backs_up_a_standby_while_wal_expires(
        self, pick: int, place: int, calls: int
    ) -> None:
        """What is to be found, more often than chance would have it."""
        self.expires(pick, ONE, WAL_DELETED, calls=0)
        self.backs_up_a_standby(pick, place, calls)

    @rule(pick=PICK, calls=CALLS)
    def goes_on(self, pick: int, calls: int) -> None:
        if host := self.host(pick, busy=True):
            self.scene.go_on(host, calls)

    @rule(pick=PICK)
    def next_reply_is_lost(self, pick: int) -> None:
        list(self.scene.hosts.values())[pick % 3].lose_next_reply()

    @rule(pick=PICK)
    def dies(self, pick: int) -> None:
        if host := self.host(pick, busy=True):
            host.die()

    @invariant()
    def the_wal_of_every_backup_is_there(self) -> None:
        if hasattr(self, "scene"):
            self.scene.witness.look()

    def teardown(self) -> None:
        if hasattr(self, "scene"):
            try:
                self.scene.end()
            finally:
                self.scene.kill_all()


@pytest.mark.parametrize(
    ("examples", "steps"), [(20, 12), pytest.param(500, 30, marks=pytest.mark.long)]
)
def test_over_one_memory(examples: int, steps: int) -> None:
    run(WalMachine, examples, steps)


@pytest.mark.parametrize(
    ("examples", "steps"), [(4, 12), pytest.param(150, 30, marks=pytest.mark.long)]
)
def test_over_one_directory(tmp_path: Path, examples: int, steps: int) -> None:
    made = iter(range(1 << 30))

    class OverFiles(WalMachine):
        make_storage = staticmethod(
            lambda: LocalStorage.create(tmp_path / str(next(made)))
        )

    run(OverFiles, examples, steps)
