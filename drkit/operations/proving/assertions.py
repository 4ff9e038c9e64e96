"""Proving what the policy asserts about the data."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation, localcontext
from typing import TYPE_CHECKING

from drkit.model.verification import Comparison
from drkit.operations.proving.reader import reader_session
from drkit.operations.proving.subject import Finding, failed, passed
from drkit.postgres.asking import ask, holds

if TYPE_CHECKING:
    from drkit.model.verification import Assertion, Tolerance
    from drkit.operations.proving.subject import Run

_LONGEST = 120  # characters of a value in a detail
_DIGITS = 1000  # of numbers that are told apart at the edge of a tolerance
_WORDS = {
    Comparison.EQUALS: "",
    Comparison.AT_LEAST: "at least ",
    Comparison.AT_MOST: "at most ",
}


def check_assertion(run: Run, assertion: Assertion) -> Finding:
    """Ask one of the policy's statements, and judge what it returns.

    It can do nothing but read: it is asked read-only, as a role that may do no more.
    """
    database = assertion.database or run.subject.database
    with reader_session(run, database) as connection:
        answer = ask(connection, assertion.sql, assertion.timeout.total_seconds())
        if answer.number:
            true = within(answer.text, assertion)
        elif assertion.tolerance is not None:
            return failed(
                [f"{_short(answer.text)} is no number, so it has no tolerance"]
            )
        else:
            operator = assertion.comparison
            true = holds(connection, answer, operator, assertion.expected)
    wanted = _wanted(assertion)
    text = f"{_short(answer.text)}, expected {wanted} in database {database}"
    return passed(text, 1) if true else failed([text], 1)


def within(text: str, assertion: Assertion) -> bool:
    """Say whether a number is as it is expected; one that is not a number never is.

    Args:
        text: as the server writes numbers, `NaN` and `Infinity` too.
    """
    found, expected = _number(text), _number(assertion.expected)
    if found is None or expected is None:
        return False
    with localcontext(prec=_DIGITS):
        margin = _margin(assertion.tolerance, expected)
        least, most = expected - margin, expected + margin
    low = assertion.comparison is Comparison.AT_MOST or found >= least
    high = assertion.comparison is Comparison.AT_LEAST or found <= most
    return low and high


def _margin(tolerance: Tolerance | None, expected: Decimal) -> Decimal:
    if tolerance is None or expected.is_infinite():
        return Decimal(0)
    return tolerance.margin(expected)


def _number(text: str) -> Decimal | None:
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    return None if number.is_nan() else number


def _wanted(assertion: Assertion) -> str:
    tolerance = f" ± {assertion.tolerance}" if assertion.tolerance else ""
    return f"{_WORDS[assertion.comparison]}{_short(assertion.expected)}{tolerance}"


def _short(value: str) -> str:
    return value if len(value) <= _LONGEST else f"{value[:_LONGEST]}…"
