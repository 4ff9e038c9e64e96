"""A policy: one cluster's file that says what, where, how often, how long, how good."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Literal

from pydantic import (
    Field,
    PrivateAttr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from drkit.config.consistency import contradictions
from drkit.config.environment import PREFIX, REFERENCE_PREFIX, SECRETS
from drkit.config.fields import (
    AbsolutePath,
    DatabaseUrl,
    Duration,
    EndpointUrl,
    PublicKey,
    RepositoryUrl,
    SystemIdentifier,
    When,
    Zone,
    read_zone,
)
from drkit.config.secrets import SecretReference  # noqa: TC001  pydantic reads it
from drkit.config.section import Section, default_jobs
from drkit.config.verification import VerificationSection
from drkit.model.objectives import Objectives
from drkit.model.retention import Retention


def _named(reference: SecretReference, field: str) -> SecretReference:
    """Tell a reference which field it is in; refuse drkit's own settings as secrets."""
    variable = reference.target if reference.scheme == "env" else ""
    free = not variable.startswith(PREFIX) or variable.startswith(REFERENCE_PREFIX)
    if not free and variable not in SECRETS:
        raise ValueError(
            f"names a variable that could be one of drkit's settings; "
            f"begin its name with {REFERENCE_PREFIX}"
        )
    return reference.named(field)


class ClusterSection(Section):
    """The PostgreSQL cluster that is protected."""

    url: DatabaseUrl = Field(
        description="Connection address of the cluster, without a password.",
        examples=["postgresql://drkit@/postgres?host=/var/run/postgresql"],
    )
    password: SecretReference | None = Field(
        None,
        description="Where the password is, if the connection needs one.",
        examples=["env:DRKIT_DATABASE_PASSWORD"],
    )
    data_directory: AbsolutePath | None = Field(
        None,
        description="The data directory; needed where backup.source is local.",
        examples=["/var/lib/postgresql/15/main"],
    )
    system_identifier: SystemIdentifier = Field(
        description="The cluster's system identifier, so that no other cluster is "
        "taken for it.",
        examples=["7412345678901234567"],
    )

    @field_validator("password")
    @classmethod
    def _name(
        cls, value: SecretReference | None, info: ValidationInfo
    ) -> SecretReference | None:
        return value and _named(value, f"cluster.{info.field_name}")


class S3Section(Section):
    """How to reach an S3 bucket; without keys, boto3's own search finds them."""

    endpoint_url: EndpointUrl | None = Field(
        None,
        description="Address of an S3 server other than Amazon's.",
        examples=["https://minio.example.net:9000"],
    )
    region: str | None = Field(
        None,
        pattern=r"^[a-z0-9-]{1,64}$",
        description="Region of the bucket.",
        examples=["eu-central-1"],
    )
    access_key_id: SecretReference | None = Field(
        None,
        description="Where the access key id is.",
        examples=["env:DRKIT_S3_ACCESS_KEY_ID"],
    )
    secret_access_key: SecretReference | None = Field(
        None,
        description="Where the secret access key is.",
        examples=["env:DRKIT_S3_SECRET_ACCESS_KEY"],
    )

    @field_validator("access_key_id", "secret_access_key")
    @classmethod
    def _name(
        cls, value: SecretReference | None, info: ValidationInfo
    ) -> SecretReference | None:
        return value and _named(value, f"repository.s3.{info.field_name}")


class RepositorySection(Section):
    """Where backups and WAL are stored."""

    url: RepositoryUrl = Field(
        description="Address of the repository: a directory or an S3 bucket.",
        examples=["file:///srv/drkit", "s3://bucket/prefix"],
    )
    s3: S3Section | None = Field(
        None,
        description="How to reach the bucket; only with an s3:// address.",
        examples=[{"region": "eu-central-1"}],
    )


