"""Checked policies, recalled from the cache, so that commands start at once.

Only where the cache has no valid entry is the file checked again, by `loading`, which
takes longer than most commands do.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from drkit.config.cache import read_entry, read_source, write_entry
from drkit.config.codec import decode_policy, encode
from drkit.config.compiled import compile_policy, owned
from drkit.config.discovery import find_policies, is_path, no_such_policy
from drkit.config.policy import default_jobs
from drkit.errors import NotFound, PolicyError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from drkit.config.cache import Source
    from drkit.config.policy import Policy


def recall_policy(path: str | os.PathLike[str], environ: Mapping[str, str]) -> Policy:
    """Return the checked policy of a file, from the cache if it is still that policy.

    Raises:
        NotFound, PolicyError: as `drkit.config.loading.load_policy`.
    """
    source = read_source(os.fspath(path), environ)
    kept = _recall(source)
    return owned(kept, source.owner) if kept else check_and_keep(source, environ)


def check_and_keep(source: Source, environ: Mapping[str, str]) -> Policy:
    """Check a policy file as it is now, and keep what came of it.

    Raises:
        PolicyError: as `drkit.config.loading.load_policy`.
    """
    from drkit.config.loading import parse_policy  # noqa: PLC0415  the costly half

    policy = owned(parse_policy(source.data, source.path, environ), source.owner)
    values = {"cpus": default_jobs(), "policy": encode(policy)}
    write_entry(source, compile_policy(policy), values)
    return policy


def _recall(source: Source) -> Policy | None:
    """Return the policy as the cache has it; None if it has none that is right here."""
    kept = read_entry(source)
    try:
        values = json.loads(kept[1])
        # How many CPUs there are is no setting, but some defaults depend on it.
        usable = values["cpus"] == default_jobs()
        return decode_policy(values["policy"]) if usable else None
    except (LookupError, TypeError, ValueError):
        return None  # nothing kept, or other values, or a time zone that went away


def find_policy(
    policy: str, directories: Iterable[str], environ: Mapping[str, str]
) -> str:
    """Return the absolute path of the policy file that `policy` stands for.

    Args:
        policy: a policy's `name`, or a path that ends in `.yaml` or `.yml`.
        directories: where to search for the name, as `policy_dirs` returns them.
        environ: the process's environment.

    Files that are broken don't hide the others: who needs one policy at night must not
    have to repair another first.

    Raises:
        NotFound: no policy has that name; tells which there are.
        PolicyError: two files have it.
    """
    if is_path(policy):
        return os.path.abspath(policy)
    directories = list(directories)
    files = find_policies(directories)
    names, refused = _names_in(files, environ)
    found = [path for path, name in names.items() if name == policy]
    # A file too broken to have a name may still be meant by what it is called.
    found = found or [
        path
        for path in files
        if path not in names and os.path.basename(path).partition(".")[0] == policy
    ]
    if len(found) > 1:
        raise PolicyError(
            f"two policies are named {policy}: {found[0]} and {found[1]}",
            hint="give one of them another name, or name the file you mean",
        )
    if not found:
        raise no_such_policy(policy, names.values(), directories, refused)
    return found[0]


def _names_in(
    files: Iterable[str], environ: Mapping[str, str]
) -> tuple[dict[str, str], list[str]]:
    """Return the names in policy files, and why some could not be read."""
    names: dict[str, str] = {}
    refused: list[str] = []
    for path in files:
        try:
            name = _name_in(path, environ)
        except (PolicyError, NotFound) as error:
            refused.append(error.message)
        else:
            names |= {path: name} if isinstance(name, str) and name else {}
    return names, refused


def _name_in(path: str, environ: Mapping[str, str]) -> object:
    """Return the name in a policy file, however wrong the rest is."""
    source = read_source(path, environ)
    kept = read_entry(source)
    return json.loads(kept[0])["name"] if kept else _name_in_yaml(source.data)


def _name_in_yaml(data: bytes) -> object:
    from drkit.config.document import read_document  # noqa: PLC0415  costly as well

    return read_document(data).value.get("name")
