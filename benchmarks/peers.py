"""The tools that are measured: what each runs to back up, to restore and to archive.

Every tool starts each round with an empty repository of its own, archives with its own
`archive_command`, and runs as the server's user.
"""
# ruff: noqa: D102  `Tool` says what the methods of each tool do

from __future__ import annotations

import json
import os
import secrets
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from cluster import file_sizes, version_of
from tool import PATH, Stored

import drkit
from drkit.postgres import process

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tool import Site

_ABSENT = "0000000F.history"
_PASSPHRASE_BYTES = 48
_BLOCKS_SINCE = (2, 46)


@dataclass(frozen=True)
class Drkit:
    """drkit with `source: local` and a key per purpose.

    Attributes:
        fingerprint: as in a policy; the peers take none.
    """

    site: Site
    name: str = "drkit"
    fingerprint: str = "off"

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
        verification = policy.setdefault("verification", {})
        verification["fingerprint"] = self.fingerprint
        verification["directory"] = f"{self.site.work}/scratch"
        path.write_text(yaml.safe_dump(policy))
        # the first command of the kind reads the policy and caches what it says
        absent = self._command("wal", "get", "--policy", "bench", _ABSENT, "absent")
        self.site.run(*absent, raising=None)
        return str(json.loads(made.stdout)["archive_command"])

    def backup(self) -> Sequence[str]:
        kind = ("--type", "full", "--jobs", str(self.site.jobs))
        return self._command("backup", "bench", *kind)

    def incremental(self) -> Sequence[str]:
        kind = ("--type", "incremental", "--jobs", str(self.site.jobs))
        return self._command("backup", "bench", *kind)

    def restore(self, target: str, label: str = "latest") -> Sequence[str]:
        jobs = ("--jobs", str(self.site.jobs))
        return self._command("restore", "bench", label, "--to", target, *jobs)

    def verification(self) -> Sequence[str]:
        """Return the command that restores the newest backup and proves it."""
        return self._command("verify", "bench", "latest", "--depth", "restore")

    def info(self) -> Sequence[str]:
        """Return the command that lists the backups as JSON."""
        return self._command("info", "bench", "--output", "json")

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

    def incremental(self) -> Sequence[str]:
        return self._command("backup", "--type=incr")

    def restore(self, target: str) -> Sequence[str]:
        return self._command("restore", f"--pg1-path={target}")

    def push(self, segment: str) -> Sequence[str]:
        return self._command("archive-push", segment)

    def stored(self) -> Stored:
        repository = Path(self.site.work, "pgbackrest", "repository")
        labels = Path(repository, "backup", "bench").glob("[0-9]*")
        backup = sum(_total(str(path)) for path in labels)
        return Stored(backup, _total(f"{repository}/archive"))

    def _command(self, verb: str, *arguments: str) -> list[str]:
        config = f"{self.site.work}/pgbackrest/pgbackrest.conf"
        program = (self.program, f"--config={config}", "--stanza=bench")
        return [*program, verb, *arguments]

    def _stores_blocks(self) -> bool:
        """Say whether this version knows block-incremental backups, as 2.46 does."""
        major, minor = self.version().split(".")[:2]
        return (int(major), int(minor)) >= _BLOCKS_SINCE

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
            *(("repo1-block=y",) if self._stores_blocks() else ()),
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
        if b"--with-zstd" in options and shutil.which("zstd", path=PATH):
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


def _total(directory: str) -> int:
    return sum(file_sizes(directory))
