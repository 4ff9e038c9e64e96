"""A protected cluster for tests: keys, a repository on disk, a policy."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from drkit import wiring
from drkit.config.loading import load_policy
from drkit.crypto.keys import PURPOSES, format_kek
from drkit.crypto.signing import Signer, format_public, format_signing_key
from drkit.model.log import Open
from drkit.model.wal import Segment
from drkit.postgres.walfile import LONG_HEADER
from drkit.repository.identity import create_identity
from drkit.storage.local import LocalStorage
from tests.pg import Cluster, give_to, run_drkit

if TYPE_CHECKING:
    from pathlib import Path

    from drkit.postgres.process import Account, Completed
    from drkit.repository.repository import Repository

SYSTEM = "7700000000000000001"
SEGMENT = 1 << 20
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
    segment_size: int = SEGMENT,
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
    give_to(account, root)
    site.repository().log.append(lambda _: Open(name, system, segment_size))
    give_to(account, root)
    return site


@dataclass(frozen=True)
class ServedSite:
    """A site and its running server."""

    site: Site
    cluster: Cluster

    def archive_now(self) -> str:
        """End the current segment and wait until it is archived; return its name."""
        name = self.cluster.switch_wal()
        archived = f"SELECT last_archived_wal >= '{name}' FROM pg_stat_archiver"
        deadline = time.monotonic() + 30
        while not self.cluster.sql(archived):
            assert time.monotonic() < deadline, self.cluster.sql(
                "SELECT pg_stat_archiver::text FROM pg_stat_archiver"
            )
            time.sleep(0.05)
        return name


def serve_site(cluster: Cluster, root: Path, account: Account) -> ServedSite:
    """Make a site for a running server and switch its archiving on."""
    system, size = cluster.rows(
        "SELECT system_identifier::text, bytes_per_wal_segment "
        "FROM pg_control_system(), pg_control_init()"
    )[0]
    site = make_site(
        root,
        account,
        system=system,
        url=cluster.url,
        data_directory=cluster.data_directory,
        segment_size=size,
    )
    command = wiring.archive_command(str(site.policy)).replace("'", "''")
    cluster.sql(f"ALTER SYSTEM SET archive_command = '{command}'")
    cluster.sql("SELECT pg_reload_conf()")
    return ServedSite(site, cluster)


def segment_name(number: int, timeline: int = 1, size: int = SEGMENT) -> str:
    return Segment(timeline, number).name(size)


def segment(
    number: int, *, timeline: int = 1, system: str = SYSTEM, fill: bytes = b"\0"
) -> bytes:
    """A WAL segment of version 18, as far as its first page's header goes."""
    start = Segment(timeline, number).start(SEGMENT)
    head = LONG_HEADER.pack(0xD118, 2, timeline, start, 0, int(system), SEGMENT, 8192)
    return head + fill * (SEGMENT - len(head))
