"""Connections to the server that is backed up.

No error that leaves this module carries a password: psycopg's own errors can repeat
parts of a connection string, so they are replaced, not chained.
"""

from __future__ import annotations

import logging
import select
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from drkit.errors import PostgresRefused, PostgresUnreachable, UsageError
from drkit.postgres.peer import acting_as, socket_owner
from drkit.postgres.session_settings import pin
from drkit.postgres.transport import guarded, not_proven

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from psycopg.pq.abc import PGconn, PGresult

OLDEST_VERSION = 130000
CANCEL_WITHIN = 2.0  # seconds for the server to take a cancel request
_POLL = 1.0  # seconds between chances for a signal handler to raise

# It warns of a rollback that fails behind an error which is raised all the same, and
# Python would print that between the lines of the progress.
logging.getLogger("psycopg").addHandler(logging.NullHandler())

# Ours unless the URL says otherwise. A peer that vanished is noticed within a minute.
_PARAMETERS = {
    "connect_timeout": "10",
    "keepalives_idle": "20",
    "keepalives_interval": "10",
    "keepalives_count": "4",
    "tcp_user_timeout": "60000",
}


class Connection(psycopg.Connection[tuple[Any, ...]]):
    """A session, used for one statement after the other; adds drkit's own errors."""

    def version(self) -> int:
        """Return the server's version, as in 160004."""
        return self.info.server_version

    def query(
        self, statement: str, parameters: tuple[Any, ...] = ()
    ) -> list[tuple[Any, ...]]:
        """Run one statement and return its rows.

        Raises:
            PostgresUnreachable: the connection was lost.
            PostgresRefused: the server answered with an error.
        """
        with translated(self):
            # psycopg types statements as literals against injection; ours are constants
            cursor = self.execute(statement.encode(), parameters or None)
            return cursor.fetchall() if cursor.description else []

    def send(self, statement: str, parameters: tuple[str, ...]) -> None:
        """Send a statement, and don't wait; until `received` it takes no other.

        Args:
            statement: of one row with one column; parameters are `$1` and so on.

        Raises:
            PostgresUnreachable: the connection was lost.
        """
        with translated(self):
            self.pgconn.send_query_params(
                statement.encode(), [parameter.encode() for parameter in parameters]
            )
            while self.pgconn.flush():
                ready(self.pgconn, select.POLLOUT)

    def received(self) -> str:
        """Wait for the answer to what was sent; return its text.

        Waiting holds up neither other threads nor, for long, a signal.

        Raises:
            PostgresUnreachable: the connection was lost.
            PostgresRefused: the server answered with an error.
        """
        with translated(self):
            line = self.pgconn
            while line.is_busy():
                if ready(line, select.POLLIN):
                    line.consume_input()
            result = line.get_result()
            while line.get_result() is not None:
                continue  # takes the end of the statement
            if result is None or result.status != pq.ExecStatus.TUPLES_OK:
                raise _failed(line, result)
            return (result.get_value(0, 0) or b"").decode()

    def alive(self) -> bool:
        """Say whether the session is still there; cheap."""
        try:
            self.execute("SELECT 1")
        except psycopg.Error:
            return False
        return True

    def cancel_running(self) -> None:
        """Ask the server to end the statement that runs, if any; from any thread."""
        if self.pgconn.transaction_status == pq.TransactionStatus.ACTIVE:
            with suppress(psycopg.Error):
                self.cancel_safe(timeout=CANCEL_WITHIN)

    def end(self) -> None:
        """Close the session; what it still waits for is cancelled first."""
        self.cancel_running()
        self.close()


