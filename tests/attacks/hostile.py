"""A database user who wants to be more: what he may do, and whether it has worked.

His code writes a line into the server's log whenever somebody else runs it. That can't
be undone, and takes no right.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from drkit.postgres.connection import Connection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pytest

    from tests.pg import Cluster

NAME = "mallory"
RAN = "mallory ran as"
ORDINARY = """
    CREATE ROLE mallory LOGIN;
    GRANT CREATE ON DATABASE postgres TO mallory;
    CREATE SCHEMA m AUTHORIZATION mallory;
"""
BODY = f"""
    BEGIN
        IF session_user <> 'mallory' OR current_user <> 'mallory' THEN
            RAISE LOG '{RAN} %', current_user;
        END IF;
        RETURN 1;
    END
"""
# A function can be immutable and log all the same: nobody checks.
TRAPS = f"""
    CREATE FUNCTION m.sprung() RETURNS int LANGUAGE plpgsql AS $$ {BODY} $$;
    CREATE FUNCTION m.spring(int) RETURNS int IMMUTABLE LANGUAGE plpgsql
        AS $$ {BODY} $$;
    CREATE TABLE m.t (a int, b text);
    INSERT INTO m.t SELECT n, n FROM generate_series(1, 300) n;
    CREATE SEQUENCE m.s;
    CREATE SEQUENCE m.used; SELECT nextval('m.used');
"""


class Mallory:
    """His sessions; errors of what he tries are his own affair."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    def session(self, dbname: str = "postgres") -> psycopg.Connection:
        return psycopg.connect(
            host=self.cluster.directory, user=NAME, dbname=dbname, autocommit=True
        )

    def does(self, statements: str, dbname: str = "postgres") -> None:
        with self.session(dbname) as session:
            session.execute(statements)

    def tries(self, statements: str) -> bool:
        """Try something without waiting for anybody; say whether it went through."""
        with self.session() as session, contextlib.suppress(psycopg.Error):
            session.execute("SET lock_timeout = '50ms'")
            session.execute(statements)
            return True
        return False


def mallory_in(cluster: Cluster) -> Mallory:
    """Give a cluster an ordinary user with a schema, tables and traps."""
    cluster.rows(ORDINARY)
    mallory = Mallory(cluster)
    mallory.does(TRAPS)
    return mallory


def code_that_ran(cluster: Cluster) -> list[str]:
    """Whom his code ran as, other than himself, by the server's log."""
    log = Path(cluster.log_path).read_text(errors="replace")
    return [line.split(RAN)[1].strip() for line in log.splitlines() if RAN in line]


@contextlib.contextmanager
def before_each(
    monkeypatch: pytest.MonkeyPatch, text: str, action: Callable[[], Any]
) -> Iterator[list[str]]:
    """Do something just before drkit sends a statement that holds a text.

    Yields:
        The statements that were sent behind it.
    """
    sent: list[str] = []
    real = Connection.execute

    def execute(self: Connection, query: Any, *args: Any, **options: Any) -> Any:
        statement = query.decode() if isinstance(query, bytes) else str(query)
        if text in statement:
            action()
            sent.append(statement)
        return real(self, query, *args, **options)

    with monkeypatch.context() as patched:
        patched.setattr(Connection, "execute", execute)
        yield sent
