"""The policy's section on verifications."""

from __future__ import annotations

import json
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drkit import wiring
from drkit.config.document import read_document
from drkit.config.loading import load_policy, parse_policy
from drkit.config.schema import PolicySchema
from drkit.errors import PolicyError
from drkit.model.fingerprint import Mode
from drkit.model.schedule import Every
from drkit.model.size import format_size, parse_size
from drkit.model.verification import (
    CheckName,
    Choice,
    Comparison,
    Tolerance,
    VerificationRules,
)
from tests.config.samples import GOOD

if TYPE_CHECKING:
    from pathlib import Path

    from drkit.config.policy import Policy

PATH = "/etc/drkit/policies/production.yaml"
FIRST = GOOD.count("\n") + 1  # the line of `verification:`


def parse(section: str) -> Policy:
    return parse_policy(f"{GOOD}verification:\n{section}".encode(), PATH, {})


def rules(section: str) -> VerificationRules:
    return parse(section).verification


def assertion(*lines: str) -> str:
    first, *others = lines
    return "\n".join(
        ["  assertions:", f"    - {first}", *(f"      {line}" for line in others), ""]
    )


def test_without_a_section_everything_is_asked_for() -> None:
    found = parse_policy(GOOD.encode(), PATH, {}).verification
    assert found == VerificationRules(jobs=found.jobs)
    assert found.checks == set(CheckName)
    assert found.allow_missing == {"amcheck", "fingerprint", "heartbeat"}
    assert found.memory == 1 << 30
    assert found.fingerprint is Mode.SAMPLED
    assert found.every is None


def test_values_of_a_file() -> None:
    found = rules(
        "  directory: /scratch\n  jobs: 3\n  time_limit: 90 minutes\n"
        "  memory: 512 MB\n  max_size: 2 TiB\n  fingerprint: exact\n"
        "  choose: [random-moment, latest]\n  checks: [pages, write]\n"
        "  allow_missing: []\n  every: 7 days\n"
    )
    assert found == VerificationRules(
        jobs=3,
        directory="/scratch",
        time_limit=timedelta(minutes=90),
        memory=512 << 20,
        max_size=2 << 40,
        fingerprint=Mode.EXACT,
        choose=(Choice.RANDOM_MOMENT, Choice.LATEST),
        checks=frozenset({CheckName.PAGES, CheckName.WRITE}),
        allow_missing=frozenset(),
        every=timedelta(days=7),
    )
    assert rules("  fingerprint: off\n").fingerprint is None


@pytest.mark.parametrize(
    ("line", "comparison", "expected", "tolerance"),
    [
        ("equals: 0", Comparison.EQUALS, "0", None),
        ("equals: true", Comparison.EQUALS, "true", None),
        ("equals: '007'", Comparison.EQUALS, "007", None),
        ("at_least: -1.5", Comparison.AT_LEAST, "-1.5", None),
        ("at_most: 1 hour", Comparison.AT_MOST, "1 hour", None),
        ("equals: 10\n      tolerance: 3", Comparison.EQUALS, "10",
         Tolerance(Decimal(3))),
        ("equals: 10\n      tolerance: 0.5%", Comparison.EQUALS, "10",
         Tolerance(Decimal("0.5"), percent=True)),
    ],
)  # fmt: skip
def test_assertions(
    line: str, comparison: Comparison, expected: str, tolerance: Tolerance | None
) -> None:
    section = assertion("name: orders", "sql: SELECT 1;", line)
    (found,) = rules(section).assertions
    assert (found.name, found.database, found.sql) == ("orders", None, "SELECT 1")
    assert (found.comparison, found.expected) == (comparison, expected)
    assert found.tolerance == tolerance
    assert found.check == "assertion: orders"
    read = read_document(f"{GOOD}verification:\n{section}".encode()).value
    checked = PolicySchema.model_validate(read, context={"folder": "/etc"})
    dumped = json.loads(json.dumps(checked.model_dump(exclude_none=True)))
    assert PolicySchema.model_validate(dumped).value().verification == rules(section)


def test_reports_hear_how_often_a_verification_is_due(tmp_path: Path) -> None:
    file = tmp_path / "production.yaml"
    file.write_text(f"{GOOD}verification:\n  every: 7 days\n")
    assert wiring.rules(load_policy(file, {})).verification == Every(timedelta(days=7))
    file.write_text(GOOD)
    assert wiring.rules(load_policy(file, {})).verification is None


