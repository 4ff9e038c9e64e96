"""Which policy to archive by; cheap enough for `wal push`."""

from __future__ import annotations

import json

from drkit.config.cache import read_entry, read_source
from drkit.config.compiled import refuse_stranger_s
from drkit.config.discovery import (
    find_policies,
    is_path,
    no_policy_at_all,
    no_such_policy,
    policy_dirs,
)
from drkit.errors import NotFound, PolicyError, UsageError

TYPE_CHECKING = False  # without importing typing
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from drkit.config.compiled import Compiled


def choose_compiled(
    policy: str | None,
    system_identifier: str | None,
    environ: Mapping[str, str],
    *,
    policy_dir: str | None = None,
) -> Compiled:
    """Return the policy to archive by.

    Args:
        policy: `--policy`: a name or a file's path; None for the only policy there is,
            or the only one for this cluster.
        system_identifier: the cluster's, in decimal, where it is known.
        environ: the process's environment.
        policy_dir: `--policy-dir`.

    Raises:
        NotFound: no policy fits.
        PolicyError: the policy is wrong; or none fits and one of them is wrong. A
            broken policy of another cluster stops nobody's archiving.
        UsageError: several fit.
    """
    if policy is not None and is_path(policy):
        return load_compiled(policy, environ)
    directories = policy_dirs(policy_dir, environ)
    known, errors = _load_all(find_policies(directories), environ)
    if policy is not None:
        fitting = [each for each in known if each["name"] == policy]
    elif len(known) == 1 and not errors:
        fitting = known
    else:
        fitting = [
            each for each in known if each["system_identifier"] == system_identifier
        ]
    if not fitting and errors:
        raise errors[0]
    identified = system_identifier is not None
    return _only(fitting, policy, known, directories, identified=identified)


def list_compiled(
    environ: Mapping[str, str], *, policy_dir: str | None = None
) -> list[Compiled]:
    """Return every policy that a search finds, from the cache where it is valid.

    Raises:
        PolicyError: one of them is wrong.
    """
    files = find_policies(policy_dirs(policy_dir, environ))
    return [load_compiled(path, environ) for path in files]


def load_compiled(path: str, environ: Mapping[str, str]) -> Compiled:
    """Return the policy of a file, from the cache if it is still that policy.

    Raises:
        NotFound: there is no such file.
        PolicyError: it is wrong, or a setting of the environment is.
    """
    source = read_source(path, environ)
    kept = read_entry(source)
    if kept:
        compiled: Compiled = json.loads(kept[0]) | {"owner": source.owner}
        refuse_stranger_s(compiled)
        return compiled
    # The costly half: only after a change, and never while archiving goes on quietly.
    from drkit.config.compiled import compile_policy  # noqa: PLC0415
    from drkit.config.recalling import check_and_keep  # noqa: PLC0415

    return compile_policy(check_and_keep(source, environ))


def _load_all(
    paths: Iterable[str], environ: Mapping[str, str]
) -> tuple[list[Compiled], list[PolicyError | NotFound]]:
    known: list[Compiled] = []
    errors: list[PolicyError | NotFound] = []
    for path in paths:
        try:
            known.append(load_compiled(path, environ))
        except (PolicyError, NotFound) as error:
            errors.append(error)
    return known, errors


def _only(
    fitting: list[Compiled],
    policy: str | None,
    known: list[Compiled],
    directories: list[str],
    *,
    identified: bool,
) -> Compiled:
    """Return the only fitting policy; `identified` if the cluster was known."""
    if len(fitting) == 1:
        return fitting[0]
    if policy is not None and not fitting:
        raise no_such_policy(policy, [each["name"] for each in known], directories)
    names = ", ".join(sorted(each["name"] for each in fitting or known))
    files = " and ".join(each["path"] for each in fitting)
    if policy is not None:
        raise PolicyError(
            f"{len(fitting)} policies are named {policy}: {files}",
            hint="give one of them another name, or name the file you mean",
        )
    if fitting or (known and not identified):
        raise UsageError(
            f"several policies could be meant: {names}",
            hint="choose one with --policy NAME",
        )
    if not known:
        raise no_policy_at_all(directories)
    raise NotFound(
        f"none of the policies is for this cluster; known are {names}",
        hint="choose one with --policy NAME, or search elsewhere with --policy-dir",
    )
