"""The key that signs WAL, for a policy that was made without one."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from drkit.config.compiled import compile_policy, secret_owners
from drkit.config.secrets import SecretReference
from drkit.config.writing import KEY_MODE, write_new
from drkit.crypto.keys import KEY_BYTES
from drkit.crypto.signing import format_public, format_signing_key, parse_signing_key
from drkit.errors import UsageError
from drkit.model.owner import Owner

if TYPE_CHECKING:
    from drkit.config.policy import Policy
    from drkit.wiring import Secrets

_NAME = "wal-signing.key"


class WalSigningKey(NamedTuple):
    """A key file and its public half; `created` says whether it was written now."""

    path: str
    public_key: str
    created: bool


def make_wal_signing_key(
    policy: Policy, path: str | None, secrets: Secrets
) -> WalSigningKey:
    """Write the key file that signs WAL; one that is there is kept.

    Args:
        path: where to; None for beside the key of WAL, with the same owner.

    Raises:
        UsageError: the policy has one, or there is no place beside the key of WAL.
        PolicyError: it can't be written.
        KeyUnavailable: what is there is no such key.
    """
    if policy.keys.wal_signing is not None:
        raise UsageError(
            f"the policy has keys.wal_signing already: {policy.keys.wal_signing}",
            hint=f"`drkit keys list {policy.name}` tells its public half",
        )
    beside = policy.keys.wal
    if path is None and beside.scheme != "file":
        raise UsageError(
            f"keys.wal is {beside}, and so nothing can be put beside it",
            hint="name a file for the new key: --to FILE",
        )
    place = os.path.abspath(path or _beside(beside.target))
    created = not os.path.lexists(place)
    if created:
        text = format_signing_key(os.urandom(KEY_BYTES))
        owner, mode = _access(beside)
        write_new(place, text, mode, owner)
    reference = SecretReference.parse(f"file:{place}", field="keys.wal_signing")
    owners = secret_owners(compile_policy(policy))
    signer = parse_signing_key(secrets.resolve(reference, owners), place)
    return WalSigningKey(place, format_public(signer.public), created)


def _beside(path: str) -> str:
    return os.path.join(os.path.dirname(path), _NAME)


def _access(key: SecretReference) -> tuple[Owner | None, int]:
    """Return whom the key of WAL belongs to, and its mode: who archives reads both.

    Only root can give away, and only what it keeps itself is its group's to read.
    """
    if os.geteuid() != 0 or key.scheme != "file":
        return None, KEY_MODE
    found = os.lstat(key.target)
    shared = found.st_mode & stat.S_IRGRP if found.st_uid == 0 else 0
    return Owner(found.st_uid, found.st_gid), KEY_MODE | shared
