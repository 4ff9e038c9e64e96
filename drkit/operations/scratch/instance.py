"""A restored cluster that is recovered, promoted and looked at, and then is gone.

with scratch_instance(options, clock) as scratch:
    …restore into scratch.data_directory…
    recovered = scratch.recover(timeout)
    with closing(scratch.connect("app")) as connection:
        …

It can't touch the outside. No setting of production's is in force but what
`drkit.postgres.scratch_settings` takes over by name; there is a unix socket in a
private directory and no other way in; and the kernel lets the server write nowhere else
(`drkit.postgres.confine`), whatever the WAL and the restored catalogs ask for.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from drkit.errors import NoSpace, PostgresRefused
from drkit.model.timeline import TimelineHistory
from drkit.operations.scratch.login import find_login, prove_isolated
from drkit.operations.scratch.places import (
    LeftOver,
    ScratchPlace,
    make_place,
    sweep_left_overs,
)
from drkit.operations.scratch.preparing import prepare
from drkit.operations.scratch.wal_feed import WalFeed, asking_place, feeding_command
from drkit.ownership import acting_as
from drkit.postgres.binaries import ServerBinaries  # noqa: TC001  part of the value
from drkit.postgres.connection import connect
from drkit.postgres.control import read_control
from drkit.postgres.files import read_text
from drkit.postgres.private_directory import owner_for
from drkit.postgres.process import Account  # noqa: TC001  part of the value
from drkit.postgres.scratch_log import read_recovery_log, recovery_error
from drkit.postgres.server import ThrowawayServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from drkit.model.evidence import Cleanup
    from drkit.operations.scratch.login import Login
    from drkit.postgres.connection import Connection
    from drkit.postgres.scratch_log import RecoveryLog
    from drkit.protocols import Clock

__all__ = [
    "LeftOver",
    "Recovered",
    "Scratch",
    "ScratchOptions",
    "scratch_instance",
    "sweep_left_overs",
]


@dataclass(frozen=True, slots=True)
class ScratchOptions:
    """Where and how a scratch instance lives.

    Attributes:
        directory: the parent of private directories; made if need be. A short path: a
            socket is below, whose path may have 107 bytes.
        binaries: of the cluster's major version.
        account: whom the server runs as.
        memory: bytes that the server may use; its buffers derive from it, and no
            process of it gets more private memory than that (at least 512 MiB).
        max_bytes: the most that the private directory may hold; None: what the disk
            has.
    """

    directory: str
    binaries: ServerBinaries
    account: Account
    memory: int
    max_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Recovered:
    """How a recovery went, by the server's own log.

    Attributes:
        started: the server; `ready` is when it began to take writes.
        replay_began, replay_ended, promoted: None where the log does not tell.
        reached_lsn: of the last record that was replayed.
        reached_time: of the last transaction that was replayed, None if there was none.
        timeline: the one that recovery ended on; the instance itself is on a new one.
        wal_segments: how many the restore_command brought.
    """

    started: datetime
    replay_began: datetime | None
    replay_ended: datetime | None
    promoted: datetime | None
    ready: datetime
    reached_lsn: str | None
    reached_time: datetime | None
    timeline: int
    wal_segments: int


@contextmanager
def scratch_instance(options: ScratchOptions, clock: Clock) -> Iterator[Scratch]:
    """Make a private directory; at the end stop the server and remove everything.

    Whatever happened: `cleanup` of what was yielded then says what was removed, and
    whether it is proven that nothing is left. If this process is killed, the server
    shuts down by itself, and `sweep_left_overs` of the next run removes the rest.

    Raises:
        StorageError: the directory can't be made.
    """
    place = make_place(options.directory, options.account, clock)
    try:
        scratch = Scratch(options, clock, place)
    except BaseException:
        place.remove()
        raise
    try:
        yield scratch
    finally:
        scratch.close()


class Scratch:
    """A scratch instance: at first an empty place, after `recover` a server.

    Attributes:
        directory: the private one.
        data_directory: in it; a restore makes and fills it.
        server: started by `recover`.
        cleanup: set when the instance has ended.
        deviations: what differs from production, and what this host lacks to cut the
            instance off, each a sentence; known after `recover`.
        confined_by: what cuts it off, a sentence; known after `recover`.
    """

    def __init__(
        self, options: ScratchOptions, clock: Clock, place: ScratchPlace
    ) -> None:
        self.directory = place.directory
        self.data_directory = os.path.join(place.directory, "data")
        self.cleanup: Cleanup | None = None
        self.deviations: tuple[str, ...] = ()
        self.confined_by = ""
        self._options = options
        self._clock = clock
        self._place = place
        self._login: Login | None = None
        self.server = ThrowawayServer(
            options.binaries,
            base=self.directory,
            data_directory=self.data_directory,
            account=options.account,
        )
        self.server.log_path = os.path.join(self.directory, "server.log")

    def close(self) -> None:
        """Stop the server, remove the directory, and look that nothing is left."""
        self.server.keep = True  # it is counted and removed with everything else
        try:
            self.server.close()
        finally:
            self.cleanup = self._place.remove(*self._what_ended())

    def _what_ended(self) -> tuple[str, ...]:
        """Return what is not known to have ended; or nothing, and what was seen."""
        if self.server.confinement is None:
            return ()
        problem = self.server.confinement.what_is_left(self.server.report)
        ended = self.server.report.ended
        seen = "no file, process or mount of it is left"
        if ended:
            seen += f"; {ended} that had outlived the server had to be ended"
        return problem, seen

    @property
    def restore_command(self) -> str:
        """What the restore has to write as `restore_command`: it knows no secret."""
        return feeding_command(self._feed_directory)

    @property
    def _feed_directory(self) -> str:
        return os.path.join(self.directory, "wal")

    def tablespace_place(self, oid: int) -> str:
        """Return where a tablespace of production's goes."""
        return os.path.join(self.directory, "tablespaces", str(oid))

    def check_room(self, needed: int) -> None:
        """Refuse a restore of `needed` bytes that does not fit.

        Raises:
            NoSpace: it is more than the options allow, or than the disk has.
        """
        allowed = self._options.max_bytes
        if allowed is not None and needed > allowed:
            raise NoSpace(
                f"the restored cluster takes {needed} bytes; a scratch instance may "
                f"take {allowed}",
                hint="allow more in the policy, or verify a smaller backup",
            )
        status = os.statvfs(self.directory)
        free = status.f_bavail * status.f_frsize
        if needed > free:
            raise NoSpace(
                f"the restored cluster takes {needed} bytes, and the file system of "
                f"{self.directory} has {free} free",
                hint="free some room, or choose another scratch directory",
            )

    def recover(self, timeout: float, fetch: Callable[[str], bytes]) -> Recovered:
        """Recover to the target that the restore wrote, and end recovery.

        The server lives as long as the thread that calls this: where that ends without
        `close`, the kernel ends the server.

        Args:
            timeout: seconds until it must take writes.
            fetch: returns the content of an archived WAL file; called in this process,
                on several threads.

        Raises:
            DrkitError: as `fetch` does, but NotFound, which is the end of WAL.
            TargetUnreachable: WAL ends before the target.
            WalMissing: WAL ends before the end of the backup.
            PostgresRefused: anything else; the message has the end of the server's log.
        """
        tablespaces = os.path.dirname(self.tablespace_place(0))
        self.deviations = prepare(
            self.server,
            self.directory,
            (tablespaces, asking_place(self._feed_directory)),
            self._options.account,
            self._options.memory,
        )
        control = read_control(f"{self.data_directory}/global/pg_control")[0]
        account, size = self._options.account, control.wal_segment_size
        started = self._clock.now()
        with WalFeed(self._feed_directory, account, fetch, size) as feed:
            try:
                log = self._replay(timeout, feed)
            finally:
                self._tell_confinement()
        major = self._options.binaries.major
        self._login = find_login(self.data_directory, self.server.directory, major)
        prove_isolated(self._login)
        return self._recovered(log, started)

    def _tell_confinement(self) -> None:
        """Say what cuts the server off, and what this host lacks for it."""
        confinement, report = self.server.confinement, self.server.report
        if confinement is None or not report.told:
            return
        self.confined_by = confinement.means(report)
        self.deviations += tuple(confinement.lacking(report))

    @property
    def url(self) -> str:
        """The superuser's connection URL, through the socket; holds no secret."""
        assert self._login is not None, "the scratch instance has not recovered"
        return self._login.url()

    def connect(self, database: str = "") -> Connection:
        """Open a session of the superuser; by default in the database of `url`.

        Its search_path is `pg_catalog`: relations need their schema.

        Raises:
            PostgresUnreachable, PostgresRefused: as `connect` of
                `drkit.postgres.connection`.
        """
        assert self._login is not None, "the scratch instance has not recovered"
        return connect(self._login.url(database), None, "scratch")

    def _replay(self, timeout: float, feed: WalFeed) -> RecoveryLog:
        deadline = time.monotonic() + timeout
        try:
            self.server.launch()
            self.server.wait_until_primary(timeout)
        except PostgresRefused as error:
            if feed.error is not None:
                raise feed.error from error
            text, tail = self._log_text(), self.server.log_tail()
            if time.monotonic() < deadline:
                raise recovery_error(text, self.data_directory, tail) from error
            how_far = read_recovery_log(text).how_far
            raise PostgresRefused(
                f"the cluster in {self.data_directory} did not recover within "
                f"{timeout:g} s: {how_far}{tail}",
                hint="allow more time, or take backups more often: less WAL is to be "
                "replayed then",
            ) from error
        return read_recovery_log(self._log_text())

    def _log_text(self) -> str:
        try:
            with acting_as(owner_for(self._options.account)):
                text = Path(self.server.log_path).read_bytes()
            return text.decode("utf-8", "replace")
        except FileNotFoundError:
            return ""

    def _recovered(self, log: RecoveryLog, started: datetime) -> Recovered:
        control = read_control(f"{self.data_directory}/global/pg_control")[0]
        ended_on = self._timeline_before(control.timeline)
        return Recovered(
            started=log.started or started,
            replay_began=log.redo_began,
            replay_ended=log.redo_ended,
            promoted=log.recovered,
            ready=log.ready or self._clock.now(),
            reached_lsn=log.redo_done,
            reached_time=log.last_commit,
            timeline=ended_on,
            wal_segments=log.segments,
        )

    def _timeline_before(self, timeline: int) -> int:
        """Return the timeline that the promotion left."""
        path = Path(self.data_directory, "pg_wal", f"{timeline:08X}.history")
        if not path.exists():
            return timeline
        history = TimelineHistory.parse(timeline, read_text(str(path)))
        return history.switches[-1].timeline if history.switches else timeline
