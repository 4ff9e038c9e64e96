"""What archiving needs of a policy, ready for JSON.

PostgreSQL starts `wal push` for every segment; making whole policies of what the cache
holds would cost it more than the work itself.
"""

from __future__ import annotations

from drkit.config.repository_url import split_repository_url
from drkit.config.trust import Exposed, believed_users, refuse_another_s
from drkit.errors import PolicyError

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
            keys: a reference per purpose, and per kind of signing.
            trusted, trusted_wal: public keys, `ed25519:` and 64 hexadecimal digits.
            wal_timeout: in seconds.
            owner: as `Policy.owner`.
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
        trusted_wal: list[str]
        compression_level: int
        wal_timeout: float
        owner: int


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
        "trusted_wal": list(policy.keys.trusted_wal),
        "compression_level": policy.backup.compression_level,
        "wal_timeout": policy.wal.timeout.total_seconds(),
        "owner": policy.owner,
    }


def owned(policy: Policy, owner: int) -> Policy:
    """Return a policy as that of whoever can change its file.

    Raises:
        PolicyError: it is another user's, and names what is not his.
    """
    from dataclasses import replace  # noqa: PLC0415  archiving has no policies

    policy = replace(policy, owner=owner)
    refuse_stranger_s(compile_policy(policy))
    return policy


def refuse_stranger_s(compiled: Compiled) -> None:
    """Refuse another user's policy that names what is not his; only root reads such.

    Raises:
        PolicyError: says what.
    """
    named = (
        ("cluster.data_directory", compiled["data_directory"]),
        ("repository.url", repository_directory(compiled["repository_url"])),
    )
    try:
        refuse_another_s(compiled["path"], compiled["owner"], named)
    except Exposed as error:
        raise PolicyError(error.message, hint=error.hint) from None


def secret_owners(compiled: Compiled) -> frozenset[int]:
    """Return who may own the files of a policy's secrets."""
    repository = repository_directory(compiled["repository_url"])
    return believed_users(compiled["owner"], [compiled["data_directory"], repository])


def repository_directory(url: str) -> str | None:
    """Return the directory that a repository's address names, if it names one."""
    scheme, path, _ = split_repository_url(url)
    return path if scheme == "file" else None


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
