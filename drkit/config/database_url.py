"""Connection addresses of clusters, as libpq itself reads them."""

from __future__ import annotations

from urllib.parse import parse_qsl

from psycopg import OperationalError, pq

_SCHEMES = ("postgresql://", "postgres://")
_REFUSAL = (
    "must not hold a password; set `cluster.password` to a reference such as "
    "env:DRKIT_DATABASE_PASSWORD (and write an @ in a name as %40)"
)
_SECRET_OPTIONS = frozenset(
    {
        "password",
        "sslpassword",
        "oauth_client_secret",
        "scram_client_key",
        "scram_server_key",
    }
)


def check_database_url(url: str) -> str:
    """Return `url` if libpq understands it and no password is in it.

    Raises:
        ValueError: it does not, or one is. A message repeats nothing of an address
            that may hold a password.
    """
    if not url.startswith(_SCHEMES):
        raise ValueError(
            "is no PostgreSQL address; write postgresql://user@host:5432/database or "
            "postgresql://user@/database?host=/var/run/postgresql"
        )
    if not url.isprintable():
        raise ValueError("holds control characters; write them as %XX, or leave them")
    if _holds_password(url):
        raise ValueError(_REFUSAL)
    try:
        pq.Conninfo.parse(url.encode())
    except OperationalError as error:
        raise ValueError(f"is not understood by libpq: {str(error).strip()}") from error
    return url


def database_of(url: str) -> str:
    """Return the database that an address leads to, as libpq finds it."""
    found = {
        one.keyword: one.val.decode()
        for one in pq.Conninfo.parse(url.encode())
        if one.val
    }
    defaults = {
        one.keyword: one.val.decode() for one in pq.Conninfo.get_defaults() if one.val
    }
    for name in (b"dbname", b"user"):
        if name in found or name in defaults:
            return found.get(name) or defaults[name]
    raise ValueError("names no database")  # libpq knows the user's name, if any


def _holds_password(url: str) -> bool:
    # The last @ counts, since a password may hold slashes and more @.
    before_host = url.partition("://")[2].rpartition("@")[0]
    options = parse_qsl(url.partition("?")[2], keep_blank_values=True)
    return ":" in before_host or any(key in _SECRET_OPTIONS for key, _ in options)
