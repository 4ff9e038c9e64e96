"""The tools that are measured: what each runs to back up, to restore and to archive.

Every tool starts each round with an empty repository of its own, archives with its own
`archive_command`, and runs as the server's user.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import yaml
from cluster import file_sizes, make_directory, version_of

import drkit
from drkit.errors import DrkitError, NotFound
from drkit.postgres import process
from drkit.postgres.binaries import ServerBinaries
from drkit.postgres.server import ThrowawayServer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from drkit.postgres.process import Completed, Identity

NAMES = ("drkit", "pgbackrest", "pg_basebackup", "cp")
OLDEST_MAJOR = 13
_PASSPHRASE_BYTES = 48
_PATH = process.DEFAULT_PATH


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

    def run(self, *argv: str) -> Completed:
        """Run a command as the server's user.

        Raises:
            DrkitError: it failed.
        """
        return process.run(argv, identity=self.identity)

    def fresh(self, *parts: str) -> str:
        """Make a directory for the server's user; what was there is gone."""
        path = os.path.join(self.work, *parts)
        shutil.rmtree(path, ignore_errors=True)
        make_directory(path, self.server.account)
        return path


class Tool(Protocol):
    """A tool, its empty repository and the commands that use it."""

    name: str

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


@dataclass(frozen=True)
class Drkit:
    """drkit with `source: local` and a key per purpose."""

    site: Site
    name: str = "drkit"

    def version(self) -> str:
        return drkit.__version__

    def prepare(self) -> str:
        base = self.site.fresh("drkit")
        policies = self.site.fresh("drkit", "policies")
        made = self.site.run(
            *self._command("init", "bench", "--url", self.site.server.url),
            *("--repository", f"file://{base}/repository"),
            *("--output", "json"),
        )
        path = Path(policies, "bench.yaml")
        policy = yaml.safe_load(path.read_text())
        policy.setdefault("backup", {})["compression_level"] = self.site.level
        path.write_text(yaml.safe_dump(policy))
        return str(json.loads(made.stdout)["archive_command"])

    def backup(self) -> Sequence[str]:
        kind = ("--type", "full", "--jobs", str(self.site.jobs))
        return self._command("backup", "bench", *kind)

    def restore(self, target: str) -> Sequence[str]:
        jobs = ("--jobs", str(self.site.jobs))
        return self._command("restore", "bench", "--to", target, *jobs)

    def push(self, segment: str) -> Sequence[str]:
        return self._command("wal", "push", "--policy", "bench", segment)

    def stored(self) -> Stored:
        repository = f"{self.site.work}/drkit/repository/bench"
        return Stored(_total(f"{repository}/backups"), _total(f"{repository}/wal"))

    def _command(self, *arguments: str) -> list[str]:
        words = 2 if arguments[0] == "wal" else 1
        where = ("--policy-dir", f"{self.site.work}/drkit/policies")
        command = (*arguments[:words], *where, *arguments[words:])
        return [sys.executable, "-m", "drkit", *command]


@dataclass(frozen=True)
class PgBackRest:
    """pgBackRest with its AES-256-CBC, and files bundled as its guide recommends."""

    site: Site
    program: str
    name: str = "pgbackrest"

    def version(self) -> str:
        return self.site.run(self.program, "version").stdout.decode().split()[-1]

    def prepare(self) -> str:
        base = self.site.fresh("pgbackrest")
        for part in ("repository", "lock", "log", "spool"):
            self.site.fresh("pgbackrest", part)
        config = Path(base, "pgbackrest.conf")
        config.touch(mode=0o600)
        config.write_text(self._configuration(base))
        os.chown(config, self.site.server.account.uid, self.site.server.account.gid)
        self.site.run(*self._command("stanza-create"))
        return " ".join([*self._command("archive-push"), "%p"])

    def backup(self) -> Sequence[str]:
        return self._command("backup", "--type=full")

    def restore(self, target: str) -> Sequence[str]:
        return self._command("restore", f"--pg1-path={target}")

    def push(self, segment: str) -> Sequence[str]:
        return self._command("archive-push", segment)

    def stored(self) -> Stored:
        repository = Path(self.site.work, "pgbackrest", "repository")
        labels = Path(repository, "backup", "bench").glob("*F")
        backup = sum(_total(str(path)) for path in labels)
        return Stored(backup, _total(f"{repository}/archive"))

    def _command(self, verb: str, *arguments: str) -> list[str]:
        config = f"{self.site.work}/pgbackrest/pgbackrest.conf"
        program = (self.program, f"--config={config}", "--stanza=bench")
        return [*program, verb, *arguments]

    def _configuration(self, base: str) -> str:
        server = self.site.server
        lines = (
            "[global]",
            f"repo1-path={base}/repository",
            "repo1-bundle=y",
            "repo1-cipher-type=aes-256-cbc",
            f"repo1-cipher-pass={secrets.token_urlsafe(_PASSPHRASE_BYTES)}",
            "repo1-retention-full=1",
            "compress-type=zst",
            f"compress-level={self.site.level}",
            f"process-max={self.site.jobs}",
            "start-fast=y",
            "log-level-console=warn",
            f"log-path={base}/log",
            f"lock-path={base}/lock",
            f"spool-path={base}/spool",
            "[bench]",
            f"pg1-path={server.data_directory}",
            f"pg1-socket-path={server.directory}",
            "pg1-port=5432",
            "pg1-user=postgres",
        )
        return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class PgBaseBackup:
    """pg_basebackup: compressed tar archives, not encrypted; the server reads."""

    site: Site
    name: str = "pg_basebackup"

    def version(self) -> str:
        return version_of(self.site.server.binaries, self.name)

    def prepare(self) -> str:
        self.site.fresh("pg_basebackup")
        return "true"

    def backup(self) -> Sequence[str]:
        return [
            self.site.server.binaries.tool(self.name),
            f"--dbname={self.site.server.url}",
            f"--pgdata={self._directory}",
            "--format=tar",
            "--wal-method=stream",
            "--checkpoint=fast",
            f"--compress={self._compression()}",
        ]

    def restore(self, target: str) -> Sequence[str]:
        script = (
            'tar -xf "$1"/base.tar* -C "$2" && tar -xf "$1"/pg_wal.tar* -C "$2/pg_wal" '
            '&& sync -f "$2"'
        )
        return ["sh", "-c", script, "untar", self._directory, target]

    def push(self, segment: str) -> None:  # noqa: ARG002  it archives nothing
        return None

    def stored(self) -> Stored:
        wal = sum(path.stat().st_size for path in Path(self._directory).glob("pg_wal*"))
        return Stored(_total(self._directory) - wal, wal)

    @property
    def _directory(self) -> str:
        return f"{self.site.work}/pg_basebackup"

    def _compression(self) -> str:
        """Return zstd with workers where server and tar know it (15 and later)."""
        binaries = self.site.server.binaries
        if binaries.major < 15:
            return "6"
        options = process.run([binaries.tool("pg_config"), "--configure"]).stdout
        if b"--with-zstd" in options and shutil.which("zstd", path=_PATH):
            return f"client-zstd:level={self.site.level},workers={self.site.jobs}"
        return "client-gzip:level=6"


