"""Proving that every row can be read: dumped to nowhere, and counted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drkit.operations.proving.subject import Finding, not_done, passed
from drkit.postgres.libraries import missing_files

if TYPE_CHECKING:
    from drkit.operations.proving.subject import Run
    from drkit.postgres.connection import Connection

_TO_NOWHERE = ("--file=/dev/null", "--no-sync")
_TABLES = """
    SELECT c.oid::regclass::text FROM pg_class c
    WHERE c.relkind IN ('r', 'm') AND c.relispopulated AND c.relpersistence <> 't'
    ORDER BY c.oid
"""
_COUNT = "SELECT count(*) FROM ONLY {table}"
# Rows are counted in the tables themselves, not in their indexes.
_BY_TABLE = """
    SET enable_indexscan = off; SET enable_indexonlyscan = off;
    SET enable_bitmapscan = off; SET row_security = off; SET jit = off
"""


def check_rows(run: Run) -> Finding:
    """Dump every database that lets connections in, and what belongs to none."""
    names, closed = run.databases()
    if not names:
        return not_done("no database lets connections in")
    tables = rows = 0
    deviations = [
        f"database {name} allows no connections, so its rows were not read"
        for name in closed
    ]
    for name in names:
        with run.session(name) as connection:
            deviations += (
                f"in database {name}, {text}" for text in missing_files(connection)
            )
            counted = _count(connection)
        _dump(run, name)
        tables, rows = tables + counted[0], rows + counted[1]
    _dump_globals(run, names[0])
    detail = (
        f"{rows} rows of {tables} tables, catalogs among them, in {len(names)} "
        "databases, and the globals"
    )
    return passed(detail, rows, tuple(deviations))


def _count(connection: Connection) -> tuple[int, int]:
    """Return how many tables there are, and how many rows they have together."""
    connection.query(_BY_TABLE)
    tables = [name for (name,) in connection.query(_TABLES)]
    counts = [connection.query(_COUNT.format(table=one)) for one in tables]
    return len(tables), sum(rows[0][0] for rows in counts)


def _dump(run: Run, database: str) -> None:
    place = f"--dbname={run.conninfo(database)}"
    run.tool("pg_dump", "--format=custom", "--compress=0", *_TO_NOWHERE, place)


def _dump_globals(run: Run, database: str) -> None:
    place = f"--dbname={run.conninfo(database)}"
    run.tool("pg_dumpall", "--globals-only", *_TO_NOWHERE, place)