class KeysSection(Section):
    """Where the keys are; every purpose has its own."""

    provider: Literal["local"] = Field(
        "local",
        description="What wraps data keys: local key files.",
        examples=["local"],
    )
    backup: SecretReference = Field(
        description="Key-encrypting key of backups.",
        examples=["file:/etc/drkit/keys/production/backup.key"],
    )
    wal: SecretReference = Field(
        description="Key-encrypting key of WAL.",
        examples=["file:/etc/drkit/keys/production/wal.key"],
    )
    dump: SecretReference = Field(
        description="Key-encrypting key of dumps.",
        examples=["file:/etc/drkit/keys/production/dump.key"],
    )
    files: SecretReference = Field(
        description="Key-encrypting key of file sets.",
        examples=["file:/etc/drkit/keys/production/files.key"],
    )
    catalog: SecretReference = Field(
        description="Key-encrypting key of manifests and the log.",
        examples=["file:/etc/drkit/keys/production/catalog.key"],
    )
    signing: SecretReference = Field(
        description="Ed25519 key that signs manifests, log entries and evidence.",
        examples=["file:/etc/drkit/keys/production/signing.key"],
    )
    trusted: tuple[PublicKey, ...] = Field(
        strict=False,
        min_length=1,
        max_length=64,
        description="Public keys whose signatures count; others are refused.",
        examples=[["ed25519:" + "0123456789abcdef" * 4]],
    )

    @field_validator("backup", "wal", "dump", "files", "catalog", "signing")
    @classmethod
    def _name(cls, value: SecretReference, info: ValidationInfo) -> SecretReference:
        return _named(value, f"keys.{info.field_name}")


class ScheduleSection(Section):
    """When backups are due; a kind without a schedule is taken only on demand."""

    full: When | None = Field(
        None, description="When full backups are due.", examples=["sunday at 02:00"]
    )
    incremental: When | None = Field(
        None, description="When incremental backups are due.", examples=["hourly"]
    )


class BackupSection(Section):
    """How backups are taken."""

    source: Literal["local", "stream"] = Field(
        "local",
        description="local reads the data directory on the database's host; stream "
        "takes what a replication connection sends.",
        examples=["local"],
    )
    jobs: int = Field(
        default_factory=default_jobs,
        ge=1,
        le=64,
        description="Parallel workers; by default the CPUs drkit may use, at most 8.",
        examples=[2],
    )
    compression_level: int = Field(
        3, ge=1, le=19, description="Level of zstd compression.", examples=[3]
    )
    wal_timeout: Duration = Field(
        timedelta(minutes=10),
        description="How long a backup waits for the WAL it needs to be archived.",
        examples=["10 minutes"],
        json_schema_extra={"default": "10 minutes"},
    )
    audit_every: Duration = Field(
        timedelta(days=7),
        description="How often each file that incremental backups find unchanged is "
        "compared with the backup in full.",
        examples=["7 days"],
        json_schema_extra={"default": "7 days"},
    )
    timezone: Zone = Field(
        "UTC",
        description="IANA name of the zone whose clock the schedule means.",
        examples=["Europe/Berlin"],
    )
    schedule: ScheduleSection = Field(
        default_factory=ScheduleSection,
        description="When backups are due.",
        examples=[{"full": "sunday at 02:00", "incremental": "hourly"}],
    )

    @field_validator("schedule")
    @classmethod
    def _bind_zone(
        cls, schedule: ScheduleSection, info: ValidationInfo
    ) -> ScheduleSection:
        """Let the schedules mean the clock of `timezone`."""
        zone = read_zone(info.data.get("timezone", "UTC"))
        bound = {name: when.in_zone(zone) for name, when in schedule if when}
        return schedule.model_copy(update=bound)


class RetentionSection(Section):
    """How long backups are kept: whatever any rule keeps is kept."""

    full: int | None = Field(
        None, ge=1, description="Keep so many newest full backups.", examples=[4]
    )
    window: Duration | None = Field(
        None,
        description="Keep what recovery to any moment this far back needs.",
        examples=["30 days"],
    )
    daily: int | None = Field(
        None, ge=1, description="Keep one backup of so many days.", examples=[7]
    )
    weekly: int | None = Field(
        None, ge=1, description="Keep one backup of so many weeks.", examples=[5]
    )
    monthly: int | None = Field(
        None, ge=1, description="Keep one backup of so many months.", examples=[12]
    )
    yearly: int | None = Field(
        None, ge=1, description="Keep one backup of so many years.", examples=[2]
    )
    wal_window: Duration | None = Field(
        None,
        description="How far back any moment can be recovered to; by default as far "
        "as backups reach.",
        examples=["14 days"],
    )
    max_deletions: int = Field(
        100,
        ge=1,
        description="How many backups one `drkit expire` deletes at most; the rest "
        "waits for the next.",
        examples=[100],
    )

    def value(self) -> Retention:
        """Return the rules as a plain value."""
        return Retention(**dict(self))


