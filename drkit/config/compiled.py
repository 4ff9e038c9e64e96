"""What archiving needs of a policy, from a cache that spares `wal push` the checks.

PostgreSQL starts `wal push` for every segment; reading and checking a policy would cost
it more than the work itself. The checked result is kept as JSON under the user's cache
directory, valid for exactly these bytes of the policy, these settings and this version.
It holds references to secrets, never their values, and losing it costs time only.
"""

from __future__ import annotations

import hashlib
import json
import os
import pwd
import stat

import drkit
from drkit.config.discovery import (
    find_policies,
    is_path,
    no_such_policy,
    policy_dirs,
    read_policy_file,
)
from drkit.config.environment import PLAIN, PREFIX
from drkit.errors import NotFound, PolicyError, UsageError

TYPE_CHECKING = False  # without importing typing
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any, TypedDict

    from drkit.config.policy import Policy

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


CACHE_FORMAT = 1
MAX_CACHED = 1 << 20
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def compile_policy(policy: Policy) -> Compiled:
    """Return what archiving needs of a checked policy, ready for JSON."""
    keys = policy.keys.model_dump(exclude={"provider", "trusted"})
    s3 = policy.repository.s3
    return {
        "name": policy.name,
        "path": policy.path,
        "system_identifier": policy.cluster.system_identifier,
        "data_directory": policy.cluster.data_directory,
        "repository_url": policy.repository.url,
        "s3": s3.model_dump(exclude_none=True) if s3 else {},
        "key_provider": policy.keys.provider,
        "keys": keys,
        "trusted": list(policy.keys.trusted),
        "compression_level": policy.backup.compression_level,
        "wal_timeout": policy.wal.timeout.total_seconds(),
    }


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
    path = os.path.abspath(path)
    data = read_policy_file(path)
    fingerprint = _fingerprint(data, environ)
    entry = _entry(path, environ)
    cached = _read(entry, path, fingerprint) if entry else None
    if cached is not None:
        return cached
    # The costly half: only after a change, and never while archiving goes on quietly.
    from drkit.config.loading import parse_policy  # noqa: PLC0415

    compiled = compile_policy(parse_policy(data, path, environ))
    if entry:
        _write(entry, {"path": path, "fingerprint": fingerprint, "policy": compiled})
    return compiled


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
    raise NotFound(
        f"none of the policies is for this cluster; known are {names}"
        if known
        else f"there is no policy in {', '.join(directories) or '/etc/drkit/policies'}",
        hint="choose one with --policy NAME, or search elsewhere with --policy-dir",
    )


def _fingerprint(data: bytes, environ: Mapping[str, str]) -> str:
    """Digest everything that the compiled policy depends on.

    Of variables that may hold a secret only the name counts, and whether they are set:
    a policy can refer to them, but their value is not part of it, and a digest in a
    file would let short ones be guessed.
    """
    settings = [
        [name, value if name in PLAIN else bool(value)]
        for name, value in sorted(environ.items())
        if name.upper().startswith(PREFIX)
    ]
    parts = [CACHE_FORMAT, drkit.__version__, settings, len(data)]
    # Python keeps undecodable bytes of variables as lone surrogates; ASCII has both.
    digest = hashlib.sha256(json.dumps(parts, ensure_ascii=True).encode())
    digest.update(data)
    return digest.hexdigest()


def cache_dir(environ: Mapping[str, str]) -> str | None:
    """Return the directory of cached policies; None if there is no place for one."""
    chosen = environ.get("DRKIT_CACHE_DIR", "")
    if os.path.isabs(chosen):
        return chosen
    base = environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):
        home = environ.get("HOME", "") or _home()
        base = os.path.join(home, ".cache") if os.path.isabs(home) else ""
    return os.path.join(base, "drkit") if base else None


def _home() -> str:
    """Return the user's home: services are often started without HOME."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_dir
    except KeyError:
        return ""


def _entry(path: str, environ: Mapping[str, str]) -> str | None:
    directory = cache_dir(environ)
    if directory is None:
        return None
    name = hashlib.sha256(os.fsencode(path)).hexdigest()[:32]
    return os.path.join(directory, f"policy-{name}.json")


def _read(entry: str, path: str, fingerprint: str) -> Compiled | None:
    """Return the cached policy if nobody else can have written it and it is valid."""
    try:
        with open(entry, "rb", opener=_without_following) as file:
            if not (_ours(os.fstat(file.fileno())) and _ours(_parent(entry))):
                return None
            cached: Any = json.loads(file.read(MAX_CACHED))
    except (OSError, ValueError):
        return None
    if not isinstance(cached, dict) or cached.get("path") != path:
        return None
    policy: Compiled | None = cached.get("policy")
    return policy if cached.get("fingerprint") == fingerprint else None


def _without_following(path: str, flags: int) -> int:
    """Open a file, but no link to one, and a named pipe without waiting."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _parent(entry: str) -> os.stat_result:
    return os.lstat(os.path.dirname(entry))


def _ours(status: os.stat_result) -> bool:
    return status.st_uid == os.geteuid() and not status.st_mode & _WRITABLE_BY_OTHERS


def _write(entry: str, content: Mapping[str, object]) -> None:
    """Replace the cache entry at once; a cache that can't be written is no error."""
    attempt = f"{entry}.{os.getpid()}.tmp"
    try:
        _make_private(os.path.dirname(entry))
        if not _ours(_parent(entry)):
            return
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with open(os.open(attempt, flags, 0o600), "w") as file:
            json.dump(content, file)
        os.replace(attempt, entry)
    except OSError:
        _remove(attempt)


def _make_private(directory: str) -> None:
    """Make a directory and those above it, all closed to others whatever the umask."""
    if not os.path.isdir(directory):
        _make_private(os.path.dirname(directory))
        os.mkdir(directory, 0o700)


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        return
