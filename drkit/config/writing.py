"""New policy files and key files: written once, whole, and never over another."""

from __future__ import annotations

import errno
import json
import os
import re
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from drkit.errors import DrkitError, PolicyError
from drkit.ownership import acting_as, owner_of, reach_directory
from drkit.rights import user_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from drkit.model.draft import PolicyDraft
    from drkit.model.owner import Owner

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
        path: absolute.
        owner: whom root makes it for; None makes it for whom the place belongs to.

    Raises:
        PolicyError: it can't be made, or others could put another into its place.
    """
    if os.path.isdir(path):
        return
    with _explained(path, owner):
        os.close(reach_new(path, mode, owner))


def reach_new(path: str, mode: int, owner: Owner | None) -> int:
    """Open a directory, made as by `make_directory`; return its descriptor.

    Raises:
        PolicyError: others could put another into its place.
        OSError: it can't be made.
    """
    place = owner or _owner_around(path)
    return reach_directory(path, place, mode, raising=PolicyError)


def write_new(path: str, text: str, mode: int, owner: Owner | None) -> None:
    """Create a file with exactly this text, durably; never replace one.

    The text is written aside and then linked under its name, so that whoever sees the
    file sees all of it. Where the directory is another user's, root writes as that
    user: what is exchanged there meanwhile leads to nothing that is not his.

    Args:
        path: absolute.
        owner: whom root writes it for; None writes it for whom the place belongs to.

    Raises:
        PolicyError: there is one already, it can't be written, or others could put
            another into its place.
    """
    folder, base = os.path.split(path)
    with _explained(path, owner):
        os.stat(folder)  # is there: only `make_directory` makes it
        place = owner or _owner_around(folder)
        opened = reach_directory(folder, place, 0o700, raising=PolicyError)
        try:
            root_s = _refuse_shared(opened, folder) == 0
            with acting_as(None if root_s else place):
                _create(opened, base, text, mode, owner)
        finally:
            os.close(opened)


def _owner_around(path: str) -> Owner | None:
    """Return whose the place is, be it there or not; None unless this is root."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return owner_of(path, raising=PolicyError)


def _refuse_shared(opened: int, folder: str) -> int:
    """Return whose an open directory is.

    Raises:
        PolicyError: this is root, and others can exchange what is in it.
    """
    found = os.fstat(opened)
    mode = stat.S_IMODE(found.st_mode)
    shared = mode & (stat.S_IWGRP | stat.S_IWOTH) and not mode & stat.S_ISVTX
    if os.geteuid() == 0 and shared:
        raise PolicyError(
            f"others can write to {folder} (mode {mode:04o}), and could exchange what "
            "root puts there",
            hint=f"chmod go-w {folder}, and look whether what is there is still yours",
        )
    return found.st_uid


def _create(folder: int, base: str, text: str, mode: int, owner: Owner | None) -> None:
    aside = f".{base}.{os.urandom(4).hex()}.tmp"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    made = os.open(aside, flags, 0o600, dir_fd=folder)
    try:
        with open(made, "w", encoding="utf-8") as file:
            os.fchmod(made, mode)
            if owner is not None:
                os.fchown(made, *owner)
            file.write(text)
            file.flush()
            os.fsync(made)
        os.link(
            aside, base, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False
        )
        os.fsync(folder)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(aside, dir_fd=folder)


@contextmanager
def _explained(path: str, owner: Owner | None) -> Iterator[None]:
    try:
        yield
    except FileExistsError:
        raise already_there(path) from None
    except OSError as error:
        raise unwritable(path, error, owner) from error


def already_there(path: str) -> DrkitError:
    """Return the error for a file that would have to be replaced."""
    return PolicyError(
        f"{path} exists already and is not replaced",
        hint="choose another name, or move the file away if it is of no use any more",
    )


def unwritable(path: str, error: OSError, owner: Owner | None) -> PolicyError:
    """Return the error for what the system refuses to make."""
    me = os.geteuid()
    hint = (
        f"this runs as uid {me}; run it as the server's user or as root, or choose "
        "another place with --policy-dir and --keys-dir"
    )
    if me == 0 and error.errno in {errno.EACCES, errno.EPERM, errno.ELOOP}:
        whose = user_name(owner.uid) if owner else "their owner"
        hint = (
            f"below directories that are not root's, root acts as {whose} and follows "
            "no link to what is not theirs: look at every directory and link on the "
            "way (namei -l), or choose a place that only root can change"
        )
    return PolicyError(f"{path} can't be written: {error.strerror}", hint=hint)
