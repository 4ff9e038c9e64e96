"""A policy that is about to be written: what `init` found out and decided."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class PolicyDraft:
    """What goes into a new policy.

    Attributes:
        url: the cluster's, without a password.
        data_directory: None where backups are streamed.
        key_paths: by purpose, `signing` and `wal_signing` included.
        public_key: the signing key's public half, as policies write it.
        wal_public_key: the same of the signing key of WAL.
        password: a reference to where the password is; None if none is needed.
        s3: fields of `repository.s3`, with references for secrets.
    """

    name: str
    url: str
    data_directory: str | None
    system_identifier: str
    repository_url: str
    key_paths: Mapping[str, str]
    public_key: str
    wal_public_key: str
    source: str
    password: str | None
    s3: Mapping[str, str]
