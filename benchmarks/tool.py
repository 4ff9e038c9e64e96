"""What a tool is to the benchmark, and what all tools share."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from cluster import make_directory

from drkit.errors import DrkitError
from drkit.postgres import process

if TYPE_CHECKING:
    from collections.abc import Sequence

    from drkit.postgres.process import Completed, Identity
    from drkit.postgres.server import ThrowawayServer

PATH = process.DEFAULT_PATH


class Stored(NamedTuple):
    """Bytes that a tool's repository takes: of its one backup, and of the WAL."""

    backup: int
    wal: int


@dataclass(frozen=True)
class Site:
    """What all tools share.

    Attributes:
        work: the directory in which each has one of its name.
        jobs: parallel workers.
        level: of zstd compression.
    """

    work: str
    server: ThrowawayServer
    identity: Identity
    jobs: int
    level: int

    @property
    def environment(self) -> dict[str, str]:
        """What commands get: a home of their own, as a service's user has one."""
        home = f"{self.work}/home"
        own = {"HOME": home, "DRKIT_STATE_DIR": f"{home}/state"}
        return process.DEFAULT_ENVIRONMENT | own

    def run(
        self, *argv: str, raising: type[DrkitError] | None = DrkitError
    ) -> Completed:
        """Run a command as the server's user.

        Raises:
            DrkitError: it failed (as `raising`; None returns failures).
        """
        env = self.environment
        return process.run(argv, identity=self.identity, env=env, raising=raising)

    def archive_command(self, command: str) -> str:
        """Let the server give a command the environment that all others get."""
        return f"HOME={self.environment['HOME']} {command}"

    def fresh(self, *parts: str) -> str:
        """Make a directory for the server's user; what was there is gone."""
        path = os.path.join(self.work, *parts)
        shutil.rmtree(path, ignore_errors=True)
        make_directory(path, self.server.account)
        return path


class Tool(Protocol):
    """A tool, its empty repository and the commands that use it."""

    @property
    def name(self) -> str:
        """What `--tools` and the table call it."""

    def version(self) -> str:
        """Return the version as people write it."""

    def prepare(self) -> str:
        """Empty the repository and set it up; return the `archive_command`."""

    def backup(self) -> Sequence[str]:
        """Return the command that takes a full backup."""

    def restore(self, target: str) -> Sequence[str]:
        """Return the command that restores the backup into an empty directory."""

    def push(self, segment: str) -> Sequence[str] | None:
        """Return the command that archives a WAL segment; None if it has none."""

    def stored(self) -> Stored:
        """Measure the repository."""
