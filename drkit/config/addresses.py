"""Sections of a policy that say where things are: cluster, repository, keys."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from drkit.config.environment import PREFIX, REFERENCE_PREFIX, SECRETS
from drkit.config.fields import (  # noqa: TC001  pydantic reads them
    AbsolutePath,
    DatabaseUrl,
    EndpointUrl,
    PublicKey,
    RepositoryUrl,
    SystemIdentifier,
)
from drkit.config.policy import (
    ClusterAddress,
    KeyReferences,
    RepositoryAddress,
    S3Access,
)
from drkit.config.secrets import SecretReference  # noqa: TC001  pydantic reads it
from drkit.config.section import Section


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

    def value(self) -> ClusterAddress:
        """Return it as a plain value."""
        return ClusterAddress(**dict(self))


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

    def value(self) -> S3Access:
        """Return it as a plain value."""
        return S3Access(**dict(self))


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

    def value(self) -> RepositoryAddress:
        """Return it as a plain value."""
        return RepositoryAddress(self.url, self.s3.value() if self.s3 else None)


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
        description="Ed25519 key that signs log entries and evidence.",
        examples=["file:/etc/drkit/keys/production/signing.key"],
    )
    trusted: tuple[PublicKey, ...] = Field(
        strict=False,
        min_length=1,
        max_length=64,
        description="Public keys whose signatures count; others are refused.",
        examples=[["ed25519:" + "0123456789abcdef" * 4]],
    )

    wal_signing: SecretReference | None = Field(
        None,
        description="Ed25519 key that signs WAL, and nothing else; without it WAL is "
        "archived unsigned.",
        examples=["file:/etc/drkit/keys/production/wal-signing.key"],
    )
    trusted_wal: tuple[PublicKey, ...] = Field(
        (),
        strict=False,
        max_length=64,
        description="Public keys whose signatures count on WAL; with any, `wal get` "
        "refuses WAL that is not signed.",
        examples=[["ed25519:" + "89abcdef01234567" * 4]],
    )

    @field_validator(
        "backup", "wal", "dump", "files", "catalog", "signing", "wal_signing"
    )
    @classmethod
    def _name(
        cls, value: SecretReference | None, info: ValidationInfo
    ) -> SecretReference | None:
        return value and _named(value, f"keys.{info.field_name}")

    def value(self) -> KeyReferences:
        """Return the references as a plain value."""
        return KeyReferences(**dict(self))
