"""Proving that a restored cluster is what was backed up, and works.

Checks are made in a fixed order, and each fails by itself: an error is what a check
found, not the end of the others. Only where another server than ours answers, nothing
else is done: the checks write.
"""

from __future__ import annotations

from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

import psycopg

from drkit.errors import DrkitError, Interrupted
from drkit.model.evidence import Check, CheckState
from drkit.model.verification import IDENTITY, CheckName
from drkit.operations.proving.amcheck import check_structure
from drkit.operations.proving.assertions import check_assertion
from drkit.operations.proving.fingerprint import check_fingerprint
from drkit.operations.proving.identity import check_identity
from drkit.operations.proving.pages import check_pages
from drkit.operations.proving.rows import check_rows
from drkit.operations.proving.subject import (
    TIME_OVER,
    Finding,
    Run,
    Subject,
    failed,
    not_done,
)
from drkit.operations.proving.write import check_write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from drkit.model.fingerprint import Fingerprint
    from drkit.model.verification import VerificationRules
    from drkit.protocols import Clock, Progress

    Work = Callable[[Run], Finding]

__all__ = ["Proof", "Subject", "prove"]

_WRONG_SERVER = "another server than the restored one answers; nothing was done to it"


class Proof(NamedTuple):
    """What was proven.

    Attributes:
        checks: in the order in which they were made.
        deviations: what was not compared or not done and why, each a sentence.
        passed: whether that is all the policy wants.
    """

    checks: tuple[Check, ...]
    deviations: tuple[str, ...]
    passed: bool


class _Made(NamedTuple):
    checks: tuple[Check, ...]
    deviations: tuple[str, ...]


def prove(
    subject: Subject,
    rules: VerificationRules,
    expected: Fingerprint | str | None,
    clock: Clock,
    progress: Progress,
    deadline: float,
    *,
    at_fingerprint: bool,
) -> Proof:
    """Check a restored cluster as a policy wants it checked.

    Args:
        expected: the fingerprint of the backup; or the sentence why there is none; or
            None where none was asked for.
        deadline: by the clock's `monotonic`; what is not done until then is not done.
        at_fingerprint: whether recovery ended just where the fingerprint was taken.

    Raises:
        Interrupted: a signal came.
    """
    run = Run(subject, rules, clock, progress, deadline)
    with run.until_the_deadline():
        first = _attempt(run, IDENTITY, check_identity)
        wrong = first.checks[0].state is CheckState.FAILED
        made = [first]
        for name, work in _wanted(rules, expected, at_fingerprint):
            made.append(_attempt(run, name, _refuse if wrong else work))
    checks = tuple(chain.from_iterable(one.checks for one in made))
    deviations = (
        *chain.from_iterable(one.deviations for one in made),
        *(f"{one.name} was not done: {one.detail}" for one in checks if _open(one)),
        *_unasked(rules),
    )
    return Proof(checks, deviations, rules.accepts(checks))


def _wanted(
    rules: VerificationRules, expected: Fingerprint | str | None, at_it: bool
) -> Iterator[tuple[str, Work]]:
    """Yield the checks that the policy asks for, in their order."""
    fingerprint = partial(check_fingerprint, expected=expected, at_it=at_it)
    single: dict[CheckName, Work] = {
        CheckName.PAGES: check_pages,
        CheckName.ROWS: check_rows,
        CheckName.AMCHECK: check_structure,
        CheckName.FINGERPRINT: fingerprint,
    }
    for name, work in single.items():
        if name in rules.checks:
            yield name.value, work
    if CheckName.ASSERTIONS in rules.checks:
        for assertion in rules.assertions:
            yield assertion.check, partial(check_assertion, assertion=assertion)
    if CheckName.WRITE in rules.checks:
        yield CheckName.WRITE.value, check_write


def _attempt(run: Run, name: str, work: Work) -> _Made:
    """Make one check, time it, and take an error for what it found."""
    begin = run.clock.monotonic()
    finding = _find(run, name, work)
    seconds = run.clock.monotonic() - begin
    check = Check(name, finding.state, finding.detail, seconds, finding.compared)
    checks = finding.parts or (check,)
    for one in checks:
        run.progress.event(
            "check", check=one.name, state=one.state.value, seconds=one.seconds
        )
    return _Made(checks, finding.deviations)


def _find(run: Run, name: str, work: Work) -> Finding:
    if run.left() <= 0:
        return not_done(TIME_OVER)
    try:
        run.progress.phase(name)
        return work(run)
    except Interrupted:
        raise
    except (DrkitError, psycopg.Error, OSError) as error:
        return not_done(TIME_OVER) if run.left() <= 0 else failed([_text(error)])


def _text(error: Exception) -> str:
    hint = getattr(error, "hint", None)
    text = str(error).strip() or type(error).__name__
    return f"{text} ({hint})" if hint else text


def _refuse(run: Run) -> Finding:  # noqa: ARG001  as every check
    return not_done(_WRONG_SERVER)


def _open(check: Check) -> bool:
    return check.state is CheckState.NOT_DONE


def _unasked(rules: VerificationRules) -> tuple[str, ...]:
    left_out = [name.value for name in CheckName if name not in rules.checks]
    if not left_out:
        return ()
    return (f"the policy does not ask for these checks: {', '.join(left_out)}",)