@dataclass(frozen=True)
class Copy:
    """`cp -r` and `sync`: no backup of a live cluster, but the floor for any."""

    site: Site
    name: str = "cp"

    def version(self) -> str:
        return process.run(["cp", "--version"]).stdout.decode().split()[3]

    def prepare(self) -> str:
        for part in ("", "copy", "wal"):
            self.site.fresh("cp", part)
        return "true"

    def backup(self) -> Sequence[str]:
        return self._copy(self.site.server.data_directory, self._directory)

    def restore(self, target: str) -> Sequence[str]:
        return self._copy(self._directory, target)

    def push(self, segment: str) -> Sequence[str]:
        target = f"{self.site.work}/cp/wal/{os.path.basename(segment)}"
        return ["sh", "-c", 'cp "$1" "$2" && sync "$2"', "cp", segment, target]

    def stored(self) -> Stored:
        wal = _total(f"{self._directory}/pg_wal")
        return Stored(_total(self._directory) - wal, wal)

    @property
    def _directory(self) -> str:
        return f"{self.site.work}/cp/copy"

    @staticmethod
    def _copy(source: str, target: str) -> Sequence[str]:
        script = 'cp -r "$1/." "$2" && sync -f "$2"'
        return ["sh", "-c", script, "cp", source, target]


def find_pgbackrest() -> str | None:
    """Return pgBackRest's path, if it is installed."""
    return shutil.which("pgbackrest", path=_PATH)


def choose_tools(site: Site, wanted: Sequence[str] | None) -> list[Tool]:
    """Return the tools that are wanted, or all that are installed.

    Raises:
        DrkitError: one that is wanted is not installed.
    """
    program = find_pgbackrest()
    every: dict[str, Tool] = {"drkit": Drkit(site)}
    if program is not None:
        every["pgbackrest"] = PgBackRest(site, program)
    if os.path.exists(os.path.join(site.server.binaries.directory, "pg_basebackup")):
        every["pg_basebackup"] = PgBaseBackup(site)
    every["cp"] = Copy(site)
    missing = [name for name in wanted or () if name not in every]
    if missing:
        raise DrkitError(f"not installed here: {', '.join(missing)}")
    return [tool for name, tool in every.items() if wanted is None or name in wanted]


def newest_supported(
    identity: Identity, wanted: Sequence[str] | None
) -> ServerBinaries:
    """Return the newest installed PostgreSQL that pgBackRest, if it runs, knows.

    Raises:
        NotFound: no PostgreSQL that it knows is installed.
    """
    runs = wanted is None or "pgbackrest" in wanted
    program = find_pgbackrest() if runs else None
    newest = ServerBinaries.locate()
    for major in range(newest.major, OLDEST_MAJOR - 1, -1):
        with contextlib.suppress(NotFound):
            binaries = ServerBinaries.locate(major)
            if program is None or _is_known(program, binaries, identity):
                return binaries
    raise NotFound(
        "pgBackRest knows none of the PostgreSQL versions that are installed here",
        hint="choose one with --postgres-bin, and leave pgbackrest out of --tools",
    )


def _is_known(program: str, binaries: ServerBinaries, identity: Identity) -> bool:
    """Let pgBackRest itself say whether it knows a version."""
    with ThrowawayServer(binaries) as server:
        server.initdb()
        paths = (f"--{name}-path={server.directory}" for name in ("lock", "log"))
        repository = f"--repo1-path={server.directory}/repository"
        cluster = f"--pg1-path={server.data_directory}"
        options = ("--stanza=probe", repository, cluster, *paths, "--no-online")
        command = [program, *options, "stanza-create"]
        return process.run(command, identity=identity, raising=None).returncode == 0


def _total(directory: str) -> int:
    return sum(file_sizes(directory))