class ObjectivesSection(Section):
    """How good recovery has to be; verifications and drills measure it."""

    rto: Duration | None = Field(
        None,
        description="Recovery time objective: how long a recovery may take.",
        examples=["15 minutes"],
    )
    rpo: Duration | None = Field(
        None,
        description="Recovery point objective: how old recovered data may be.",
        examples=["5 minutes"],
    )

    def value(self) -> Objectives:
        """Return the objectives as a plain value."""
        return Objectives(**dict(self))


class HeartbeatSection(Section):
    """A row that is written in production, and read back from what is restored."""

    every: Duration = Field(
        timedelta(minutes=1),
        description="How often a timer runs `drkit heartbeat`; one that is older than "
        "twice this was not kept up.",
        examples=["1 minute"],
        json_schema_extra={"default": "1 minute"},
    )
    database: str | None = Field(
        None,
        min_length=1,
        max_length=63,
        description="The database that has its table; by default that of cluster.url.",
        examples=["postgres"],
    )


class WalSection(Section):
    """How WAL is archived and fetched."""

    timeout: Duration = Field(
        timedelta(seconds=60),
        description="How long one push or get may try before it gives up; PostgreSQL "
        "then asks again.",
        examples=["60 seconds"],
        json_schema_extra={"default": "1 minute"},
    )


class Policy(Section):
    """One cluster's policy, complete and consistent."""

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$",
        description="What the policy is called on the command line and in the "
        "repository.",
        examples=["production"],
    )
    cluster: ClusterSection = Field(
        description="The PostgreSQL cluster that is protected.",
        examples=[{"url": "postgresql://drkit@/postgres"}],
    )
    repository: RepositorySection = Field(
        description="Where backups and WAL are stored.",
        examples=[{"url": "file:///srv/drkit"}],
    )
    keys: KeysSection = Field(
        description="Where the keys are; every purpose has its own.",
        examples=[{"backup": "file:/etc/drkit/keys/production/backup.key"}],
    )
    backup: BackupSection = Field(
        default_factory=BackupSection,
        description="How backups are taken.",
        examples=[{"source": "local"}],
    )
    retention: RetentionSection = Field(
        description="How long backups are kept: whatever any rule keeps is kept.",
        examples=[{"full": 4}],
    )
    objectives: ObjectivesSection = Field(
        default_factory=ObjectivesSection,
        description="How good recovery has to be.",
        examples=[{"rto": "15 minutes", "rpo": "5 minutes"}],
    )
    heartbeat: HeartbeatSection = Field(
        default_factory=HeartbeatSection,
        description="How the age of recovered data is told.",
        examples=[{"every": "1 minute"}],
    )
    verification: VerificationSection = Field(
        default_factory=VerificationSection,
        description="How backups are proven by restoring them.",
        examples=[{"every": "1 day"}],
    )
    wal: WalSection = Field(
        default_factory=WalSection,
        description="How WAL is archived and fetched.",
        examples=[{"timeout": "60 seconds"}],
    )
    _path: str = PrivateAttr("")

    @property
    def path(self) -> str:
        """Return the absolute path of the file this came from; empty if from none."""
        return self._path

    def model_post_init(self, context: Any) -> None:
        """Remember the file, which the validation context names."""
        self._path = (context or {}).get("path", "")

    @model_validator(mode="after")
    def _consistent(self) -> Policy:
        found = list(contradictions(self.model_dump(exclude_none=True), None))
        if found:
            raise ValueError(
                "; ".join(f"{'.'.join(path)}: {text}" for path, text in found)
            )
        return self
