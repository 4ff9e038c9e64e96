"""Proving that the cluster takes writes and keeps them."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from drkit.operations.proving.subject import Finding, failed, passed

if TYPE_CHECKING:
    from drkit.operations.proving.subject import Run

_ROWS = 1000
_MAY_WRITE = "SET default_transaction_read_only = off"
_MAKE = """
    BEGIN;
    CREATE SCHEMA {schema};
    CREATE SEQUENCE {schema}.numbers;
    CREATE TABLE {schema}.written (id bigint PRIMARY KEY
        DEFAULT nextval('{schema}.numbers'), nonce text NOT NULL);
    INSERT INTO {schema}.written (nonce)
        SELECT '{nonce}' FROM generate_series(1, {rows});
    COMMIT
"""
_READ = """
    SELECT (SELECT count(*) FROM {schema}.written WHERE nonce = '{nonce}'),
        nextval('{schema}.numbers')
"""
_DROP = "DROP SCHEMA {schema} CASCADE"


def check_write(run: Run) -> Finding:
    """Commit a table in one session, read it in another, and drop it again."""
    names = {
        "schema": f"drkit_{secrets.token_hex(8)}",
        "nonce": secrets.token_hex(16),
        "rows": _ROWS,
    }
    with run.session(run.subject.database) as connection:
        connection.query(_MAY_WRITE)
        connection.query(_MAKE.format(**names))
    with run.session(run.subject.database) as connection:
        connection.query(_MAY_WRITE)
        found, following = connection.query(_READ.format(**names))[0]
        connection.query(_DROP.format(**names))
    wrong = []
    if found != _ROWS:
        wrong.append(f"{_ROWS} rows were committed, and another session reads {found}")
    if following != _ROWS + 1:
        wrong.append(f"a sequence gives {following} after {_ROWS}")
    detail = f"{_ROWS} rows committed, read in another session, and dropped"
    return failed(wrong, found) if wrong else passed(detail, found)
