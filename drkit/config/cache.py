"""Policies that were checked, kept so that nobody has to check them again.

Checking a policy costs more than `wal push` does, and as much as a backup of little
change. What came of it is kept as JSON under the user's cache directory, valid for
exactly these bytes of the policy, these settings and this version. It holds references
to secrets, never their values, and losing it costs time only.
"""

from __future__ import annotations

import hashlib
import json
import os
import pwd
import stat

import drkit
from drkit.config.discovery import read_policy_file
from drkit.config.environment import PLAIN, PREFIX

TYPE_CHECKING = False  # without importing typing
if TYPE_CHECKING:
    from collections.abc import Mapping

CACHE_FORMAT = 3
MAX_CACHED = 1 << 22  # a policy has 1 MiB at most
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


class Source:
    """A policy file as it is now, and where the cache has what came of it.

    Attributes:
        path: absolute.
        data: the file's bytes.
        owner: who can change it; see `read_policy_file`.
        fingerprint: digest of everything that the policy depends on.
        entry: the path of its cache entry; None if there is no place for one.
    """

    __slots__ = ("data", "entry", "fingerprint", "owner", "path")

    def __init__(
        self, path: str, data: bytes, owner: int, environ: Mapping[str, str]
    ) -> None:
        place = _place(path, environ)
        made_by = json.dumps([CACHE_FORMAT, drkit.__version__]).encode()
        self.path = path
        self.data = data
        self.owner = owner
        self.fingerprint = hashlib.sha256(made_by + place + data).digest()
        self.entry = _entry(place, environ)


def read_source(path: str, environ: Mapping[str, str]) -> Source:
    """Read a policy file.

    Raises:
        NotFound: there is no such file.
        PolicyError: as `read_policy_file`.
    """
    path = os.path.abspath(path)
    return Source(path, *read_policy_file(path), environ)


def _place(path: str, environ: Mapping[str, str]) -> bytes:
    """Return where a policy is, and the settings that it depends on.

    Of variables that may hold a secret only the name counts, and whether they are set:
    a policy can refer to them, but their value is not part of it, and a digest in a
    file would let short ones be guessed.
    """
    settings = [
        [name, value if name in PLAIN else bool(value)]
        for name, value in sorted(environ.items())
        if name.upper().startswith(PREFIX)
    ]
    # Python keeps undecodable bytes of variables as lone surrogates; ASCII has both.
    # A list in JSON is over where its bracket closes, so that the file can follow.
    return json.dumps([path, settings], ensure_ascii=True).encode()


def cache_dir(environ: Mapping[str, str]) -> str | None:
    """Return the directory of cached policies; None if there is no place for one."""
    chosen = environ.get("DRKIT_CACHE_DIR", "")
    if os.path.isabs(chosen):
        return chosen
    base = environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):
        home = home_of(environ)
        base = os.path.join(home, ".cache") if os.path.isabs(home) else ""
    return os.path.join(base, "drkit") if base else None


def home_of(environ: Mapping[str, str]) -> str:
    """Return the user's home: services are often started without HOME."""
    if environ.get("HOME", ""):
        return environ["HOME"]
    try:
        return pwd.getpwuid(os.geteuid()).pw_dir
    except KeyError:
        return ""


def _entry(place: bytes, environ: Mapping[str, str]) -> str | None:
    """Return an entry's path: commands with other settings don't take turns in one."""
    directory = cache_dir(environ)
    if directory is None:
        return None
    name = hashlib.sha256(place).hexdigest()[:32]
    return os.path.join(directory, f"policy-{name}.cache")


def read_entry(source: Source) -> list[bytes]:
    """Return the parts that `write_entry` kept, as JSON; none if they are not valid.

    They are if they came of this source, are whole, and nobody else can have written
    them.
    """
    if source.entry is None:
        return []
    try:
        with open(source.entry, "rb", opener=_without_following) as file:
            if not (_ours(os.fstat(file.fileno())) and _ours(_parent(source.entry))):
                return []
            seal, _, body = file.read(MAX_CACHED).partition(b"\n")
    except OSError:
        return []
    return body.split(b"\n") if seal == _seal(source, body) else []


def _seal(source: Source, body: bytes) -> bytes:
    """Return a checksum of an entry: what is damaged could still be JSON."""
    return hashlib.sha256(source.fingerprint + body).hexdigest().encode()


def _without_following(path: str, flags: int) -> int:
    """Open a file, but no link to one, and a named pipe without waiting."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _parent(entry: str) -> os.stat_result:
    return os.lstat(os.path.dirname(entry))


def _ours(status: os.stat_result) -> bool:
    return status.st_uid == os.geteuid() and not status.st_mode & _WRITABLE_BY_OTHERS


def write_entry(source: Source, *parts: object) -> None:
    """Replace the cache entry at once; a cache that can't be written is no error."""
    if source.entry is None:
        return
    attempt = f"{source.entry}.{os.getpid()}.tmp"
    body = b"\n".join(json.dumps(part).encode() for part in parts)
    try:
        _make_private(os.path.dirname(source.entry))
        if not _ours(_parent(source.entry)):
            return
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with open(os.open(attempt, flags, 0o600), "wb") as file:
            file.write(_seal(source, body) + b"\n" + body)
        os.replace(attempt, source.entry)
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
