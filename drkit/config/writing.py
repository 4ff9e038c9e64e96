"""New policy files and key files: written once, whole, and never over another."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING

from drkit.errors import DrkitError, PolicyError

if TYPE_CHECKING:
    from drkit.model.draft import PolicyDraft

Owner = tuple[int, int]  # uid, gid

POLICY_MODE = 0o644
KEY_MODE = 0o600
_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9_./:@?=&+-]*[A-Za-z0-9_./-]")
_WORDS = {"true", "false", "null", "yes", "no", "on", "off"}
_KEY_PURPOSES = {
    "backup": "base backups",
    "wal": "WAL",
    "dump": "dumps",
    "files": "sets of files",
    "catalog": "manifests and the log",
    "signing": "signs log entries and evidence: proves who wrote them",
    "wal_signing": "signs WAL: proves that this host archived it",
}


def render_policy(draft: PolicyDraft) -> str:
    """Return the text of a policy file, with a comment for what may be changed."""
    parts = [_cluster(draft), _repository(draft), _keys(draft), _rest(draft)]
    return "\n".join(parts)


def _cluster(draft: PolicyDraft) -> str:
    lines = [
        f"# How {draft.name} is backed up. `drkit policy schema` explains every field;",
        "# after a change run `drkit check`.",
        "",
        "# What the policy is called on the command line and in the repository.",
        f"name: {_scalar(draft.name)}",
        "",
        "cluster:",
        "  # Where the server answers. Passwords have no place here.",
        f"  url: {_scalar(draft.url)}",
    ]
    if draft.password is not None:
        lines += [
            "  # Where the password is; file:/path (mode 0600) works as well.",
            f"  password: {_scalar(draft.password)}",
        ]
    if draft.data_directory is not None:
        lines += [
            "  # Where `source: local` reads the cluster's files.",
            f"  data_directory: {_scalar(draft.data_directory)}",
        ]
    lines += [
        "  # Made by initdb: no other cluster is taken for this one.",
        f"  system_identifier: {json.dumps(draft.system_identifier)}",
        "",
    ]
    return "\n".join(lines)


def _repository(draft: PolicyDraft) -> str:
    lines = [
        "repository:",
        "  # Where backups and WAL are stored, encrypted: file:///directory or",
        "  # s3://bucket/prefix.",
        f"  url: {_scalar(draft.repository_url)}",
    ]
    if draft.s3:
        lines.append("  s3:")
        lines += [f"    {name}: {_scalar(text)}" for name, text in draft.s3.items()]
    return "\n".join([*lines, ""])


def _keys(draft: PolicyDraft) -> str:
    lines = [
        "# Without these keys no backup can be read: keep a copy of them away from",
        "# this host. Each opens one kind of data.",
        "keys:",
        "  provider: local",
    ]
    for purpose, use in _KEY_PURPOSES.items():
        reference = f"file:{draft.key_paths[purpose]}"
        lines += [f"  # {use}", f"  {purpose}: {_scalar(reference)}"]
    lines += [
        "  # Whose signatures count: the public half of the signing key.",
        "  trusted:",
        f"    - {_scalar(draft.public_key)}",
        "  # Whose signatures count on WAL: the public half of that signing key.",
        "  trusted_wal:",
        f"    - {_scalar(draft.wal_public_key)}",
        "",
    ]
    return "\n".join(lines)


def _rest(draft: PolicyDraft) -> str:
    return f"""\
backup:
  # local reads the data directory on this host; stream takes what the server sends.
  source: {draft.source}
  # zstd: 1 is fastest, 19 is smallest.
  compression_level: 3
  # How long a backup waits for the WAL that it needs.
  wal_timeout: 10 minutes

# Whatever any rule keeps is kept; others are window, daily, weekly, monthly, yearly.
retention:
  full: 4

# How good recovery has to be: `drkit info` measures rpo.
# objectives:
#   rto: 15 minutes
#   rpo: 5 minutes

# How often a timer runs `drkit heartbeat`, which proves how old recovered data is.
# heartbeat:
#   every: 1 minute

# How backups are proven by restoring them; `assertions` says what your data must hold.
# verification:
#   every: 1 day

wal:
  # How long one push or get may try before PostgreSQL is left to ask again.
  timeout: 60 seconds
"""


def _scalar(text: str) -> str:
    """Write text for YAML: plain where it can only be read one way, else quoted."""
    plain = _PLAIN.fullmatch(text) and text.lower() not in _WORDS and ": " not in text
    # In double quotes YAML has JSON's escapes.
    return text if plain else json.dumps(text, ensure_ascii=False)


def make_directory(path: str, mode: int, owner: Owner | None) -> None:
    """Make a directory and what lies above it; one that is there stays as it is.

    Args:
        owner: whom to give what is new to; only root can.

    Raises:
        PolicyError: it can't be made.
    """
    if os.path.isdir(path):
        return
    above = os.path.dirname(path)
    if above != path:
        make_directory(above, 0o755, owner)
    try:
        os.mkdir(path)
        os.chmod(path, mode)
        if owner is not None:
            os.chown(path, *owner)
        _sync_directory(above)
    except FileExistsError:
        return
    except OSError as error:
        raise _unwritable(path, error) from error


def write_new(path: str, text: str, mode: int, owner: Owner | None) -> None:
    """Create a file with exactly this text, durably; never replace one.

    The text is written aside and then linked under its name, so that whoever sees the
    file sees all of it.

    Raises:
        PolicyError: there is one already, or it can't be written.
    """
    folder, base = os.path.split(path)
    aside = os.path.join(folder, f".{base}.{os.urandom(4).hex()}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with open(os.open(aside, flags, 0o600), "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), mode)
            if owner is not None:
                os.fchown(file.fileno(), *owner)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.link(aside, path)
        _sync_directory(folder)
    except FileExistsError:
        raise already_there(path) from None
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        if os.path.lexists(aside):
            os.unlink(aside)


def already_there(path: str) -> DrkitError:
    """Return the error for a file that would have to be replaced."""
    return PolicyError(
        f"{path} exists already and is not replaced",
        hint="choose another name, or move the file away if it is of no use any more",
    )


def _sync_directory(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unwritable(path: str, error: OSError) -> PolicyError:
    return PolicyError(
        f"{path} can't be written: {error.strerror}",
        hint=f"this runs as uid {os.geteuid()}; run it as the server's user or as "
        "root, or choose another place with --policy-dir and --keys-dir",
    )
