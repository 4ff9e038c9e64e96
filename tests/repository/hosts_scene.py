"""Three hosts, one server, one repository, and a witness of what they do to it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from drkit.model.retention import Retention
from tests.builders import World
from tests.repository.hosts import FULL, Host, ended_well
from tests.repository.madeup import MadeUpServer
from tests.repository.witness import OneTimeNames, Witness

if TYPE_CHECKING:
    from drkit.model.label import BackupKind
    from drkit.model.log import LogState
    from drkit.protocols import Storage

ONE, TWO = Retention(full=1), Retention(full=2)
TO_THE_END = 10_000
ANY_GRACE = timedelta(days=3)


class Scene:
    """Three hosts, a server, and a witness of what they do to one repository."""

    def __init__(self, storage: Storage) -> None:
        self.world = World(OneTimeNames(storage))
        self.world.repository()
        self.server = MadeUpServer(self.world.repository(host="server").wal)
        self.hosts = {name: Host(name, self.world, self.server) for name in "abc"}
        self.witness = Witness(self.world, self.server)

    def step(self, host: Host) -> None:
        """Let a host make its next call, and see what that did."""
        call = host.process.call
        host.process.step()
        if call is not None and call.method in {"put", "delete"}:
            self.witness.look()
        if not host.busy:
            assert ended_well(host.process), host.process.error

    def go_on(self, host: Host, calls: int) -> None:
        """Let a host make so many calls, as far as it has any."""
        for _ in range(calls):
            if not host.busy:
                return
            self.step(host)

    def pass_time(self, **by: float) -> None:
        for host in self.hosts.values():
            host.clock.jump(**by)

    def state(self) -> LogState:
        return self.world.repository().log.state

    def labels(self) -> list[str]:
        """Return the live backups, oldest first."""
        return list(self.state().backups)

    def running(self) -> list[str]:
        """Return the attempts that have neither committed nor been abandoned."""
        return [begin.attempt for begin in self.state().running()]

    def back_up(self, name: str, kind: BackupKind = FULL) -> str:
        """Take a backup without anything in between; return its label."""
        host = self.hosts[name]
        self.server.write(b"16384", 1)
        host.run(host.backing_up(kind))
        self.witness.look()
        self.pass_time(minutes=5)
        return self.labels()[-1]

    def end(self) -> None:
        """Let everything end, clean up once, and look at all that is left."""
        for host in self.hosts.values():
            self.go_on(host, TO_THE_END)
            host.hide("")
            host.faulty.heal()
        last = max(host.clock.time for host in self.hosts.values()) + ANY_GRACE
        cleaner = self.hosts["a"]
        cleaner.forget()
        cleaner.clock.time = last
        cleaner.run(cleaner.discarding())
        cleaner.run(cleaner.expiring(TWO))
        self.witness.look_at_all()

    def kill_all(self) -> None:
        for host in self.hosts.values():
            host.process.die()
