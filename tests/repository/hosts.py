"""Hosts whose operations stop before every storage call, and go on when a test says so.

    host = Host("a", world, server)
    host.begin(host.backing_up("full"))
    host.process.until("put", "/manifest")   # asleep, just before it stores that
    ...                                       # whatever others do meanwhile
    host.process.finish()

An operation runs in a thread of its own, but one thread runs at a time: between two
calls nothing happens that the test has not asked for. What several workers of one
operation do at the same time, such as reading the manifests of a chain, is one step.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from drkit.errors import DrkitError
from drkit.model.due import Due
from drkit.model.label import BackupKind
from drkit.model.log import Proven
from drkit.operations.attempts import abandon, abandon_dead, sweep_attempt
from drkit.operations.backup import take_backup
from drkit.operations.backup_options import BackupOptions
from drkit.operations.discarding import discard
from drkit.operations.expire import execute_expire, plan_expire
from drkit.operations.heads import log_standing
from drkit.operations.pins import pin_backup, unpin_backup
from drkit.storage.retry import RetryingStorage
from tests.builders import EPOCH, FakeClock
from tests.faults import FaultyStorage, unavailable
from tests.operations.backup_tools import Listener
from tests.repository.madeup import MadeUpSource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from drkit.model.objects import ObjectInfo
    from drkit.model.retention import Retention
    from drkit.protocols import Buffer, Storage
    from drkit.repository.repository import Repository
    from tests.builders import World
    from tests.repository.madeup import MadeUpServer

T = TypeVar("T")
PATIENCE = 60.0  # seconds of real time for one step
FULL, INCREMENTAL = BackupKind.FULL, BackupKind.INCREMENTAL


class Died(BaseException):
    """The process was killed: no call of it reaches the store any more."""


class Call(NamedTuple):
    """A storage call that waits to be made."""

    method: str
    name: str


class Gate:
    """A storage that makes the operation's thread wait before each call."""

    def __init__(self, inner: Storage) -> None:
        self._inner = inner
        self._lock = threading.Lock()
        self._group_passed = False
        self.process: Process | None = None

    @property
    def url(self) -> str:
        return self._inner.url

    def put(self, name: str, data: Buffer) -> None:
        self._through("put", name, lambda: self._inner.put(name, data))

    def get(
        self,
        name: str,
        offset: int = 0,
        length: int | None = None,
        *,
        limit: int | None = None,
    ) -> bytes:
        return self._through(
            "get",
            name,
            lambda: self._inner.get(name, offset, length, limit=limit),
        )

    def size(self, name: str) -> int:
        return self._through("size", name, lambda: self._inner.size(name))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return self._through("list", prefix, lambda: self._inner.list(prefix))

    def delete(self, name: str) -> None:
        self._through("delete", name, lambda: self._inner.delete(name))

    def hidden(self, prefix: str) -> Sequence[str] | None:
        return self._inner.hidden(prefix)

    def beneath(self, name: str, length: int) -> Sequence[bytes]:
        return self._inner.beneath(name, length)

    def _through(self, method: str, name: str, work: Callable[[], T]) -> T:
        process = self.process
        if process is not None:
            self._wait(process, Call(method, name))
        return work()

    def _wait(self, process: Process, call: Call) -> None:
        if process.is_main(threading.current_thread()):
            self._group_passed = False
            process.wait(call)
            return
        with self._lock:  # one worker waits for all
            if not self._group_passed:
                process.wait(call)
                self._group_passed = True
        process.live_or_die()


class Process:
    """An operation of one host, as far as it has come.

    Attributes:
        call: what it will do next; None when it has ended.
        error: what it ended with, if not well.
    """

    def __init__(self, work: Callable[[], object]) -> None:
        self._work = work
        self._go, self._waits = threading.Semaphore(0), threading.Semaphore(0)
        self._dead = False
        self._thread = threading.Thread(target=self._run, name="host", daemon=True)
        self.call: Call | None = None
        self.result: object = None
        self.error: BaseException | None = None

    def start(self) -> None:
        self._thread.start()
        self._await()

    def step(self) -> None:
        """Make the call that waits, and go on to the next."""
        assert self.call is not None, "the operation has ended"
        self._go.release()
        self._await()

    def until(self, method: str, part: str, *, done: bool = False) -> None:
        """Go on to just before a call, or with `done` just behind it."""
        while self.call is not None:
            if self.call.method == method and part in self.call.name:
                if done:
                    self.step()
                return
            self.step()
        raise AssertionError(f"it ended ({self.error!r}) without {method} {part}")

    def finish(self) -> None:
        """Go on to the end; raise what the operation raised."""
        while self.call is not None:
            self.step()
        if self.error is not None:
            raise self.error

    def die(self) -> None:
        self._dead = True
        while self.call is not None:
            self.step()

    # -- called by the operation's threads

    def is_main(self, thread: threading.Thread) -> bool:
        return thread is self._thread

    def wait(self, call: Call) -> None:
        self.live_or_die()
        self.call = call
        self._waits.release()
        self._go.acquire()
        self.live_or_die()

    def live_or_die(self) -> None:
        if self._dead:
            raise Died

    def _await(self) -> None:
        assert self._waits.acquire(timeout=PATIENCE), f"{self.call} never came back"

    def _run(self) -> None:
        try:
            self.result = self._work()
        except BaseException as error:  # a test looks at it
            self.error = error
        self.call = None
        self._waits.release()


