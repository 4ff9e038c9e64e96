"""Comparing the fingerprint of a restored cluster with the one taken at backup time.

Some differences are no fault. Each has its rule here:

* Recovery sets a sequence to the value in WAL, which is up to 32 values, and the
  session's cache, ahead of the last one given out (SEQ_LOG_VALS in the server).
* Unlogged tables are empty after recovery, so their content is in no fingerprint.
* A scratch instance has settings of its own, and its host other collation libraries:
  deviations, not failures. A person should know them.
* What changed while the fingerprint was taken is compared with nothing.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from drkit.model.fingerprint import (
        Attributes,
        Content,
        DatabaseFingerprint,
        Facts,
        Fingerprint,
        SequenceState,
        Unstable,
    )

LOGGED_AHEAD = 32
"""Values that the server writes to WAL ahead: SEQ_LOG_VALS."""

DATABASES = "databases"
TABLES = "tables"
SEQUENCES = "sequences"

_DEVIATING = frozenset({"settings", "collation versions"})
_LONGEST = 120  # characters of an attribute's value in a text


class Severity(StrEnum):
    """What a difference means.

    FAILURE: the restored cluster is not what was backed up.
    DEVIATION: it is run in another way, or could not be compared here.
    """

    FAILURE = "failure"
    DEVIATION = "deviation"


class Difference(NamedTuple):
    """One difference.

    Attributes:
        check: a section of the facts, `tables`, `sequences` or `databases`.
        text: which object, what was expected, what was found.
    """

    check: str
    severity: Severity
    text: str


def compare(expected: Fingerprint, found: Fingerprint) -> list[Difference]:
    """Return where a restored cluster differs from what was backed up.

    Args:
        expected: taken at backup time.
        found: taken of the restored cluster, with the same choice of blocks.
    """
    differences = list(
        _compare_facts("", expected.facts, found.facts, expected.unstable)
    )
    differences += _unread("", DATABASES, expected, found)
    for database in expected.databases:
        other = found.database(database.name)
        if other is not None:
            differences += _compare_database(database, other)
        elif database.name not in found.unread:
            text = f"database {database.name} is missing"
            differences.append(Difference(DATABASES, Severity.FAILURE, text))
    return differences


def _compare_database(
    expected: DatabaseFingerprint, found: DatabaseFingerprint
) -> Iterator[Difference]:
    where = f" in database {expected.name}"
    yield from _compare_facts(where, expected.facts, found.facts, expected.unstable)
    yield from _compare_tables(where, expected, found)
    for name, state in expected.sequences.items():
        yield from _compare_sequence(f"{name}{where}", state, found.sequences.get(name))
    yield from _unread(where, TABLES, expected, found)


def _compare_facts(
    where: str, expected: Facts, found: Facts, unstable: Unstable
) -> Iterator[Difference]:
    for section, objects in expected.items():
        others = found.get(section)
        if others is None:
            continue  # `found.unread` says why
        severity = _severity(section)
        for name in sorted(objects.keys() | others.keys()):
            if (section, name) not in unstable:
                text = _object_text(objects.get(name), others.get(name))
                if text:
                    yield Difference(section, severity, f"{name}{where} {text}")


def _severity(section: str) -> Severity:
    return Severity.DEVIATION if section in _DEVIATING else Severity.FAILURE


def _object_text(expected: Attributes | None, found: Attributes | None) -> str:
    """Return what differs, or nothing; what a role may not see, it can't compare."""
    if found is None:
        return "is missing"
    if expected is None:
        return "was not there when the backup was taken"
    return "; ".join(
        _attribute_text(name, expected[name], found[name])
        for name in sorted(expected.keys() & found.keys())
        if expected[name] != found[name]
    )


def _attribute_text(name: str, expected: str, found: str) -> str:
    if name == "definition":
        return "has another definition"
    return f"has {name} {_short(found)}, not {_short(expected)}"


def _short(value: str) -> str:
    if not value:
        return "(none)"
    return value if len(value) <= _LONGEST else f"{value[:_LONGEST]}…"


def _compare_tables(
    where: str, expected: DatabaseFingerprint, found: DatabaseFingerprint
) -> Iterator[Difference]:
    for name, content in expected.tables.items():
        other = found.tables.get(name)
        if other is None:
            if name not in found.unread:
                yield Difference(TABLES, Severity.FAILURE, f"{name}{where} is missing")
        elif text := _content_text(content, other):
            yield Difference(TABLES, Severity.FAILURE, f"{name}{where} {text}")


def _content_text(expected: Content, found: Content) -> str:
    if (expected.percent, expected.skipped) != (found.percent, found.skipped):
        return "was read in other blocks than at backup time"
    part = "" if expected.whole else " in the blocks that were compared"
    if expected.rows != found.rows:
        return f"has {found.rows} rows, not {expected.rows}{part}"
    if expected.digest != found.digest:
        return f"has {found.rows} rows as it had, but with other content{part}"
    return ""


def _compare_sequence(
    name: str, expected: SequenceState, found: SequenceState | None
) -> Iterator[Difference]:
    if found is None:
        yield Difference(SEQUENCES, Severity.FAILURE, f"{name} is missing")
    elif _forward(expected, expected.until) < _forward(expected, expected.reached):
        return  # somebody set it back, or it began anew, at just that moment
    elif _forward(expected, found.reached) < _forward(expected, expected.reached):
        yield Difference(
            SEQUENCES,
            Severity.FAILURE,
            f"{name} lags: its last value is {found.reached}, and was "
            f"{expected.reached} already; it would give values out twice",
        )
    elif _ahead(expected, found) > LOGGED_AHEAD + expected.cache:
        yield Difference(
            SEQUENCES,
            Severity.FAILURE,
            f"{name} is at {found.reached}, further than recovery brings it from "
            f"{expected.until}",
        )


def _forward(state: SequenceState, value: int) -> int:
    """Return a value that grows with every next one."""
    return value if state.increment > 0 else -value


def _ahead(expected: SequenceState, found: SequenceState) -> float:
    return (found.reached - expected.until) / expected.increment


def _unread(
    where: str,
    others: str,
    expected: Fingerprint | DatabaseFingerprint,
    found: Fingerprint | DatabaseFingerprint,
) -> Iterator[Difference]:
    """Tell what was read at backup time and could not be read now: no silent gap.

    Args:
        others: the check of what is no section.
    """
    for name in sorted(found.unread.keys() - expected.unread.keys()):
        text = f"{name}{where} could not be read: {found.unread[name]}"
        check = name if name in expected.facts else others
        yield Difference(check, Severity.FAILURE, text)
