"""Taking a cluster's fingerprint, and comparing a restored cluster with it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from drkit.errors import NotHeld, PostgresRefused
from drkit.model.evidence import Check, CheckState
from drkit.model.fingerprint import Content, DatabaseFingerprint, Fingerprint, Mode
from drkit.model.fingerprint_compare import (
    DATABASES,
    SEQUENCES,
    TABLES,
    Difference,
    Severity,
    compare,
)
from drkit.model.fingerprint_stable import content
from drkit.operations.fingerprints.exact import exact
from drkit.operations.fingerprints.looking import (
    Limits,
    look_at_cluster,
    look_at_database,
    sessions,
)
from drkit.operations.fingerprints.sample import sample
from drkit.postgres import fingerprint as server
from drkit.postgres.fingerprint_guard import Alone

if TYPE_CHECKING:
    from drkit.operations.fingerprints.looking import Connect, Marked
    from drkit.postgres.connection import Connection
    from drkit.postgres.fingerprint import Table
    from drkit.protocols import Clock

__all__ = ["Limits", "checks", "compare", "deviations", "take", "take_again"]

_TOLD = 5  # differences that a check's detail names


def take(
    connect: Connect,
    mode: Mode,
    restore_point: str,
    clock: Clock,
    limits: Limits | None = None,
    marked: Marked = None,
) -> Fingerprint:
    """Take a running cluster's fingerprint.

    On a standby writers can't be held up and no restore point made: a sample is taken
    there, and its moment is an LSN.

    Args:
        connect: opens a session in a database; None is the policy's own.
        restore_point: the name to give its moment; at most 63 bytes.
        marked: called as soon as the restore point is made and nobody is held up.

    Raises:
        PostgresUnreachable: a connection was lost.
        PostgresRefused: the role may not make a restore point, or writers could not be
            held up and `limits` forbid to sample instead.
    """
    limits = limits or Limits()
    with sessions(connect) as opened:
        if mode is Mode.SAMPLED:
            return sample(opened, restore_point, clock, limits, marked)
        try:
            if server.in_recovery(opened.main):
                raise NotHeld("a standby can't hold up the primary's writers")
            return exact(opened, restore_point, clock, limits, marked)
        except NotHeld as error:
            if not limits.fall_back:
                raise
            return sample(opened, restore_point, clock, limits, marked, error.message)


def take_again(connect: Connect, expected: Fingerprint, clock: Clock) -> Fingerprint:
    """Take the fingerprint of a restored cluster that nobody writes to.

    The same tables and blocks are read as in `expected`, so that the two compare.

    Raises:
        PostgresUnreachable: a connection was lost.
    """
    with sessions(connect, alone=True) as opened:
        seen = look_at_cluster(opened.main)
        databases = tuple(
            _again(session, database, expected.seed)
            for database in expected.databases
            if (session := opened.databases.get(database.name))
        )
        return replace(
            expected,
            taken_at=clock.now(),
            lsn=server.place(opened.main),
            restore_point=None,
            facts=seen.facts,
            databases=databases,
            unread={**opened.unread, **seen.unread},
            unstable=frozenset(),
            held_seconds=0.0,
        )


def checks(
    expected: Fingerprint, found: Fingerprint, seconds: float = 0.0
) -> tuple[Check, ...]:
    """Compare fingerprints; return a check for each kind of thing, failed or passed.

    Args:
        seconds: that the comparing took; they are counted to the check of the tables.
    """
    differences = compare(expected, found)
    names = sorted(_counts(expected).items())
    return tuple(
        _check(name, count, differences, seconds if name == TABLES else 0.0)
        for name, count in names
    )


def deviations(expected: Fingerprint, found: Fingerprint) -> tuple[str, ...]:
    """Return what differs without being a fault, and what could not be compared."""
    deviating = [
        difference.text
        for difference in compare(expected, found)
        if difference.severity is Severity.DEVIATION
    ]
    unread = [f"{name} is not compared: {why}" for name, why in _unread(expected)]
    return (*deviating, *expected.limits, *unread)


def _unread(expected: Fingerprint) -> list[tuple[str, str]]:
    found = list(expected.unread.items())
    for database in expected.databases:
        where = f" in database {database.name}"
        found += [(name + where, why) for name, why in database.unread.items()]
    return found


def _counts(expected: Fingerprint) -> dict[str, int]:
    """Return by check how many things it compares."""
    counts: dict[str, int] = {
        DATABASES: 0,
        TABLES: sum(len(one.tables) for one in expected.databases),
        SEQUENCES: sum(len(one.sequences) for one in expected.databases),
    }
    for facts in (expected.facts, *(one.facts for one in expected.databases)):
        for section, objects in facts.items():
            counts[section] = counts.get(section, 0) + len(objects)
    return counts


def _check(
    name: str, count: int, differences: list[Difference], seconds: float
) -> Check:
    mine = [one for one in differences if one.check == name]
    failed = [one.text for one in mine if one.severity is Severity.FAILURE]
    state = CheckState.FAILED if failed else CheckState.PASSED
    detail = _told(failed) if failed else f"{count} compared"
    if len(mine) > len(failed):
        detail += f"; {len(mine) - len(failed)} deviate"
    return Check(f"fingerprint: {name}", state, detail, seconds, count)


def _told(texts: list[str]) -> str:
    more = f"; and {len(texts) - _TOLD} more" if len(texts) > _TOLD else ""
    return "; ".join(texts[:_TOLD]) + more


def _again(
    session: Connection, expected: DatabaseFingerprint, seed: int
) -> DatabaseFingerprint:
    seen = look_at_database(session, Alone())
    there, unread = server.tables(session, alone=True)
    by_name = {table.name: table for table in there}
    tables: dict[str, Content] = {}
    for name, wanted in expected.tables.items():
        if name in by_name:
            try:
                tables[name] = _read_again(session, by_name[name], wanted, seed)
            except PostgresRefused as error:
                unread[name] = error.message
    return DatabaseFingerprint(
        name=expected.name,
        facts=seen.facts,
        tables=tables,
        sequences=seen.sequences,
        unread={**unread, **seen.unread},
    )


def _read_again(
    session: Connection, table: Table, expected: Content, seed: int
) -> Content:
    if expected.whole:
        return server.read_whole(session, table, Alone())
    blocks = server.read_blocks(session, table, Alone(), expected.percent, seed)
    return content(blocks, expected.percent, expected.skipped)
