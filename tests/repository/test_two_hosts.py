"""Hosts that back up, expire, abandon, sweep and pin at once can't hurt each other.

Operations are the real ones; they stop before every storage call, so that anything can
happen in between. Leases only save work: nothing here is safe because of them.
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

from drkit.storage.local import LocalStorage
from drkit.storage.memory import MemoryStorage
from tests.repository.hosts import FULL, INCREMENTAL
from tests.repository.hosts_scene import ONE, TO_THE_END, TWO, Scene
from tests.repository.machines import run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from drkit.model.label import BackupKind
    from drkit.model.retention import Retention
    from drkit.protocols import Storage
    from drkit.storage.s3 import S3Storage
    from tests.repository.hosts import Host

HOST = st.sampled_from("abc")
PICK = st.integers(0, 1000)
CALLS = st.integers(0, 30)  # a backup makes about 25
LISTED = ("", "/leases/", "/packs/", "/keys/", "/backups/", "/wal/", "/log/")


class HostsMachine(RuleBasedStateMachine):
    """Hosts that begin operations, fall asleep anywhere, wake, die and begin anew."""

    make_storage: ClassVar[Callable[[], Storage]] = MemoryStorage

    @initialize(fulls=st.integers(0, 3))
    def open(self, fulls: int) -> None:
        self.scene = Scene(type(self).make_storage())
        for _ in range(fulls):
            self.scene.back_up("a")

    def host(self, pick: int, *, busy: bool) -> Host | None:
        """Choose one of the hosts that are at work, or of those that are not."""
        hosts = [one for one in self.scene.hosts.values() if one.busy is busy]
        return hosts[pick % len(hosts)] if hosts else None

    def label(self, pick: int) -> str:
        """Choose a live backup; one that never was if there is none."""
        labels = self.scene.labels()
        return labels[pick % len(labels)] if labels else "20260115-103000-full"

    # -- the world

    @rule(place=PICK, truncated=st.booleans())
    def server_works(self, place: int, truncated: bool) -> None:
        name = (b"16384", b"16385", b"16386")[place % 3]
        if not truncated:
            self.scene.server.write(name, place % 5)
        elif place % 2:
            self.scene.server.drop(name)
        else:
            self.scene.server.truncate(name, place % 4)

    @rule(minutes=st.sampled_from([5, 15, 60, 60 * 24 * 40]))
    def time_passes(self, minutes: int) -> None:
        self.scene.pass_time(minutes=minutes)

    @rule(name=HOST, hours=st.integers(-24, 24) | st.integers(-87_600, 87_600))
    def clock_jumps(self, name: str, hours: int) -> None:
        clock = self.scene.hosts[name].clock
        if abs(clock.time.year - 2026) < 60:
            clock.jump(hours=hours)

    @rule(name=HOST, part=st.sampled_from(LISTED))
    def listings_lack(self, name: str, part: str) -> None:
        self.scene.hosts[name].hide(part)

    @rule(name=HOST)
    def next_reply_is_lost(self, name: str) -> None:
        self.scene.hosts[name].lose_next_reply()

    @rule(ahead=st.integers(1, 3))
    def somebody_stores_garbage_in_the_log(self, ahead: int) -> None:
        self.scene.witness.store_garbage(ahead)

    # -- what hosts begin

    @rule(
        pick=PICK, kind=st.sampled_from([FULL, INCREMENTAL, INCREMENTAL]), calls=CALLS
    )
    def backs_up(self, pick: int, kind: BackupKind, calls: int) -> None:
        if host := self.host(pick, busy=False):
            host.begin(host.backing_up(kind))
            self.scene.go_on(host, calls)

    @rule(pick=PICK, lag=st.integers(1, 8), calls=CALLS | st.just(TO_THE_END))
    def backs_up_a_lagging_standby(self, pick: int, lag: int, calls: int) -> None:
        if host := self.host(pick, busy=False):
            host.begin(host.backing_up(lag=lag))
            self.scene.go_on(host, calls)

    @rule(pick=PICK, retention=st.sampled_from([ONE, TWO]), deleted=st.integers(0, 2))
    def expires_and_sleeps_over_wal(
        self, pick: int, retention: Retention, deleted: int
    ) -> None:
        """It has judged what WAL goes, and falls asleep as it deletes that."""
        host = self.host(pick, busy=False)
        if host is None:
            return
        host.begin(host.expiring(retention))
        while (call := host.process.call) is not None:
            if call.method == "delete" and "/wal/" in call.name:
                break
            self.scene.step(host)
        self.scene.go_on(host, deleted)

    @rule(pick=PICK, retention=st.sampled_from([ONE, TWO]), calls=CALLS)
    def expires(self, pick: int, retention: Retention, calls: int) -> None:
        if host := self.host(pick, busy=False):
            host.begin(host.expiring(retention))
            self.scene.go_on(host, calls)

    @rule(pick=PICK, calls=CALLS)
    def cleans_up(self, pick: int, calls: int) -> None:
        if host := self.host(pick, busy=False):
            host.begin(host.cleaning())
            self.scene.go_on(host, calls)

    @rule(pick=PICK, calls=CALLS)
    def gives_another_up(self, pick: int, calls: int) -> None:
        host, attempts = self.host(pick, busy=False), self.scene.running()
        if host and attempts:
            host.begin(host.giving_up(attempts[pick % len(attempts)]))
            self.scene.go_on(host, calls)

    @rule(pick=PICK, hours=st.none() | st.integers(1, 48), calls=CALLS)
    def pins(self, pick: int, hours: int | None, calls: int) -> None:
        if host := self.host(pick, busy=False):
            host.begin(host.pinning(self.label(pick), hours))
            self.scene.go_on(host, calls)

    @rule(pick=PICK, calls=CALLS, proves=st.booleans())
    def unpins_or_proves(self, pick: int, calls: int, proves: bool) -> None:
        if host := self.host(pick, busy=False):
            work = host.proving if proves else host.unpinning
            host.begin(work(self.label(pick)))
            self.scene.go_on(host, calls)

    # -- how far they come

    @rule(pick=PICK, calls=CALLS)
    def goes_on(self, pick: int, calls: int) -> None:
        if host := self.host(pick, busy=True):
            self.scene.go_on(host, calls)

    @rule(pick=PICK)
    def ends(self, pick: int) -> None:
        if host := self.host(pick, busy=True):
            self.scene.go_on(host, TO_THE_END)

    @rule(pick=PICK)
    def dies(self, pick: int) -> None:
        if host := self.host(pick, busy=True):
            host.die()

    # -- what always holds

    @invariant()
    def nobody_is_hurt(self) -> None:
        if hasattr(self, "scene"):
            self.scene.witness.look()
            self.scene.witness.compare_readers()

    def teardown(self) -> None:
        if hasattr(self, "scene"):
            try:
                self.scene.end()
            finally:
                self.scene.kill_all()


def test_hosts_over_one_memory() -> None:
    run(HostsMachine, examples=10, steps=30)


@pytest.mark.long
def test_hosts_over_one_memory_for_long() -> None:
    run(HostsMachine, examples=1000, steps=50)


@pytest.mark.parametrize(
    ("examples", "steps"), [(2, 20), pytest.param(200, 40, marks=pytest.mark.long)]
)
def test_hosts_over_one_directory(tmp_path: Path, examples: int, steps: int) -> None:
    made = iter(range(1 << 30))

    class OverFiles(HostsMachine):
        make_storage = staticmethod(
            lambda: LocalStorage.create(tmp_path / str(next(made)))
        )

    run(OverFiles, examples, steps)


@pytest.mark.parametrize(
    ("examples", "steps"), [(1, 8), pytest.param(30, 40, marks=pytest.mark.long)]
)
def test_hosts_over_one_bucket(
    make_s3: Callable[..., S3Storage], examples: int, steps: int
) -> None:
    class OverS3(HostsMachine):
        make_storage = staticmethod(make_s3)

    run(OverS3, examples, steps)
