"""Where policy files are, and their bytes; cheap enough for `wal push`."""

from __future__ import annotations

import errno
import os
import stat

from drkit.config.trust import ROOT, Exposed, own_users, refuse_strangers, strangers
from drkit.errors import NotFound, PolicyError
from drkit.rights import run_as_owner

TYPE_CHECKING = False  # without importing typing
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MAX_POLICY = 1 << 20
SUFFIXES = (".yaml", ".yml")
SYSTEM_DIRECTORY = "/etc/drkit/policies"
_LOCAL = "policies"

# Shows every field and protects nothing, so that a search never takes it for a policy.
EXAMPLE = "example.yaml"


def policy_dirs(option: str | None, environ: Mapping[str, str]) -> list[str]:
    """Return the directories to search, as absolute paths.

    `option` (`--policy-dir`) stands alone; else `DRKIT_POLICY_DIR` does; else it is
    `./policies` and `/etc/drkit/policies`, those of them that exist. `./policies` is
    passed over where this is root or where others can change it: a directory that
    somebody happens to be in must not choose what drkit does.

    Raises:
        PolicyError: a directory that was asked for is not there.
    """
    asked = (("--policy-dir", option), *_variable(environ))
    for source, value in asked:
        if value:
            directory = os.path.abspath(value)
            if not os.path.isdir(directory):
                raise PolicyError(
                    f"{source}: there is no directory {directory}",
                    hint="name the directory that holds the policy files",
                )
            return [directory]
    usual = [SYSTEM_DIRECTORY] if os.path.isdir(SYSTEM_DIRECTORY) else []
    if os.path.isdir(_LOCAL) and not why_not_here():
        return [os.path.abspath(_LOCAL), *usual]
    return usual


def why_not_here() -> str:
    """Say why `./policies` is passed over; nothing if it is not there, or is not."""
    if not os.path.isdir(_LOCAL):
        return ""
    here = os.path.abspath(_LOCAL)
    name = "--policy-dir names it where it is meant"
    if os.geteuid() == ROOT:
        return f"; {here} is not searched for root, {name}"
    try:
        refuse_strangers(here, os.stat(here), own_users())
    except Exposed as error:
        return f"; {here} is not searched: {error.message}"
    return ""


def _variable(environ: Mapping[str, str]) -> tuple[tuple[str, str | None], ...]:
    return (("DRKIT_POLICY_DIR", environ.get("DRKIT_POLICY_DIR")),)


def find_policies(directories: Iterable[str]) -> list[str]:
    """Return the policy files in `directories`, sorted by name within each.

    Hidden files and `example.yaml` don't count.

    Raises:
        PolicyError: a directory can't be listed.
    """
    found: dict[str, None] = {}
    for directory in directories:
        for name in sorted(_list(directory)):
            if name.endswith(SUFFIXES) and name[0] != "." and name != EXAMPLE:
                found[os.path.join(directory, name)] = None
    return list(found)


def _list(directory: str) -> list[str]:
    try:
        names = os.listdir(directory)
        _only_owner(directory, os.stat(directory))
    except OSError as error:
        raise PolicyError(
            f"the policy directory {directory} can't be listed: {error.strerror}",
            hint=_who_may(directory, error),
        ) from error
    return names


def is_path(policy: str) -> bool:
    """Say whether what was given for a policy is a file's path and not its name."""
    return policy.endswith(SUFFIXES) or os.sep in policy


def no_such_policy(
    name: str,
    known: Iterable[str],
    dirs: Iterable[str],
    refused: Iterable[str] = (),
) -> NotFound:
    """Return the error for a name that no policy has.

    Args:
        refused: what is wrong with files whose names nobody knows.
    """
    names, searched = ", ".join(sorted(known)), ", ".join(dirs)
    return NotFound(
        f"there is no policy named {name}; "
        + (f"known are {names}" if names else f"none was found in {searched or '.'}"),
        hint=f"searched {searched or 'no directory: none of the usual ones exists'}; "
        "set --policy-dir or DRKIT_POLICY_DIR to search elsewhere"
        + "".join(f"; passed over: {one}" for one in refused)
        + why_not_here(),
    )


def no_policy_at_all(directories: Iterable[str]) -> NotFound:
    """Return the error for directories without any policy."""
    return NotFound(
        f"there is no policy in {', '.join(directories) or SYSTEM_DIRECTORY}",
        hint="make one with `drkit init`, or search elsewhere with --policy-dir"
        + why_not_here(),
    )


def read_policy_file(path: str) -> tuple[bytes, int]:
    """Read the policy file at an absolute path.

    Returns:
        Its bytes, and who can change it: root or this user. Root itself also reads
        another's; what that may name is `refuse_another_s`'s to say.

    Raises:
        NotFound: there is no such file.
        PolicyError: it can't be read, is no file, is far too large for a policy, or
            could have been changed by others.
    """
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise PolicyError(f"{path}: is not a file")
            owner = _only_owner(path, status)
            data = file.read(MAX_POLICY + 1)
    except OSError as error:
        raise _unreadable(path, error) from error
    if len(data) > MAX_POLICY:
        raise PolicyError(
            f"{path}: is larger than {MAX_POLICY} bytes, which no policy is",
            hint="name the policy's file; a policy has a few dozen lines",
        )
    return data, owner


def _only_owner(path: str, status: os.stat_result) -> int:
    """Return who can change a file or directory: nobody, or one user, beside root.

    Raises:
        PolicyError: a group or everybody can, or another user than this one; or
            several, where root asks.
    """
    mine = own_users()
    try:
        found = strangers(path, status, mine)
        if os.geteuid() == ROOT and len({*found, status.st_uid} - {ROOT}) == 1:
            return max(found, default=status.st_uid)
        refuse_strangers(path, status, mine)
    except Exposed as error:
        raise PolicyError(f"{path}: {error.message}", hint=error.hint) from None
    return status.st_uid


def _without_waiting(path: str, flags: int) -> int:
    """Open a file, and a named pipe without waiting for its writer."""
    return os.open(path, flags | os.O_NONBLOCK)


def _unreadable(path: str, error: OSError) -> NotFound | PolicyError:
    if error.errno in {errno.ENOENT, errno.ENOTDIR}:
        return NotFound(
            f"there is no policy file {path}",
            hint="name an existing file, or a policy by its name",
        )
    return PolicyError(
        f"{path}: can't be read: {error.strerror}", hint=_who_may(path, error)
    )


def _who_may(path: str, error: OSError) -> str | None:
    return run_as_owner(path) if isinstance(error, PermissionError) else None