def connect(url: str, password: str | None, purpose: str) -> Connection:
    """Open a session that may stay open for hours, each statement for itself.

    Args:
        url: a libpq URL or connection string.
        password: kept apart from the URL, if one is needed.
        purpose: what the session is for; `pg_stat_activity` shows it.

    Raises:
        PostgresUnreachable: no server answered.
        PostgresRefused: it refused the login, is older than 13, or a connection pooler
            stands between.
        UsageError: the URL is malformed.
    """
    conninfo = _conninfo(url, password, purpose)
    try:
        connection = _log_in(conninfo)
    except psycopg.Error as error:
        raise _login_error(error, url, password) from None
    try:
        _prepare_session(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def connector(
    url: str, password: str | None, purpose: str
) -> Callable[[str | None], Connection]:
    """Return what opens a session in a database: None is the one that the URL names.

    Args:
        url: as for `connect`, as the others are.
    """

    def open_(database: str | None) -> Connection:
        place = {} if database is None else {"dbname": database}
        return connect(make_conninfo(url, **place), password, purpose)

    return open_


def replication_connect(url: str, password: str | None, purpose: str) -> PGconn:
    """Open a physical replication connection, for `BASE_BACKUP` and its kin.

    Args:
        url: as for `connect`.
        password: as for `connect`.
        purpose: as for `connect`.

    Raises:
        PostgresUnreachable: no server answered.
        PostgresRefused: it refused the login.
        UsageError: the URL is malformed.
    """
    conninfo = _conninfo(url, password, purpose, replication="true")
    connection = pq.PGconn.connect(conninfo.encode())
    owner = socket_owner(connection)
    if owner is not None:
        connection.finish()
        with acting_as(owner):
            connection = pq.PGconn.connect(conninfo.encode())
    if connection.status != pq.ConnStatus.OK:
        error = psycopg.OperationalError(connection.get_error_message())
        connection.finish()
        raise _login_error(error, url, password) from None
    return connection


def ready(line: PGconn, event: int) -> bool:
    """Wait a moment for a session's socket; say whether it is ready.

    Args:
        event: `select.POLLIN` or `POLLOUT`.
    """
    poll = select.poll()  # select.select takes no descriptor above 1023
    poll.register(line.socket, event)
    return bool(poll.poll(_POLL * 1000))


def _failed(line: PGconn, result: PGresult | None) -> psycopg.Error:
    if result is None:
        return psycopg.OperationalError(line.get_error_message())
    return psycopg.errors.error_from_result(result)


@contextmanager
def translated(connection: Connection) -> Iterator[None]:
    """Turn psycopg's errors on an open connection into drkit's.

    Raises:
        PostgresUnreachable: the connection was lost.
        PostgresRefused: the server answered with an error.
    """
    try:
        yield
    except psycopg.Error as error:
        raise _statement_error(connection, error) from None


def _log_in(conninfo: str) -> Connection:
    def attempt() -> Connection:
        return Connection.connect(
            conninfo, autocommit=True, client_encoding="utf8", prepare_threshold=None
        )

    try:
        return attempt()
    except psycopg.Error as error:
        owner = socket_owner(error.pgconn)
        if owner is None:
            raise
    with acting_as(owner):
        return attempt()


def _conninfo(url: str, password: str | None, purpose: str, **extra: str) -> str:
    try:
        found = conninfo_to_dict(url).items()
        given = {name: str(value) for name, value in found if value}
    except psycopg.Error:
        raise UsageError(
            "the connection URL is malformed",  # and may hold a password: not shown
            hint="write it as postgresql://user@host:5432/database; characters like "
            "@ : / in its parts must be percent-encoded",
        ) from None
    if password is not None:
        extra["password"] = password
    merged = _PARAMETERS | given | guarded(given) | extra
    return make_conninfo("", **(merged | {"application_name": f"drkit {purpose}"}))


def _prepare_session(connection: Connection) -> None:
    version = connection.version()
    if version < OLDEST_VERSION:
        raise PostgresRefused(f"PostgreSQL {version // 10000} is too old: 13 is needed")
    # A pooler makes up the process id it gives its clients, for their cancel requests.
    if pin(connection) != connection.info.backend_pid:
        raise PostgresRefused(
            f"a connection pooler answers at {_place(connection)}: a backup lives and "
            "dies with one server session",
            hint="let the URL point at the server itself, past the pooler",
        )


def _place(connection: Connection) -> str:
    return f"{connection.info.host}:{connection.info.port}"


def _login_error(
    error: psycopg.Error, url: str, password: str | None
) -> PostgresUnreachable | PostgresRefused:
    text = _without_secrets(str(error).strip(), url, password)
    refused = not_proven(text)
    if refused is not None:
        return refused
    not_yet = "starting up" in text or "shutting down" in text or "recovery" in text
    if "FATAL:" in text and not not_yet:
        return PostgresRefused(
            f"PostgreSQL refused the login: {text}",
            hint="check user, password, pg_hba.conf and database of the policy's URL",
        )
    return PostgresUnreachable(
        f"cannot connect to PostgreSQL: {text}",
        hint="check that the server runs and that host and port are right",
    )


def _without_secrets(text: str, url: str, password: str | None) -> str:
    for secret in (password, conninfo_to_dict(url).get("password")):
        if secret:
            text = text.replace(str(secret), "***")
    return text


def _statement_error(
    connection: Connection, error: psycopg.Error
) -> PostgresUnreachable | PostgresRefused:
    if connection.closed or connection.broken:
        return PostgresUnreachable(
            f"the connection to PostgreSQL was lost: {str(error).strip()}",
            hint="see the server's log for the reason",
        )
    message = error.diag.message_primary or str(error).strip()
    hint = error.diag.message_hint
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        hint = (
            "drkit's role needs membership in pg_monitor and EXECUTE on "
            "pg_backup_start and pg_backup_stop, or superuser"
        )
    return PostgresRefused(f"PostgreSQL answered: {message}", hint=hint)
