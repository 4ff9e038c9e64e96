"""What archiving needs of a policy, ready for JSON.

PostgreSQL starts `wal push` for every segment; making whole policies of what the cache
holds would cost it more than the work itself.
"""

from __future__ import annotations

TYPE_CHECKING = False  # without importing typing
if TYPE_CHECKING:
    from typing import TypedDict

    from drkit.config.policy import Policy, S3Access

    class Compiled(TypedDict):
        """A policy's part that archiving needs; secrets as references.

        Attributes:
            path: the policy file, absolute.
            s3: endpoint_url and region as they are, both keys as references; only
                what the policy sets.
            keys: a reference per purpose, and per signing.
            trusted: public keys, `ed25519:` and 64 hexadecimal digits.
            wal_timeout: in seconds.
        """

        name: str
        path: str
        system_identifier: str
        data_directory: str | None
        repository_url: str
        s3: dict[str, str]
        key_provider: str
        keys: dict[str, str]
        trusted: list[str]
        compression_level: int
        wal_timeout: float


def compile_policy(policy: Policy) -> Compiled:
    """Return what archiving needs of a checked policy."""
    keys = policy.keys.by_purpose()
    return {
        "name": policy.name,
        "path": policy.path,
        "system_identifier": policy.cluster.system_identifier,
        "data_directory": policy.cluster.data_directory,
        "repository_url": policy.repository.url,
        "s3": _s3(policy.repository.s3),
        "key_provider": policy.keys.provider,
        "keys": {purpose: str(reference) for purpose, reference in keys.items()},
        "trusted": list(policy.keys.trusted),
        "compression_level": policy.backup.compression_level,
        "wal_timeout": policy.wal.timeout.total_seconds(),
    }


def _s3(access: S3Access | None) -> dict[str, str]:
    """Return what is set."""
    if access is None:
        return {}
    settings = {
        "endpoint_url": access.endpoint_url,
        "region": access.region,
        "access_key_id": access.access_key_id,
        "secret_access_key": access.secret_access_key,
    }
    return {name: str(one) for name, one in settings.items() if one is not None}