class Host:
    """A machine with a clock of its own and one operation at a time."""

    def __init__(self, name: str, world: World, server: MadeUpServer) -> None:
        self.name = name
        self.clock = FakeClock(world.clock.time)
        self.server = server
        self.faulty = FaultyStorage(world.storage)
        self._gate = Gate(self.faulty)
        self._world = replace(world, clock=self.clock)
        self.repository = self._open()
        self.process = Process(lambda: None)
        self.process.start()

    @property
    def busy(self) -> bool:
        return self.process.call is not None

    def forget(self) -> None:
        """Start anew, with nothing but the repository."""
        self.repository = self._open()

    def die(self) -> None:
        """Lose the process in the midst of what it does."""
        self.process.die()
        self.forget()

    def begin(self, work: Callable[[], object]) -> Process:
        """Start an operation; it waits before its first storage call."""
        assert not self.busy
        self.process = self._gate.process = Process(work)
        self.process.start()
        return self.process

    def run(self, work: Callable[[], object]) -> object:
        """Do an operation from its beginning to its end."""
        process = self.begin(work)
        process.finish()
        return process.result

    def lose_next_reply(self) -> None:
        """Let the next put be done, though the host does not learn of it."""
        at = self.faulty.calls["put"] + 1
        self.faulty.lose_reply("put", unavailable(), at=at)

    def hide(self, part: str) -> None:
        """Leave names that hold `part` out of the host's listings; "" heals."""
        self.faulty.hide(lambda name: bool(part) and part in name)

    # -- operations

    def backing_up(self, kind: BackupKind = FULL, lag: int = 0) -> Callable[[], object]:
        """Back up the primary, or in full a standby that lags so many segments."""
        options = BackupOptions(
            self.name, "local", 1, 1, timedelta(seconds=9), lambda: "it is made up"
        )
        return lambda: take_backup(
            self.repository,
            self.server.present,
            MadeUpSource(self.server, lag),
            Due(kind, "asked for"),
            options,
            Listener(),
        )

    def expiring(self, retention: Retention) -> Callable[[], object]:
        def work() -> object:
            now = self.clock.now()
            plan = plan_expire(self.repository, retention, now, accept_clock=True)
            return execute_expire(self.repository, plan, self.name, Listener())

        return work

    def cleaning(self) -> Callable[[], object]:
        return lambda: abandon_dead(self.repository, self.name, Listener())

    def discarding(self) -> Callable[[], object]:
        """Delete, as a person would, the whole backups that have no commit."""

        def work() -> None:
            for label in log_standing(self.repository).uncommitted:
                discard(self.repository, label, Listener())

        return work

    def giving_up(self, attempt: str) -> Callable[[], object]:
        """Take an attempt for dead without asking anybody, and sweep it."""

        def work() -> None:
            try:
                abandon(self.repository, attempt, "taken for dead")
            finally:
                sweep_attempt(self.repository, attempt, Listener())

        return work

    def pinning(self, label: str, hours: int | None) -> Callable[[], object]:
        def work() -> object:
            until = None if hours is None else self.clock.now() + timedelta(hours=hours)
            return pin_backup(self.repository, label, "audit", until)

        return work

    def unpinning(self, label: str) -> Callable[[], object]:
        return lambda: unpin_backup(self.repository, label)

    def proving(self, label: str) -> Callable[[], object]:
        proven = Proven(label, EPOCH, "ab" * 32)
        return lambda: self.repository.log.append(lambda _: proven)

    def _open(self) -> Repository:
        process, self._gate.process = self._gate.process, None
        storage = RetryingStorage(self._gate, self.clock, jitter=lambda: 0.5)
        opened = self._world.repository(host=self.name, storage=storage)
        self._gate.process = process
        return opened


def ended_well(process: Process) -> bool:
    """Say whether an operation ended as one may: done, killed, or refused in words."""
    return isinstance(process.error, (DrkitError, Died, type(None)))
