"""What a connection gives away: a password only to a server that proves itself.

Whoever answers at an address may ask for the password in clear, or for an MD5 digest
that opens the server just as well; libpq sends either without a question. With SCRAM
both sides prove to know the password, and nothing that is sent opens anything; with a
certificate that was verified the server has proven itself before it is asked for. See
`require_auth`, `sslmode` and `requirepeer` in libpq's documentation, "Parameter Key
Words".
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from psycopg import pq

from drkit.errors import DrkitError, PostgresRefused
from drkit.postgres.process import find_account

if TYPE_CHECKING:
    from collections.abc import Mapping

    from psycopg.pq.abc import PGconn

_PROVING_ONLY = "!password,!md5"
_TELLING = frozenset({"password", "md5"})
_VERIFYING = frozenset({"verify-ca", "verify-full"})
_KNOWN_SINCE = 160000  # libpq's version
_LOOPBACK = ("127.", "::1")


class Transport(NamedTuple):
    """How a session reaches its server.

    Attributes:
        place: the host and port, or the socket's directory.
        local: whether what is sent stays on this host.
        encrypted: whether it goes through TLS.
        verified: whether the server's certificate was checked.
        tells: whether the address lets a password go to whoever asks for it.
    """

    place: str
    local: bool
    encrypted: bool
    verified: bool
    tells: bool


def guarded(options: Mapping[str, str]) -> dict[str, str]:
    """Return what to add to a connection's options, so that no password is given away.

    Nothing where the options say themselves what the server may ask for, where its
    certificate is verified, or where nobody but root, this user or the server's can
    have made the socket.

    Args:
        options: as the address has them; libpq's environment counts as well.

    Raises:
        PostgresRefused: this libpq knows no such option.
    """
    known = _with_defaults(options)
    if known.get("require_auth") or known.get("sslmode") in _VERIFYING:
        return {}
    hosts = known.get("host", "").split(",")
    if known.get("requirepeer") and all(_is_socket(host) for host in hosts):
        return {}
    if all(_is_safe_socket(host) for host in hosts) and not known.get("hostaddr"):
        return {}
    if pq.version() < _KNOWN_SINCE:
        raise PostgresRefused(
            f"libpq {pq.version() // 10000} gives a password to whoever asks for it",
            hint="install psycopg[binary], which brings a newer one; or let the URL "
            "say sslmode=verify-full",
        )
    return {"require_auth": _PROVING_ONLY}


def not_proven(text: str) -> PostgresRefused | None:
    """Return the error for a login that ended before a password was given away.

    Args:
        text: what libpq says of the login; None is returned for any other failure.
    """
    if "authentication method requirement" not in text:
        return None
    return PostgresRefused(
        f"the password was not sent, since the server has not proven itself: {text}",
        hint="set the password anew where password_encryption is scram-sha-256, and "
        "let pg_hba.conf say scram-sha-256; or let the URL say sslmode=verify-full and "
        "sslrootcert; require_auth=md5 or require_auth=password gives it to anybody "
        "who answers there",
    )


def read_transport(line: PGconn) -> Transport:
    """Return how an open session reaches its server."""
    options = {one.keyword.decode(): one.val for one in line.info if one.val}
    mode = options.get("sslmode", b"").decode()
    wanted = options.get("require_auth", b"").decode().split(",")
    host = os.fsdecode(line.host)
    socket = _is_socket(host)
    address = os.fsdecode(line.hostaddr)
    encrypted = bool(line.ssl_in_use)
    verified = encrypted and mode in _VERIFYING
    return Transport(
        place=host if socket else f"{host}:{line.port.decode()}",
        local=socket or address.startswith(_LOOPBACK),
        encrypted=encrypted,
        verified=verified,
        tells=not verified and not _TELLING.isdisjoint(wanted),
    )


def _with_defaults(options: Mapping[str, str]) -> dict[str, str]:
    """Add what libpq takes from its environment."""
    defaults = pq.Conninfo.get_defaults()
    known = {one.keyword.decode(): one.val.decode() for one in defaults if one.val}
    return known | dict(options)


def _is_socket(host: str) -> bool:
    return host.startswith(("/", "@"))


def _is_safe_socket(host: str) -> bool:
    """Say whether only root, this user or the server's can have made a socket there.

    They must own the directory and all above it, and nobody else may write there, but
    for members of the group of the directory itself, which servers share, and for
    directories above it like /tmp, where nobody moves what is another's.
    """
    if not host.startswith("/"):
        return False  # libpq's own directory, which nobody knows, or an abstract name
    trusted = {0, os.geteuid()}
    with contextlib.suppress(DrkitError):
        trusted.add(find_account("postgres").uid)
    place = path = os.path.realpath(host)
    others = stat.S_IWOTH
    while True:
        try:
            status = os.stat(path)
        except OSError:
            return False
        if not stat.S_ISDIR(status.st_mode) or status.st_uid not in trusted:
            return False
        shared = status.st_mode & others
        if shared and (path == place or not status.st_mode & stat.S_ISVTX):
            return False
        if path == os.sep:
            return True
        path, others = os.path.dirname(path), stat.S_IWOTH | stat.S_IWGRP
