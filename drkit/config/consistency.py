"""Contradictions between the fields of a policy, each right by itself."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from drkit.config.repository_url import split_repository_url
from drkit.config.secrets import SecretReference

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    Finding = tuple[tuple[str, ...], str]

_KEEP_NO_BACKUP = {"wal_window", "max_deletions"}
PURPOSES = ("backup", "wal", "dump", "files", "catalog", "signing", "wal_signing")


def contradictions(
    policy: Mapping[str, Any], folder: str | None
) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield (field path, what is wrong and what to write) for every contradiction.

    Works on the plain mapping that a file holds, however broken, so that these are
    told together with the errors of single fields; what is malformed is passed over.

    Args:
        policy: text as a policy file has it.
        folder: where relative paths of secrets begin; None if there are none.
    """
    yield from _source(policy)
    yield from _s3(policy)
    yield from _retention(policy)
    yield from _shared_keys(policy, folder)
    yield from _wal_signers(policy)
    yield from _nested_paths(policy, folder)
    yield from _scratch(policy)


def _section(policy: Mapping[str, Any], *path: str) -> dict[str, Any]:
    node: object = policy
    for key in path:
        node = node.get(key) if isinstance(node, dict) else None
    return node if isinstance(node, dict) else {}


def _text(section: Mapping[str, Any], key: str) -> str | None:
    value = section.get(key)
    return value if isinstance(value, str) else None


def _source(policy: Mapping[str, Any]) -> Iterator[Finding]:
    cluster = _section(policy, "cluster")
    local = _section(policy, "backup").get("source", "local") == "local"
    if local and cluster and "data_directory" not in cluster:
        yield (
            ("cluster", "data_directory"),
            (
                "is missing; `backup.source: local` reads files there: name the data "
                "directory, or write `backup.source: stream`"
            ),
        )


def _s3(policy: Mapping[str, Any]) -> Iterator[Finding]:
    repository = _section(policy, "repository")
    if "s3" in repository and (_text(repository, "url") or "").startswith("file:"):
        yield (
            ("repository", "s3"),
            "belongs to an s3:// address, but the repository is a directory; remove it",
        )
    s3 = _section(policy, "repository", "s3")
    pair = {"access_key_id", "secret_access_key"}
    if len(pair & s3.keys()) == 1:
        (absent,) = pair - s3.keys()
        yield (
            ("repository", "s3", absent),
            "is missing; write both keys, or neither to let boto3 find them",
        )


def _retention(policy: Mapping[str, Any]) -> Iterator[Finding]:
    retention = policy.get("retention")
    if isinstance(retention, dict) and retention.keys() <= _KEEP_NO_BACKUP:
        yield (
            ("retention",),
            "has no rule that keeps backups; write, for example, full: 4",
        )


def _key_references(
    policy: Mapping[str, Any], folder: str | None
) -> dict[str, SecretReference]:
    keys = _section(policy, "keys")
    references = {}
    for purpose in PURPOSES:
        try:
            text = _text(keys, purpose) or ""
            references[purpose] = SecretReference.parse(text, folder=folder)
        except ValueError:
            continue  # told by the field's own check
    return references


def _shared_keys(policy: Mapping[str, Any], folder: str | None) -> Iterator[Finding]:
    seen: dict[SecretReference, str] = {}
    for purpose, reference in _key_references(policy, folder).items():
        if reference in seen:
            yield (
                ("keys", purpose),
                (
                    f"is the same key as keys.{seen[reference]}; "
                    "every purpose needs a key of its own"
                ),
            )
        seen.setdefault(reference, purpose)


def _wal_signers(policy: Mapping[str, Any]) -> Iterator[Finding]:
    """Find signatures of WAL that nobody would believe, or that would say too much."""
    keys = _section(policy, "keys")
    mine, others = keys.get("trusted_wal"), keys.get("trusted")
    if "wal_signing" in keys and not mine:
        yield (
            ("keys", "trusted_wal"),
            (
                "is missing; write the public half of keys.wal_signing, as "
                "`drkit keys sign-wal` has told it"
            ),
        )
    for one in mine if isinstance(mine, list | tuple) else ():
        if isinstance(others, list | tuple) and one in others:
            yield (
                ("keys", "trusted_wal"),
                (
                    f"has {one}, which keys.trusted has as well; who signs WAL must "
                    "not be able to sign backups and evidence"
                ),
            )


def _nested_paths(policy: Mapping[str, Any], folder: str | None) -> Iterator[Finding]:
    """Find what would be lost, or given away, together with its neighbour."""
    data, repository = _data_directory(policy), _repository_path(policy)
    if data and repository and (_within(repository, data) or _within(data, repository)):
        yield (
            ("repository", "url"),
            (
                "lies in the data directory or around it and would be lost with it; "
                "name a place on another disk"
            ),
        )
    for purpose, reference in _key_references(policy, folder).items():
        if reference.scheme != "file":
            continue
        if repository and _within(reference.target, repository):
            yield (
                ("keys", purpose),
                (
                    "lies in the repository, where it opens everything to whoever "
                    "gets a copy; keep keys elsewhere"
                ),
            )
        elif data and _within(reference.target, data):
            yield (
                ("keys", purpose),
                (
                    "lies in the data directory and would be lost with it; keep keys "
                    "elsewhere, and a copy off this host"
                ),
            )


def _scratch(policy: Mapping[str, Any]) -> Iterator[Finding]:
    """Find what a verification could fill up, or remove, together with its own."""
    path = _text(_section(policy, "verification"), "directory")
    if not path or not os.path.isabs(path):
        return
    scratch = os.path.normpath(path)
    neighbours = {
        "the data directory": _data_directory(policy),
        "the repository": _repository_path(policy),
    }
    for name, other in neighbours.items():
        if other and (_within(scratch, other) or _within(other, scratch)):
            yield (
                ("verification", "directory"),
                (
                    f"lies in {name} or around it, and is emptied after each "
                    "verification; name a directory of its own"
                ),
            )


def _data_directory(policy: Mapping[str, Any]) -> str | None:
    path = _text(_section(policy, "cluster"), "data_directory")
    return os.path.normpath(path) if path and os.path.isabs(path) else None


def _repository_path(policy: Mapping[str, Any]) -> str | None:
    try:
        url = _text(_section(policy, "repository"), "url") or ""
        scheme, path, _ = split_repository_url(url)
    except ValueError:
        return None
    return os.path.normpath(path) if scheme == "file" else None


def _within(path: str, directory: str) -> bool:
    return os.path.commonpath((path, directory)) == directory
