"""What policies assert: judged by the types of values, asked without writing."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drkit.model.evidence import CheckState
from drkit.model.verification import Assertion, CheckName, Comparison, Tolerance
from drkit.operations.proving.assertions import within
from tests.operations.proofs import RULES, proof_of, subject_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from drkit.model.evidence import Check
    from drkit.operations.proving.checks import Subject
    from tests.pg import Cluster, ClusterFactory

EQUALS, LEAST, MOST = Comparison.EQUALS, Comparison.AT_LEAST, Comparison.AT_MOST
ONLY = replace(RULES, checks=frozenset({CheckName.ASSERTIONS}))


@pytest.fixture(scope="module")
def cluster(cluster_factory: ClusterFactory, newest_version: int) -> Iterator[Cluster]:
    made = cluster_factory.make(newest_version)
    with made:
        made.rows(
            "CREATE TABLE orders AS SELECT n AS id FROM generate_series(1, 1000) n;"
            "CREATE SCHEMA shop; CREATE TABLE shop.items AS SELECT 7 AS n;"
            "CREATE SEQUENCE numbers"
        )
        made.rows("CREATE DATABASE side")
        made.rows("ALTER DATABASE side SET search_path = shop")
        made.rows("CREATE SCHEMA shop; CREATE TABLE shop.t AS SELECT 5 AS n", "side")
        yield made


@pytest.fixture(scope="module")
def subject(cluster: Cluster) -> Subject:
    return subject_of(cluster)


def judged(subject: Subject, *assertions: Assertion) -> list[Check]:
    """Judge assertions in one run; return their checks."""
    proof = proof_of(subject, replace(ONLY, assertions=assertions))
    failed = any(one.state is not CheckState.PASSED for one in proof.checks)
    assert proof.passed is not failed
    return list(proof.checks[1:])


def an(sql: str, comparison: Comparison, expected: str, **more: object) -> Assertion:
    return Assertion("it", sql, comparison, expected, **more)  # type: ignore[arg-type]


def percent(amount: str) -> Tolerance:
    return Tolerance(Decimal(amount), percent=True)


TRUE = [
    an("SELECT count(*) FROM orders", EQUALS, "1000"),
    an("SELECT count(*) FROM orders", LEAST, "1000"),
    an("SELECT count(*) FROM orders", MOST, "1000"),
    an("SELECT count(*) FROM orders", EQUALS, "1050", tolerance=percent("5")),
    an("SELECT count(*) FROM orders", LEAST, "1003", tolerance=Tolerance(Decimal(3))),
    an("SELECT count(*) FROM orders", MOST, "990", tolerance=percent("2")),
    an("TABLE shop.items", EQUALS, "7"),
    an("WITH x AS (SELECT 1.50) SELECT * FROM x", EQUALS, "1.5"),
    an("SELECT 0.1::float8 + 0.2::float8", EQUALS, "0.3",
       tolerance=Tolerance(Decimal("1e-9"))),
    an("VALUES ('007')", EQUALS, "007"),
    an("SELECT true", EQUALS, "true"),
    an("SELECT interval '10 minutes'", MOST, "15 minutes"),
    an("SELECT timestamptz '2026-02-01 00:00+02'", LEAST, "2026-01-31"),
    an("SELECT current_setting('server_encoding')", EQUALS, "UTF8"),
    an("SELECT 'infinity'::float8", LEAST, "1"),
    an("SELECT n FROM t", EQUALS, "5", database="side"),
]  # fmt: skip
FALSE = [
    (an("SELECT count(*) FROM orders", EQUALS, "1001"), "1000, expected 1001 in"),
    (an("SELECT count(*) FROM orders", LEAST, "1001"), "expected at least 1001"),
    (an("SELECT count(*) FROM orders", MOST, "999"), "expected at most 999"),
    (an("SELECT count(*) FROM orders", EQUALS, "1060", tolerance=percent("5")),
     "1000, expected 1060 ± 5 %"),
    (an("SELECT count(*) FROM orders", EQUALS, "many"), "1000, expected many"),
    (an("VALUES ('007')", EQUALS, "7"), "007, expected 7"),
    (an("VALUES ('1.10')", EQUALS, "1.1"), "1.10, expected 1.1"),
    (an("SELECT false", EQUALS, "true"), "f, expected true"),
    (an("SELECT interval '2 hours'", MOST, "15 minutes"), "02:00:00, expected at most"),
    (an("SELECT interval '2 hours'", MOST, "soon"), "invalid input syntax for type"),
    (an("SELECT 'NaN'::float8", EQUALS, "0"), "NaN, expected 0"),
    (an("SELECT '{}'::json", EQUALS, "{}"), "operator does not exist"),
    (an("SELECT 'x'", EQUALS, "x", tolerance=percent("5")), "x is no number, so it"),
    (an("SELECT NULL::int", EQUALS, "0"), "returns NULL"),
    (an("SELECT id FROM orders", EQUALS, "1"), "returns 1000 rows of 1 columns"),
    (an("SELECT 1 WHERE false", EQUALS, "1"), "returns 0 rows of 1 columns"),
    (an("SELECT 1, 2", EQUALS, "1"), "returns 1 rows of 2 columns"),
    (an("SELECT 1 FROM lost", EQUALS, "1"), 'relation "lost" does not exist'),
    (an("SELECT 1 FROM t", EQUALS, "1"), 'relation "t" does not exist'),
    (an("SELECT 1", EQUALS, "1", database="none"), 'database "none" does not exist'),
    (an("SELECT nextval('numbers')", EQUALS, "1"), "permission denied for sequence"),
    (an("WITH x AS (DELETE FROM orders RETURNING 1) SELECT 1", EQUALS, "1"),
     "in a read-only transaction"),
    (an("SELECT 1; SELECT 1", EQUALS, "1"), "cannot insert multiple commands"),
    (an("SELECT 1; COMMIT; DROP TABLE orders", EQUALS, "1"), "multiple commands"),
    (an("SELECT 1 FROM pg_sleep(9)", EQUALS, "1",
        timeout=timedelta(milliseconds=100)), "statement timeout"),
]  # fmt: skip


def test_what_is_as_it_should_be(subject: Subject) -> None:
    found = judged(subject, *TRUE)
    wrong = [
        (assertion.sql, check.detail)
        for assertion, check in zip(TRUE, found, strict=True)
        if check.state is not CheckState.PASSED
    ]
    assert wrong == []
    assert found[0].detail == "1000, expected 1000 in database postgres"


def test_what_is_not(subject: Subject, cluster: Cluster) -> None:
    found = judged(subject, *(assertion for assertion, _ in FALSE))
    for (assertion, says), check in zip(FALSE, found, strict=True):
        assert check.state is CheckState.FAILED, assertion
        assert says in check.detail, assertion
    assert cluster.sql("SELECT count(*) FROM orders") == 1000


def test_each_has_a_check_of_its_own(subject: Subject) -> None:
    names = ["one", "two"]
    found = judged(subject, *(replace(TRUE[0], name=name) for name in names))
    assert [one.name for one in found] == ["assertion: one", "assertion: two"]


# Tolerances.

NUMBERS = st.decimals(-(10**12), 10**12, allow_nan=False, places=6)
AMOUNTS = st.decimals(0, 1000, allow_nan=False, places=4)


@given(NUMBERS, NUMBERS, st.none() | st.builds(Tolerance, AMOUNTS, st.booleans()))
def test_tolerances_are_margins_around_the_expected(
    found: Decimal, expected: Decimal, tolerance: Tolerance | None
) -> None:
    margin = Fraction(0)
    if tolerance is not None:
        share = abs(Fraction(expected)) / 100 if tolerance.percent else 1
        margin = Fraction(tolerance.amount) * share
    distance = Fraction(found) - Fraction(expected)
    truth = {EQUALS: abs(distance) <= margin, LEAST: distance >= -margin,
             MOST: distance <= margin}  # fmt: skip
    for comparison, true in truth.items():
        assertion = an("", comparison, str(expected), tolerance=tolerance)
        assert within(str(found), assertion) is true


@given(NUMBERS, AMOUNTS)
def test_the_edge_of_a_tolerance_belongs_to_it(
    expected: Decimal, amount: Decimal
) -> None:
    assertion = an("", EQUALS, str(expected), tolerance=Tolerance(amount))
    for edge in (expected - amount, expected + amount):
        assert within(str(edge), assertion)
    beyond = Decimal("0.0000001")
    assert not within(str(expected + amount + beyond), assertion)
    assert not within(str(expected - amount - beyond), assertion)


@pytest.mark.parametrize("comparison", list(Comparison))
@pytest.mark.parametrize("tolerance", [None, percent("5")])
def test_what_is_no_number_is_never_within(
    comparison: Comparison, tolerance: Tolerance | None
) -> None:
    assert not within("NaN", an("", comparison, "1", tolerance=tolerance))
    assert not within("1", an("", comparison, "NaN", tolerance=tolerance))
    assert not within("1", an("", comparison, "one", tolerance=tolerance))


@pytest.mark.parametrize("tolerance", [None, percent("5")])
def test_infinity_equals_itself_alone(tolerance: Tolerance | None) -> None:
    endless = an("", EQUALS, "Infinity", tolerance=tolerance)
    assert within("Infinity", endless)
    assert not within("-Infinity", endless)
    assert not within("1e300", endless)
    assert not within("Infinity", an("", EQUALS, "1e300", tolerance=tolerance))
