"""Getting into a scratch instance, and the proof that it does not get out."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

from drkit.errors import DrkitError, PostgresRefused, PostgresUnreachable
from drkit.postgres.connection import connect
from drkit.postgres.scratch_settings import must_be, session_settings
from drkit.postgres.superusers import superuser_names

if TYPE_CHECKING:
    from collections.abc import Iterator

_DATABASES = ("postgres", "template1")  # the first may have been dropped
_IS_SUPERUSER = "SELECT rolsuper FROM pg_roles WHERE rolname = current_user"
_SHOWN = "SELECT name, reset_val FROM pg_settings WHERE name = ANY (%s)"
_REACHING_OUT = """
    SELECT backend_type FROM pg_stat_activity
    WHERE backend_type IN ('archiver', 'walreceiver', 'walsender', 'slotsync worker')
        OR backend_type LIKE 'logical replication %'
"""


class Login(NamedTuple):
    """How to connect as a superuser; `socket` is the directory that it is in."""

    socket: str
    superuser: str
    database: str
    major: int

    def url(self, database: str = "") -> str:
        """Return a connection URL; it holds no secret."""
        wanted = session_settings(self.major)
        options = " ".join(f"-c {name}={value}" for name, value in wanted.items())
        user = quote(self.superuser.encode(errors="surrogateescape"), safe="")
        return (
            f"postgresql://{user}@/{quote(database or self.database, safe='')}"
            f"?host={quote(self.socket, safe='')}&options={quote(options, safe='')}"
        )


def find_login(data_directory: str, socket: str, major: int) -> Login:
    """Find a superuser's name, and a database that lets it in.

    Raises:
        PostgresRefused: there is none.
    """
    refusal: DrkitError | None = None
    for login in _candidates(data_directory, socket, major):
        try:
            with closing(connect(login.url(), None, "scratch")) as connection:
                if connection.query(_IS_SUPERUSER)[0][0]:
                    return login
        except (PostgresRefused, PostgresUnreachable) as error:
            refusal = error
    raise PostgresRefused(
        f"no superuser can log in to the cluster in {data_directory}: {refusal}",
        hint="it needs a superuser with LOGIN, and a database postgres or template1",
    )


def _candidates(data_directory: str, socket: str, major: int) -> Iterator[Login]:
    for name in superuser_names(data_directory):
        for database in _DATABASES:
            yield Login(socket, name, database, major)


def prove_isolated(login: Login) -> None:
    """Look that what reaches outside is off, before anybody relies on it.

    Raises:
        PostgresRefused: something is on.
    """
    expected = must_be(login.major)
    with closing(connect(login.url(), None, "scratch")) as connection:
        shown = dict(connection.query(_SHOWN, (list(expected),)))
        running = [row[0] for row in connection.query(_REACHING_OUT)]
    wrong = [name for name, value in expected.items() if shown.get(name) != value]
    if wrong or running:
        raise PostgresRefused(
            "the scratch instance is not cut off from the outside: "
            + ", ".join([*wrong, *running]),
            hint="this is a bug of drkit; please report it",
        )
