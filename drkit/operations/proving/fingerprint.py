"""Proving that what was restored is what was there when the backup was taken."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from drkit.model.fingerprint_compare import Difference, Severity, compare
from drkit.operations.fingerprints.taking import checks, deviations, take_again
from drkit.operations.proving.subject import Finding, not_done, passed, told

if TYPE_CHECKING:
    from drkit.model.fingerprint import Fingerprint
    from drkit.operations.proving.subject import Run

_LOSS = ("is missing", "lags:")


def check_fingerprint(
    run: Run, *, expected: Fingerprint | str | None, at_it: bool
) -> Finding:
    """Compare the cluster with a fingerprint, as far as the two must be the same.

    Args:
        expected: or the sentence why there is none.
        at_it: whether recovery ended just where it was taken.
    """
    if expected is None:
        return not_done("no fingerprint was given to compare with")
    if isinstance(expected, str):
        return not_done(expected)
    if not at_it:
        return _look_for_losses(run, expected)
    begin = run.clock.monotonic()
    found = take_again(run.connect, expected, run.clock)
    seconds = run.clock.monotonic() - begin
    finding = passed("", deviations=deviations(expected, found))
    return finding._replace(parts=checks(expected, found, seconds))


def _look_for_losses(run: Run, expected: Fingerprint) -> Finding:
    """Tell what is gone since; nobody knows whether somebody meant it to be."""
    facts = replace(
        expected,
        databases=tuple(replace(one, tables={}) for one in expected.databases),
    )
    found = take_again(run.connect, facts, run.clock)
    gone = [one.text for one in compare(facts, found) if _is_loss(one)]
    reason = (
        f"recovery did not end at the fingerprint's moment, {expected.lsn}: what is "
        "different since may be rightly so"
    )
    if not gone:
        return not_done(reason)
    since = (
        "since the fingerprint was taken these were dropped or set back, or lost: "
        f"{told(gone)}"
    )
    return not_done(reason)._replace(deviations=(since,))


def _is_loss(difference: Difference) -> bool:
    if difference.severity is not Severity.FAILURE:
        return False
    return any(mark in difference.text for mark in _LOSS)
