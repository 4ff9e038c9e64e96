"""A policy as values: one cluster's what, where, how often, how long, how good.

`schema` reads and checks the file that says it, and turns it into these.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import timedelta

    from drkit.config.secrets import SecretReference
    from drkit.model.objectives import Objectives
    from drkit.model.retention import Retention
    from drkit.model.schedule import Schedule
    from drkit.model.verification import VerificationRules

MAX_DEFAULT_JOBS = 8
_WAL = "wal_signing"


def default_jobs() -> int:
    """Return how many CPUs this process may use, at most 8."""
    return min(len(os.sched_getaffinity(0)), MAX_DEFAULT_JOBS)


@dataclass(frozen=True, slots=True)
class ClusterAddress:
    """The cluster that is protected.

    Attributes:
        url: its connection address, without a password.
        data_directory: absolute; None where only the server knows it.
        system_identifier: in decimal.
    """

    url: str
    password: SecretReference | None
    data_directory: str | None
    system_identifier: str


@dataclass(frozen=True, slots=True)
class S3Access:
    """How to reach an S3 bucket; None where boto3's own search finds it."""

    endpoint_url: str | None
    region: str | None
    access_key_id: SecretReference | None
    secret_access_key: SecretReference | None


@dataclass(frozen=True, slots=True)
class RepositoryAddress:
    """Where backups and WAL are stored.

    Attributes:
        url: `file:///directory` or `s3://bucket/prefix`.
        s3: None with a directory, and where nothing is set.
    """

    url: str
    s3: S3Access | None


@dataclass(frozen=True, slots=True)
class KeyReferences:
    """Where the keys are.

    Attributes:
        provider: what wraps data keys: `local`.
        signing: the Ed25519 key that signs log entries and evidence.
        trusted: public keys, `ed25519:` and 64 hexadecimal digits.
        wal_signing: the Ed25519 key that signs WAL; None: WAL is not signed.
        trusted_wal: public keys whose signatures count on WAL.
    """

    provider: str
    backup: SecretReference
    wal: SecretReference
    dump: SecretReference
    files: SecretReference
    catalog: SecretReference
    signing: SecretReference
    trusted: tuple[str, ...]
    wal_signing: SecretReference | None
    trusted_wal: tuple[str, ...]

    def by_purpose(self) -> dict[str, SecretReference]:
        """Return every key's reference under what the key is for."""
        signing_wal = {} if self.wal_signing is None else {_WAL: self.wal_signing}
        return {
            "backup": self.backup,
            "wal": self.wal,
            "dump": self.dump,
            "files": self.files,
            "catalog": self.catalog,
            "signing": self.signing,
            **signing_wal,
        }


@dataclass(frozen=True, slots=True)
class BackupSchedules:
    """When each kind of backup is due; None: on demand only."""

    full: Schedule | None
    incremental: Schedule | None

    def by_kind(self) -> dict[str, Schedule]:
        """Return the schedules that there are under the kind of backup."""
        kinds = {"full": self.full, "incremental": self.incremental}
        return {kind: when for kind, when in kinds.items() if when is not None}


@dataclass(frozen=True, slots=True)
class BackupRules:
    """How backups are taken.

    Attributes:
        source: `local` or `stream`.
        jobs: parallel workers.
        compression_level: of zstd.
        wal_timeout: how long a backup waits for its WAL to be archived.
        audit_every: how often each unchanged file is compared in full.
        timezone: IANA name of the zone whose clock the schedule means.
    """

    source: str
    jobs: int
    compression_level: int
    wal_timeout: timedelta
    audit_every: timedelta
    timezone: str
    schedule: BackupSchedules


@dataclass(frozen=True, slots=True)
class HeartbeatRules:
    """How the age of recovered data is told.

    Attributes:
        every: how often a heartbeat is written.
        database: that has its table; None: the one of the cluster's address.
    """

    every: timedelta
    database: str | None


@dataclass(frozen=True, slots=True)
class WalRules:
    """How WAL is archived and fetched.

    Attributes:
        timeout: how long one push or get may try.
    """

    timeout: timedelta


@dataclass(frozen=True, slots=True)
class Policy:
    """One cluster's policy, complete and consistent.

    Attributes:
        path: absolute, of the file that it came from; empty if from none.
        owner: who can change that file: root, this user, or, where root reads it,
            another one, who owns all that it names.
    """

    name: str
    path: str
    cluster: ClusterAddress
    repository: RepositoryAddress
    keys: KeyReferences
    backup: BackupRules
    retention: Retention
    objectives: Objectives
    heartbeat: HeartbeatRules
    verification: VerificationRules
    wal: WalRules
    owner: int = 0
