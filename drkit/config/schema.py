"""A policy's file: one cluster's what, where, how often, how long, how good.

These read, check and describe it, and turn it into the values of `policy`.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Literal

from pydantic import (
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from drkit.config.addresses import (  # noqa: TC001  pydantic reads them
    ClusterSection,
    KeysSection,
    RepositorySection,
)
from drkit.config.consistency import contradictions
from drkit.config.fields import Duration, When, Zone  # noqa: TC001  as above
from drkit.config.policy import (
    BackupRules,
    BackupSchedules,
    HeartbeatRules,
    Policy,
    WalRules,
    default_jobs,
)
from drkit.config.section import Section
from drkit.config.verification import VerificationSection
from drkit.config.zones import read_zone
from drkit.model.objectives import Objectives
from drkit.model.retention import Retention


class ScheduleSection(Section):
    """When backups are due; a kind without a schedule is taken only on demand."""

    full: When | None = Field(
        None, description="When full backups are due.", examples=["sunday at 02:00"]
    )
    incremental: When | None = Field(
        None, description="When incremental backups are due.", examples=["hourly"]
    )

    def value(self) -> BackupSchedules:
        """Return the schedules as a plain value."""
        return BackupSchedules(**dict(self))


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

    def value(self) -> BackupRules:
        """Return the rules as a plain value."""
        return BackupRules(**{**dict(self), "schedule": self.schedule.value()})


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

    def value(self) -> HeartbeatRules:
        """Return the rules as a plain value."""
        return HeartbeatRules(**dict(self))


class WalSection(Section):
    """How WAL is archived and fetched."""

    timeout: Duration = Field(
        timedelta(seconds=60),
        description="How long one push or get may try before it gives up; PostgreSQL "
        "then asks again.",
        examples=["60 seconds"],
        json_schema_extra={"default": "1 minute"},
    )

    def value(self) -> WalRules:
        """Return the rules as a plain value."""
        return WalRules(**dict(self))


class PolicySchema(Section):
    """One cluster's policy, complete and consistent."""

    model_config = ConfigDict(title="Policy")

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

    def model_post_init(self, context: Any) -> None:
        """Remember the file, which the validation context names."""
        self._path = (context or {}).get("path", "")

    @model_validator(mode="after")
    def _consistent(self) -> PolicySchema:
        found = list(contradictions(self.model_dump(exclude_none=True), None))
        if found:
            raise ValueError(
                "; ".join(f"{'.'.join(path)}: {text}" for path, text in found)
            )
        return self

    def value(self) -> Policy:
        """Return the policy as a plain value."""
        sections = {name: section.value() for name, section in self if name != "name"}
        return Policy(name=self.name, path=self._path, **sections)
