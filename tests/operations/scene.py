"""A place for tests of backup and restore: clusters, targets, the command line."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from unittest import mock

from drkit.cli import app
from tests.pg import give_to
from tests.protect import NAME, SETTINGS, Protected, protect

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.pg import Cluster, ClusterFactory

SMALL_SEGMENTS = 1 << 20


class Said(NamedTuple):
    """How a command ended, and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> dict[str, Any]:
        """The error as `--log-format json` tells it, on the last line."""
        found: dict[str, Any] = json.loads(self.err.splitlines()[-1])
        return found


@dataclass
class Scene:
    """Makes protected clusters and restores them; cleans up at its end."""

    factory: ClusterFactory
    clusters: list[Cluster] = field(default_factory=list)
    directories: list[Path] = field(default_factory=list)

    def __enter__(self) -> Scene:
        return self

    def __exit__(self, *_: object) -> None:
        for cluster in self.clusters:
            cluster.close()
        for directory in self.directories:
            shutil.rmtree(directory, ignore_errors=True)

    def protect(
        self,
        major: int,
        settings: Mapping[str, str] | None = None,
        *,
        source: str = "local",
        home: Path | None = None,
        signed: bool = True,
        **options: Any,
    ) -> Protected:
        """Make a cluster that archives into a repository of its own.

        Args:
            signed: as in `protect`.
        """
        options = {"wal_segment_size": SMALL_SEGMENTS, **options}
        chosen = SETTINGS | {"max_wal_size": "64MB", "min_wal_size": "2MB"}
        chosen |= {"log_checkpoints": "off", **(settings or {})}
        if options["wal_segment_size"] > SMALL_SEGMENTS:
            del chosen["max_wal_size"], chosen["min_wal_size"]
        cluster = self.factory.make(major, chosen, **options)
        self.clusters.append(cluster)
        place = home or self.directory()
        account = self.factory.account
        return protect(cluster, place, account, source=source, signed=signed)

    def directory(self) -> Path:
        """Make a directory that belongs to the server's user."""
        made = Path(tempfile.mkdtemp(prefix="d-", dir=self.factory.base))
        made.chmod(0o755)
        give_to(self.factory.account, made)
        self.directories.append(made)
        return made

    def target(self) -> Path:
        """Return a path to restore to; there is nothing yet."""
        return self.directory() / "restored"

    def serve(self, target: Path, major: int, **overrides: str) -> Cluster:
        """Return a server, not started, for a restored directory."""
        settings = {"archive_mode": "off"} | overrides
        cluster = self.factory.adopt(major, str(target), settings)
        self.clusters.append(cluster)
        return cluster

    def start(self, target: Path, major: int, **overrides: str) -> Cluster:
        """Start a server on a restored directory and wait until it takes writes."""
        cluster = self.serve(target, major, **overrides)
        cluster.start()
        cluster.wait_until_primary()
        return cluster


def drkit(protected: Protected, *arguments: str | Path) -> Said:
    """Run a command in this process: the whole command line, without its start."""
    words = [*map(str, arguments), "--policy-dir", str(protected.home)]
    out, err = io.StringIO(), io.StringIO()
    bare = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("DRKIT_")
    }
    with (
        mock.patch.dict(os.environ, bare, clear=True),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        code = app.run(words)
    return Said(code, out.getvalue(), err.getvalue())


def scratch_directory(protected: Protected) -> Path:
    return protected.home.parent / f"{protected.home.name}-scratch"


def rehearsing(protected: Protected) -> Protected:
    """Give a cluster's policy a place for scratch instances, and objectives."""
    place = str(scratch_directory(protected))

    def change(policy: dict[str, Any]) -> None:
        policy["verification"] = {"directory": place, "time_limit": "5 minutes"}
        policy["objectives"] = {"rto": "10 minutes", "rpo": "1 hour"}

    protected.change_policy(change)
    return protected


def restore(protected: Protected, to: Path, *options: str | Path) -> Said:
    """Run `drkit restore`, which must succeed."""
    said = drkit(protected, "restore", NAME, *options, "--to", to)
    assert said.code == 0, said.err
    return said


def refused(protected: Protected, to: Path, *options: str | Path) -> dict[str, Any]:
    """Run `drkit restore`, which must leave the target as it is; return the error."""
    before = snapshot(to)
    said = drkit(
        protected, "restore", NAME, *options, "--to", to, "--log-format", "json"
    )
    assert said.code != 0, said.out
    assert snapshot(to) == before
    return said.error


def backup(protected: Protected, source: str = "local") -> str:
    """Take a full backup by one of the two sources; return its label."""
    protected.change_policy(lambda policy: policy["backup"].update(source=source))
    said = drkit(protected, "backup", NAME, "--type", "full", "--output", "json")
    assert said.code == 0, said.err
    label: str = json.loads(said.out)["backup"]["label"]
    return label


def snapshot(path: Path) -> dict[str, tuple[int, int, int, bytes]]:
    """Return mode, owner and content of everything below a path."""
    found: dict[str, tuple[int, int, int, bytes]] = {}
    for each in [path, *path.rglob("*")] if path.exists() else []:
        status = each.lstat()
        content = each.read_bytes() if each.is_file() else b""
        owner = (status.st_mode, status.st_uid, status.st_gid)
        found[str(each)] = (*owner, content)
    return found
