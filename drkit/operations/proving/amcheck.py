"""Proving that indexes and tables agree, with PostgreSQL's own amcheck."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING

from drkit.errors import DrkitError, NotFound
from drkit.operations.proving.subject import (
    AS_A_REPLICA,
    Finding,
    failed,
    not_done,
    passed,
)
from drkit.postgres.process import tail

if TYPE_CHECKING:
    from collections.abc import Iterator

    from drkit.operations.proving.subject import Run

_CORRUPT = 2  # the exit code for what pg_amcheck has found
_AVAILABLE = "SELECT count(*) FROM pg_available_extensions WHERE name = 'amcheck'"
_INSTALLED = "SELECT count(*) FROM pg_extension WHERE extname = 'amcheck'"
_LOOKED = re.compile(r"^pg_amcheck: checking (heap table|btree index) ", re.MULTILINE)


def check_structure(run: Run) -> Finding:
    """Check every table, and every B-tree index and that it has each row."""
    names, closed = run.databases()
    with run.session() as connection:
        available = connection.query(_AVAILABLE)[0][0]
    if not available:
        return not_done("the extension amcheck is not installed on this machine")
    try:
        run.subject.server.binaries.tool("pg_amcheck")
    except NotFound as error:
        return not_done(error.message)
    looked: list[str] = []
    problems: list[str] = []
    for name in names:
        with _installed(run, name):
            found, wrong = _check(run, name)
        looked += found
        problems += (f"database {name}: {text}" for text in wrong)
    if problems:
        return failed(problems, len(looked))
    return _passed(looked, closed)


def _passed(looked: list[str], closed: list[str]) -> Finding:
    tables = looked.count("heap table")
    detail = (
        f"{tables} tables and {len(looked) - tables} B-tree indexes, with every row"
    )
    left_out = tuple(
        f"database {name} allows no connections, so amcheck did not see it"
        for name in closed
    )
    return passed(detail, len(looked), left_out)


@contextlib.contextmanager
def _installed(run: Run, database: str) -> Iterator[None]:
    """Have the extension in a database for a while: the fingerprint would see it.

    No event trigger of the database's notes it down.
    """
    with run.session(database) as connection:
        connection.query(AS_A_REPLICA)
        connection.query("SET default_transaction_read_only = off")
        there = connection.query(_INSTALLED)[0][0]
        if not there:
            connection.query("CREATE EXTENSION amcheck SCHEMA pg_catalog")
        try:
            yield
        finally:
            if not there:
                connection.query("DROP EXTENSION amcheck")


def _check(run: Run, database: str) -> tuple[list[str], list[str]]:
    """Return the kinds of what was looked at, one by one, and what is wrong.

    Raises:
        DrkitError: it could not be carried through.
    """
    done = run.tool(
        "pg_amcheck",
        "--heapallindexed",
        "--verbose",
        f"--jobs={run.rules.jobs}",
        run.conninfo(database),
        raising=None,
    )
    looked = _LOOKED.findall(done.stderr.decode("utf-8", "replace"))
    problems = _problems(done.stdout.decode("utf-8", "replace"))
    if done.returncode == (_CORRUPT if problems else 0):
        return looked, problems
    raise DrkitError(
        f"pg_amcheck ended with exit code {done.returncode} in database {database}"
        f"{tail(done.stdout + done.stderr)}"
    )


def _problems(output: str) -> list[str]:
    """Return what was found, one each: a line, and the indented ones that follow."""
    found: list[str] = []
    for line in output.splitlines():
        if line[:1].isspace() and found:
            found[-1] += f" {line.strip()}"
        elif line.strip():
            found.append(line.strip())
    return found
