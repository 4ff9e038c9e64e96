"""A real cluster with a policy, keys, a repository and archiving: ready to back up."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from drkit import wiring
from drkit.config.compiled import compile_policy
from drkit.config.loading import load_policy
from drkit.crypto.keys import PURPOSES, format_kek
from drkit.crypto.signing import Signer, format_public, format_signing_key
from drkit.model.log import Open
from drkit.model.log_wal import WalSigners
from drkit.repository.identity import create_identity
from drkit.storage.local import LocalStorage
from tests.pg import give_to, run_drkit

if TYPE_CHECKING:
    from collections.abc import Callable

    from drkit.config.policy import Policy
    from drkit.postgres.process import Account, Completed
    from drkit.repository.repository import Repository
    from tests.pg import Cluster

NAME = "main"
SETTINGS = {"archive_mode": "on", "wal_level": "replica", "max_wal_senders": "4"}


@dataclass
class Protected:
    """A cluster that archives into a repository of its own.

    Attributes:
        home: the directory of policy, keys and repository.
    """

    cluster: Cluster
    home: Path
    account: Account

    @property
    def policy_path(self) -> Path:
        return self.home / f"{NAME}.yaml"

    @property
    def repository_root(self) -> Path:
        return self.home / "repository"

    def policy(self) -> Policy:
        return load_policy(self.policy_path, {})

    def change_policy(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Edit the policy's content, as parsed."""
        found = yaml.safe_load(self.policy_path.read_text())
        change(found)
        self.policy_path.write_text(yaml.safe_dump(found))

    def repository(self) -> Repository:
        """Open the repository anew."""
        return wiring.open_repository(self.policy(), wiring.Secrets({}))

    def drkit(self, *arguments: str | Path, **options: Any) -> Completed:
        """Run a command; the policy directory is this one's."""
        return run_drkit(*arguments, "--policy-dir", self.home, **options)

    def json(self, *arguments: str | Path, **options: Any) -> dict[str, Any]:
        """Run a command that must succeed, and return its JSON."""
        done = self.drkit(*arguments, "--output", "json", **options)
        assert done.returncode == 0, done.stderr.decode()
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def backup(self, *options: str) -> str:
        """Take a full backup, or what the options say; return its label."""
        options = options if "--type" in options else ("--type", "full", *options)
        label: str = self.json("backup", NAME, *options)["backup"]["label"]
        return label

    def labels(self) -> list[str]:
        """Return the labels of the backups that are listed."""
        return [commit.backup.label for commit in self.repository().backups()]

    def archive_now(self, timeout: float = 60) -> str:
        """Switch WAL and wait until the segment is archived; return its name."""
        name = self.cluster.switch_wal()
        deadline = time.monotonic() + timeout
        waiting = Path(self.cluster.data_directory, "pg_wal/archive_status")
        while (waiting / f"{name}.ready").exists() or not (
            waiting / f"{name}.done"
        ).exists():
            assert time.monotonic() < deadline, self.cluster.log_tail()
            time.sleep(0.02)
        return name

    def restore(self, target: str | Path, *options: str | Path) -> Completed:
        """Restore into a directory, as the user who tests."""
        return self.drkit("restore", NAME, *options, "--to", target)


def protect(
    cluster: Cluster,
    home: Path,
    account: Account,
    *,
    source: str = "local",
    signed: bool = True,
) -> Protected:
    """Set up policy, keys and repository in `home`, and let the cluster archive.

    The cluster must run, with SETTINGS.

    Args:
        signed: False makes what there was before WAL was signed.
    """
    protected = Protected(cluster, home, account)
    system = cluster.sql("SELECT system_identifier::text FROM pg_control_system()")
    size = cluster.sql("SELECT bytes_per_wal_segment FROM pg_control_init()")
    policy = {
        "name": NAME,
        "cluster": {
            "url": cluster.url,
            "data_directory": str(cluster.data_directory),
            "system_identifier": system,
        },
        "repository": {"url": f"file://{protected.repository_root}"},
        "keys": make_keys(home / "keys", signed=signed),
        "backup": {"source": source, "jobs": 2, "wal_timeout": "1 minute"},
        "retention": {"full": 2},
        "wal": {"timeout": "10 seconds"},
    }
    protected.policy_path.write_text(yaml.safe_dump(policy))
    LocalStorage.create(str(protected.repository_root))
    give_to(account, home)
    _open_log(protected.policy(), system, size)
    give_to(account, home)
    command = wiring.archive_command(str(protected.policy_path))
    cluster.rows(f"ALTER SYSTEM SET archive_command = '{command}'")
    cluster.rows("SELECT pg_reload_conf()")
    return protected


def make_keys(directory: Path, *, signed: bool = True) -> dict[str, Any]:
    """Write a set of key files; return a policy's `keys`."""
    directory.mkdir()
    references: dict[str, Any] = {}
    for purpose in PURPOSES:
        path = directory / f"{purpose}.key"
        _write_private(path, format_kek(purpose, os.urandom(32)))
        references[purpose] = f"file:{path}"
    signing = [("signing", "trusted"), ("wal_signing", "trusted_wal")]
    for purpose, pins in signing if signed else signing[:1]:
        path, seed = directory / f"{purpose.replace('_', '-')}.key", os.urandom(32)
        _write_private(path, format_signing_key(seed))
        references[purpose] = f"file:{path}"
        references[pins] = [format_public(Signer(seed).public)]
    return references


def _write_private(path: Path, text: str) -> None:
    path.touch(0o600)
    path.write_text(text)


def _open_log(policy: Policy, system: str, size: int) -> None:
    secrets = wiring.Secrets({})
    store = wiring.storage(compile_policy(policy), secrets, 10)
    create_identity(store, wiring.SystemClock().now())
    repository = wiring.open_repository(policy, secrets)
    repository.log.append(lambda _: Open(NAME, system, size))
    signers = WalSigners(policy.keys.trusted_wal, ())
    if signers.signers:
        repository.log.append(lambda _: signers)
