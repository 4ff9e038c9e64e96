"""What the checks of a restored cluster share: their subject, time, and findings."""

from __future__ import annotations

import threading
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from psycopg.conninfo import make_conninfo

from drkit.errors import DrkitError
from drkit.model.evidence import CheckState
from drkit.postgres.interruptible import Interruptible
from drkit.postgres.session_settings import program_options

if TYPE_CHECKING:
    from collections.abc import Iterator

    from drkit.model.evidence import Check
    from drkit.model.verification import VerificationRules
    from drkit.operations.fingerprints.looking import Connect
    from drkit.postgres.connection import Connection
    from drkit.postgres.process import Completed
    from drkit.postgres.server import ThrowawayServer
    from drkit.protocols import Clock, Progress

TOLD = 5  # things that a detail names
TIME_OVER = "the time limit was reached"
AS_A_REPLICA = "SET session_replication_role = replica"
"""Lets no event trigger of the database's see what a session changes."""


_DATABASES = """
    SELECT datname::text, datallowconn FROM pg_database
    WHERE datname <> 'template0' ORDER BY datname
"""


@dataclass(frozen=True, slots=True)
class Subject:
    """A running, promoted scratch instance, as the checks see it.

    Attributes:
        connect: opens a superuser's session in a database; None is one that is always
            there.
        database: the one that the policy's URL names; assertions are asked in it.
        system_identifier, timeline, segment_blocks, checksums: what it must have; the
            blocks are a segment's, `relation_segment_size`.
    """

    server: ThrowawayServer
    data_directory: str
    connect: Connect
    database: str
    system_identifier: str
    timeline: int
    segment_blocks: int
    checksums: bool


class Finding(NamedTuple):
    """What one check has found.

    Attributes:
        compared: how many things it looked at.
        deviations: what the record has to say of it, each a sentence.
        parts: checks to report in its place.
    """

    state: CheckState
    detail: str
    compared: int = 0
    deviations: tuple[str, ...] = ()
    parts: tuple[Check, ...] = ()


def passed(detail: str, compared: int = 0, deviations: tuple[str, ...] = ()) -> Finding:
    """Return the finding of a check that passed."""
    return Finding(CheckState.PASSED, detail, compared, deviations)


def failed(problems: list[str], compared: int = 0) -> Finding:
    """Return the finding of a check that failed; the first problems are told."""
    return Finding(CheckState.FAILED, told(problems), compared)


def not_done(reason: str) -> Finding:
    """Return the finding of a check that could not be made."""
    return Finding(CheckState.NOT_DONE, reason)


def told(texts: list[str]) -> str:
    """Return the first of many sentences, and how many more there are."""
    more = f"; and {len(texts) - TOLD} more" if len(texts) > TOLD else ""
    return "; ".join(texts[:TOLD]) + more


class Run:
    """One run of all checks: its subject, its rules, and the time that is left.

    Attributes:
        connect: opens sessions that end at the deadline, whatever they wait for.
    """

    def __init__(
        self,
        subject: Subject,
        rules: VerificationRules,
        clock: Clock,
        progress: Progress,
        deadline: float,
    ) -> None:
        self.subject = subject
        self.rules = rules
        self.clock = clock
        self.progress = progress
        self.deadline = deadline
        self.connect = Interruptible(subject.connect)

    @contextmanager
    def until_the_deadline(self) -> Iterator[Run]:
        """Cut sessions off when the time is over."""
        timer = threading.Timer(max(self.left(), 0.0), self.connect.interrupt)
        timer.daemon = True
        timer.start()
        try:
            yield self
        finally:
            timer.cancel()
            timer.join()
            self.connect.close()

    def left(self) -> float:
        """Return the seconds that are left; none, or less, when the time is over."""
        return self.deadline - self.clock.monotonic()

    @contextmanager
    def session(self, database: str | None = None) -> Iterator[Connection]:
        """Open a session for a while.

        Raises:
            PostgresUnreachable, PostgresRefused: it can't be opened.
        """
        with closing(self.connect(database)) as connection:
            yield connection

    def databases(self) -> tuple[list[str], list[str]]:
        """Return the databases that let connections in, and those that do not.

        The server's own empty `template0` is left out.
        """
        with self.session() as connection:
            rows = connection.query(_DATABASES)
        names: tuple[list[str], list[str]] = ([], [])
        for name, lets_in in rows:
            names[0 if lets_in else 1].append(name)
        return names

    def tool(
        self,
        name: str,
        *arguments: str,
        raising: type[DrkitError] | None = DrkitError,
    ) -> Completed:
        """Run one of PostgreSQL's programs for as long as time is left.

        Raises:
            DrkitError: it failed, as `raising` says, or took too long.
        """
        return self.subject.server.run_tool(
            name, *arguments, timeout=max(self.left(), 0.0), raising=raising
        )

    def conninfo(self, database: str) -> str:
        """Return how a program reaches a database; holds no secret.

        Settings of databases and roles are not in force there, as in sessions.
        """
        with self.session() as connection:
            info = connection.info
            return make_conninfo(
                host=info.host,
                port=info.port,
                user=info.user,
                dbname=database,
                options=f"{info.options} {program_options()}".strip(),
            )