SQL = "sql: SELECT 1"
WRONG = [
    ("  job: 1\n", 1, "job", "did you mean `jobs`?"),
    ("  directory: scratch\n", 1, "directory", "must be an absolute path"),
    ("  directory: /srv/drkit/scratch\n", 1, "directory", "lies in the repository"),
    ("  directory: /var/lib/postgresql\n", 1, "directory", "lies in the data direct"),
    ("  memory: 1\n", 1, "memory", "1 has no unit; write, for example, 1 GB"),
    ("  memory: 1.5 GB\n", 1, "memory", "has a fraction"),
    ("  max_size: 0 GB\n", 1, "max_size", "is no size at all"),
    ("  max_size: 5 bananas\n", 1, "max_size", "is no size; write it as 512 MB"),
    ("  time_limit: 4\n", 1, "time_limit", "4 has no unit"),
    ("  every: 5 s\n", 1, "every", "is too often"),
    ("  fingerprint: full\n", 1, "fingerprint", "must be 'off', 'sampled' or 'exact'"),
    ("  choose: []\n", 1, "choose", "needs at least 1 entry"),
    ("  choose: [latest, latest]\n", 1, "choose", "names latest twice"),
    ("  choose: [oldest]\n", 1, "choose[0]", "must be 'latest'"),
    ("  checks: [page]\n", 1, "checks[0]", "must be 'pages'"),
    ("  checks: [rows, rows]\n", 1, "checks", "names rows twice"),
    ("  allow_missing: all\n", 1, "allow_missing", "must be a list"),
    (assertion("name: a", SQL), 2, "assertions[0]", "needs exactly one of equals"),
    (assertion("name: a", SQL, "equals: 1", "at_most: 1"), 2, "assertions[0]",
     "needs exactly one of equals"),
    (assertion("name: a", "sql: DELETE FROM t", "equals: 1"), 3, "assertions[0].sql",
     "must be one SELECT"),
    (assertion("name: a", "sql: ''", "equals: 1"), 3, "assertions[0].sql", "must be"),
    (assertion("name: a", SQL, "equal: 1"), 4, "assertions[0].equal",
     "did you mean `equals`?"),
    (assertion("name: a", SQL, "equals: [1]"), 4, "assertions[0].equals",
     "must be a number or text"),
    (assertion("name: a", SQL, "equals: 1", "tolerance: -1"), 5,
     "assertions[0].tolerance", "is no tolerance"),
    (assertion("name: a", SQL, "equals: 1", "tolerance: much"), 5,
     "assertions[0].tolerance", "write a number, such as 100, or 5 %"),
    (assertion("name: 'a\\nb'", SQL, "equals: 1"), 2, "assertions[0].name", "look"),
    (assertion(SQL, "equals: 1"), 2, "assertions[0].name",
     'is missing; write, for example, name: "recent orders"'),
    (assertion("{name: a, sql: SELECT 1, equals: 1}", "{}")[:-9]
     + "    - {name: a, sql: SELECT 2, equals: 1}\n", 1, "assertions", "names a twice"),
]  # fmt: skip


@pytest.mark.parametrize(("section", "line", "field", "says"), WRONG)
def test_names_line_and_field(section: str, line: int, field: str, says: str) -> None:
    with pytest.raises(PolicyError) as caught:
        parse(section)
    told = caught.value.message.splitlines()
    where = f"{PATH}:{FIRST + line}: verification.{field}: "
    assert any(each.startswith(where) and says in each for each in told), told


@given(st.integers(1, 1 << 50))
def test_a_size_is_read_as_it_is_written(size: int) -> None:
    assert parse_size(format_size(size)) == size


@pytest.mark.parametrize(
    ("text", "size"),
    [("1 GB", 1 << 30), ("1gib", 1 << 30), ("8kB", 8192), ("3 bytes", 3), ("7B", 7)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "1", "-1 GB", "1 ib", "1 PB", "GB", "1 GB x"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match=r"no size|no unit"):
        parse_size(text)


@given(
    st.decimals(0, 10**9, allow_nan=False, places=3),
    st.booleans(),
)
def test_a_tolerance_is_read_as_it_is_written(amount: Decimal, percent: bool) -> None:
    tolerance = Tolerance(amount, percent)
    (found,) = rules(
        assertion("name: a", SQL, "equals: 1", f"tolerance: '{tolerance}'")
    ).assertions
    assert found.tolerance == tolerance
