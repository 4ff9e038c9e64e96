"""A protected cluster for tests: keys, a repository on disk, a policy."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from drkit import wiring
from drkit.config.loading import load_policy
from drkit.crypto.keys import PURPOSES, format_kek
from drkit.crypto.signing import Signer, format_public, format_signing_key
from drkit.model.log import Open
from drkit.repository.identity import create_identity
from drkit.storage.local import LocalStorage
from tests.pg import give_to, run_drkit

if TYPE_CHECKING:
    from drkit.postgres.process import Account, Completed
    from drkit.repository.repository import Repository

POLICY = """\
name: {name}
cluster:
  url: "{url}"
  data_directory: {data_directory}
  system_identifier: "{system}"
repository:
  url: file://{root}/repository
keys:
{keys}
  trusted: [{trusted}]
backup: {{jobs: 2, wal_timeout: {wal_timeout}}}
retention: {{full: 4}}
wal: {{timeout: {timeout}}}
"""


@dataclass(frozen=True)
class Site:
    """A directory with keys, policy and repository of one cluster."""

    root: Path
    name: str
    system: str

    @property
    def policy(self) -> Path:
        return self.root / "policies" / f"{self.name}.yaml"

    @property
    def wal(self) -> Path:
        return self.root / "repository" / self.name / "wal" / self.system

    def drkit(self, *arguments: str | Path, **options: object) -> Completed:
        """Run drkit with this site's policies."""
        env = {"DRKIT_POLICY_DIR": str(self.policy.parent)}
        env |= options.pop("env", None) or {}  # type: ignore[arg-type]
        return run_drkit(*arguments, env=env, **options)  # type: ignore[arg-type]

    def repository(self) -> Repository:
        policy = load_policy(self.policy, {})
        return wiring.open_repository(policy, wiring.Secrets(os.environ))


def make_site(
    root: Path,
    account: Account,
    *,
    system: str,
    name: str = "alpha",
    url: str = "postgresql:///postgres",
    data_directory: str = "/var/lib/nowhere",
    timeout: str = "60 seconds",
    wal_timeout: str = "60 seconds",
    segment_size: int = 16 << 20,
) -> Site:
    """Make everything that `drkit init` would, readable by `account`."""
    (root / "policies").mkdir()
    signer = os.urandom(32)
    keys = {purpose: format_kek(purpose, os.urandom(32)) for purpose in PURPOSES}
    keys["signing"] = format_signing_key(signer)
    for purpose, line in keys.items():
        path = root / f"{purpose}.key"
        path.write_text(line)
        path.chmod(0o600)
    site = Site(root, name, system)
    site.policy.write_text(
        POLICY.format(
            name=name,
            url=url,
            data_directory=data_directory,
            system=system,
            root=root,
            keys="\n".join(f"  {one}: file:{root}/{one}.key" for one in keys),
            trusted=f'"{format_public(Signer(signer).public)}"',
            timeout=timeout,
            wal_timeout=wal_timeout,
        )
    )
    storage = LocalStorage.create(root / "repository")
    create_identity(storage, datetime.now(UTC))
    site.repository().log.append(lambda _: Open(name, system, segment_size))
    give_to(account, root)
    return site
