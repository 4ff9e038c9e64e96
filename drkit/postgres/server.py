"""Servers that live only for a while: for the demo, scratch instances and tests."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote

import drkit
from drkit.errors import DrkitError, PostgresRefused
from drkit.ownership import acting_as
from drkit.postgres import process
from drkit.postgres.configuration import quote_setting
from drkit.postgres.control import ClusterState, read_control
from drkit.postgres.files import NotRegular, read_text
from drkit.postgres.private_directory import make_socket_directory, owner_for
from drkit.postgres.sandbox.confinement import Report

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from drkit.postgres.binaries import ServerBinaries
    from drkit.postgres.process import Account, Completed, Identity
    from drkit.postgres.sandbox.confinement import Confined, Confinement

StopMode = Literal["smart", "fast", "immediate"]

_STOP_SIGNALS = {
    "smart": signal.SIGTERM,
    "fast": signal.SIGINT,
    "immediate": signal.SIGQUIT,
}
_PORT = 5432
_POLL = 0.01
_PATIENCE = 5.0  # seconds


@dataclass(frozen=True)
class ClusterOptions:
    """What `initdb` decides for good; `wal_segment_size` in bytes."""

    data_checksums: bool = True
    wal_segment_size: int = 16 << 20
    group_access: bool = False
    encoding: str = "UTF8"

    def arguments(self, major: int) -> list[str]:
        """Return these choices as `initdb` takes them."""
        arguments = [
            f"--wal-segsize={self.wal_segment_size >> 20}",
            f"--encoding={self.encoding}",
            "--locale=C",
        ]
        if self.data_checksums:
            arguments.append("--data-checksums")
        elif major >= 18:  # checksums became the default
            arguments.append("--no-data-checksums")
        if self.group_access:
            arguments.append("--allow-group-access")
        return arguments


@dataclass(eq=False)
class ThrowawayServer:
    """A server in a private directory, reached through a unix socket, then gone.

    Use it as a context manager: it ends with the server stopped and its directory
    removed, whatever happened inside. A data directory that was handed in stays.

    Attributes:
        binaries: whose programs run it.
        base: where its private directory is made; a short path, as a socket's path may
            have 107 bytes.
        data_directory: an existing data directory to run; by default a new one that
            `initdb` fills.
        settings: given on the server's command line at each start; they win over the
            configuration files, and `ALTER SYSTEM` can't change them.
        keep: leave the private directory behind at the end.
        account: whom the server runs as; by default this user, or as root `postgres`.
        confinement: what the server and its programs are given; None: all that their
            user has. Everything of somebody else's cluster runs confined.
        environment: what the server and its commands get beside a bare environment.
    """

    binaries: ServerBinaries
    base: str = "/tmp"  # noqa: S108 - a private directory is made in it
    data_directory: str = ""
    settings: dict[str, str] = field(default_factory=dict)
    keep: bool = False
    account: Account = field(default_factory=process.server_account)
    confinement: Confinement | None = None
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._confined: Confined | None = None
        self.directory = make_socket_directory(
            self.base, self.account, f".s.PGSQL.{_PORT}"
        )
        self.data_directory = self.data_directory or f"{self.directory}/data"
        self.log_path = f"{self.directory}/server.log"

    def __enter__(self) -> ThrowawayServer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the server without ceremony and remove its private directory.

        A server that is killed leaves its shared memory behind, so it is asked first.
        """
        self._end()
        if not self.keep:
            shutil.rmtree(self.directory, ignore_errors=True)

    def initdb(self, options: ClusterOptions | None = None) -> None:
        """Fill the data directory with a new cluster.

        Its superuser is `postgres`, without a password. Only connections through the
        unix socket are let in; root and the server's own user alone can reach that.

        Raises:
            DrkitError: `initdb` failed; says why.
        """
        chosen = options or ClusterOptions()
        self.run_tool(
            "initdb",
            f"--pgdata={self.data_directory}",
            "--username=postgres",
            "--auth-local=trust",
            "--auth-host=reject",
            "--no-sync",  # lost with the machine, like the rest of a throw-away
            *chosen.arguments(self.binaries.major),
        )

    def configure(self, settings: Mapping[str, str]) -> None:
        """Append settings to `postgresql.conf`; they take effect at the next start."""
        lines = [f"{name} = {quote_setting(text)}\n" for name, text in settings.items()]
        path = Path(self.data_directory, "postgresql.conf")
        with (
            acting_as(owner_for(self.account)),
            path.open("a", encoding="utf-8") as file,
        ):
            file.writelines(lines)

    def start(self, timeout: float = 60) -> None:
        """Start the server and wait until it lets connections in.

        Raises:
            PostgresRefused: it ended, or was not ready within `timeout` seconds (it is
                stopped then); the message holds the end of its log.
        """
        self.launch()
        if not self._wait_for(self._accepts_connections, timeout):
            self._give_up("did not start")

    def launch(self) -> None:
        """Start the server and return at once, as for a long recovery.

        Raises:
            DrkitError: it runs already, or its log can't be written.
        """
        if self.running:
            raise DrkitError(f"a server runs already in {self.data_directory}")
        argv = [self.binaries.tool("postgres"), "-D", self.data_directory]
        for name, value in (self._own_settings() | self.settings).items():
            argv += ["-c", f"{name}={value}"]
        flags = os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW
        try:
            with acting_as(owner_for(self.account)):
                descriptor = os.open(self.log_path, flags, 0o600)
        except OSError as error:
            raise DrkitError(
                f"can't write {self.log_path}: {error.strerror}"
            ) from error
        try:
            self._process = self._spawn(argv, descriptor)
        finally:
            os.close(descriptor)

    def _spawn(self, argv: list[str], output: int) -> subprocess.Popen[bytes]:
        if self.confinement is not None:
            self._confined = self.confinement.start(argv, output)
            return self._confined.outer
        environment = process.DEFAULT_ENVIRONMENT | dict(self.environment)
        return process.spawn(
            argv, identity=self._identity, env=environment, output=output
        )

    @property
    def _identity(self) -> Identity:
        """How programs get to be the server's user, where they are not confined."""
        own = os.path.join(*drkit.__path__, "errors.py")
        reach = (self.binaries.tool("postgres"), sys.executable, os.__file__, own)
        return process.drop_to(self.account, reach)

    def wait_until_primary(self, timeout: float = 60) -> None:
        """Wait until recovery has ended and the server takes writes.

        Raises:
            PostgresRefused: it ended, or is still in recovery after `timeout` seconds.
        """
        if not self._wait_for(self._is_primary, timeout):
            self._give_up("did not leave recovery")

    def wait_until_stopped(self, timeout: float = 60) -> int:
        """Wait until the server ends by itself and return its exit code.

        Raises:
            PostgresRefused: it still runs after `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while self.running:
            if time.monotonic() > deadline:
                self._give_up(f"did not stop within {timeout:g} s")
            time.sleep(_POLL)
        assert self._process is not None
        return self._process.returncode

    def stop(self, mode: StopMode = "fast", timeout: float = 60) -> None:
        """Stop the server in one of PostgreSQL's three ways; a stopped one stays so.

        Raises:
            PostgresRefused: it did not end in time; it is killed.
        """
        if self._process is not None and self.running:
            self._process.send_signal(_STOP_SIGNALS[mode])
            self.wait_until_stopped(timeout)

    def kill(self) -> None:
        """End the server and every process it started with SIGKILL, as a crash does.

        A confined one's launcher does that, and is killed only where it does not.
        """
        if self._process is None:
            return
        if self._confined is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_PATIENCE)
        children = _children(self._process.pid) if self.running else []
        process.kill_group(self._process)
        for child in children:  # each leads a session, so that it is a group as well
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
        self._process.wait()
        while any(_alive(child) for child in children):
            time.sleep(_POLL)

    def promote(self, timeout: float = 60) -> None:
        """End recovery and wait until the server takes writes.

        Raises:
            DrkitError: the server is not in recovery.
        """
        self.run_tool("pg_ctl", "promote", "-w", f"-D{self.data_directory}")
        self.wait_until_primary(timeout)

    def run_tool(
        self,
        name: str,
        *arguments: str,
        timeout: float | None = 120,
        raising: type[DrkitError] | None = DrkitError,
    ) -> Completed:
        """Run one of PostgreSQL's programs as the server's user.

        Args:
            raising: as for `process.run`.

        Raises:
            DrkitError: it failed; the message holds the end of its output.
        """
        argv = [self.binaries.tool(name), *arguments]
        if self.confinement is not None:
            confinement = self.confinement
            if name != "postgres":
                confinement = confinement.as_a_client
            return confinement.run(argv, timeout, raising)
        return process.run(
            argv, identity=self._identity, timeout=timeout, raising=raising
        )

    @property
    def running(self) -> bool:
        """Whether the server's first process is there."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process id of the postmaster that was started last."""
        assert self._process is not None, "the server was never started"
        return self.report.process

    @property
    def report(self) -> Report:
        """What is known of the postmaster, and of what confines it."""
        if self._confined is not None:
            return self._confined.report
        pid = 0 if self._process is None else self._process.pid
        return Report(process=pid, inside=pid)

    @property
    def url(self) -> str:
        """The connection URL of the superuser; holds no secret."""
        return f"postgresql://postgres@/postgres?host={quote(self.directory, safe='')}"

    def log_tail(self) -> str:
        """Return the last lines of the server's log, set off for use in a message."""
        try:
            with acting_as(owner_for(self.account)):
                return process.tail(Path(self.log_path).read_bytes())
        except FileNotFoundError:
            return ""

    def _own_settings(self) -> dict[str, str]:
        """Return what keeps the server in its directory, off the network."""
        return {
            "listen_addresses": "",
            "port": str(_PORT),
            "unix_socket_directories": self.directory,
            "logging_collector": "off",
            "log_destination": "stderr",
        }

    def _wait_for(self, condition: Callable[[], bool], timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        while self.running and time.monotonic() < deadline:
            if condition():
                return True
            time.sleep(_POLL)
        return False

    def _accepts_connections(self) -> bool:
        """Read what the postmaster says of itself, as `pg_ctl` does.

        Line 8 of `postmaster.pid` (`src/include/utils/pidfile.h`) is `ready` on hot
        standbys as well; line 1 tells a stale file of an earlier server apart.
        """
        try:
            text = read_text(f"{self.data_directory}/postmaster.pid")
        except (FileNotFoundError, NotRegular):
            return False
        lines, own = text.splitlines(), str(self.report.inside)
        return len(lines) >= 8 and lines[0] == own and "ready" in lines[7]

    def _is_primary(self) -> bool:
        path = f"{self.data_directory}/global/pg_control"
        in_production = read_control(path)[0].state is ClusterState.IN_PRODUCTION
        return in_production and self._accepts_connections()

    def _end(self) -> None:
        """Ask the server to go, which frees its shared memory, and see to it."""
        if self._process is not None and self.running:
            self._process.send_signal(_STOP_SIGNALS["immediate"])
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_PATIENCE)
        self.kill()

    def _give_up(self, what: str) -> None:
        self._end()
        raise PostgresRefused(
            f"the server in {self.data_directory} {what}{self.log_tail()}"
        )


def _children(pid: int) -> list[int]:
    """Return a process's children; none where there is no Linux `/proc`."""
    try:
        return [
            int(x) for x in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        ]
    except FileNotFoundError:
        return []


def _alive(pid: int) -> bool:
    """Say whether a process still runs; one that only waits to be reaped does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"
