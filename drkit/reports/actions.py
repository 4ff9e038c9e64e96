"""Corrective actions, folded from their records, and what they follow from."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

from drkit.model.evidence import CheckState, Outcome, RecordKind
from drkit.reports.calendar import day_of
from drkit.reports.report import ActionState, Finding
from drkit.reports.words import duration, plural, promise, sentence

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from drkit.model.evidence import Action, Measure, Record
    from drkit.model.quarter import Quarter

OPEN = "open"
_SHOWN_CHECKS = 10


def actions(
    cluster: str, records: Sequence[Record], quarter: Quarter, today: date
) -> tuple[ActionState, ...]:
    """Return every action as its newest record has it, by its number."""
    history: dict[int, list[tuple[Record, Action]]] = {}
    for record in records:
        if record.action is not None:
            known = history.setdefault(record.action.action, [])
            known.append((record, record.action))
    return tuple(
        _state(cluster, history[number], quarter, today) for number in sorted(history)
    )


def _state(
    cluster: str, steps: Sequence[tuple[Record, Action]], quarter: Quarter, today: date
) -> ActionState:
    (first, opening), (newest, action) = steps[0], steps[-1]
    return ActionState(
        cluster=cluster,
        number=action.action,
        text=action.text,
        owner=action.owner,
        due=action.due,
        state=action.state,
        overdue=action.state == OPEN and _past(action.due, today),
        carried=first.started < quarter.begin,
        follows=opening.follows if action.follows is None else action.follows,
        opened=day_of(first.started),
        updated=day_of(newest.started),
        note=action.note,
    )


def _past(due: str, today: date) -> bool:
    """Say whether a due date lies before today; one that is no date does not."""
    try:
        return date.fromisoformat(due) < today
    except ValueError:
        return False


def still_open_at(records: Sequence[Record], quarter: Quarter) -> frozenset[int]:
    """Return the numbers of the actions that were open when the quarter began."""
    states: dict[int, str] = {}
    for record in records:
        if record.action is not None and record.started < quarter.begin:
            states[record.action.action] = record.action.state
    return frozenset(number for number, state in states.items() if state == OPEN)


def findings(
    cluster: str, exercises: Sequence[Record], known: Sequence[ActionState]
) -> Iterator[Finding]:
    """Yield the failures, then the misses, each in order of their records."""
    for outcome in (Outcome.FAILED, Outcome.MISSED):
        for record in exercises:
            if record.outcome is outcome:
                followed = [one for one in known if one.follows == record.sequence]
                yield _finding(cluster, record, tuple(followed))


def _finding(
    cluster: str, record: Record, followed: tuple[ActionState, ...]
) -> Finding:
    return Finding(
        cluster=cluster,
        sequence=record.sequence,
        started=record.started,
        outcome=record.outcome,
        title=title_of(record),
        what=tuple(_what(record)) or ("The record does not say what happened.",),
        actions=followed,
    )


def title_of(record: Record) -> str:
    """Name an exercise: `drill “lost host”`, `verification of 20260115-…-full`."""
    if record.kind is RecordKind.DRILL:
        return f"drill “{record.scenario}”" if record.scenario else "drill"
    label = record.restored.label if record.restored else ""
    return f"verification of {label}" if label else "verification"


def _what(record: Record) -> Iterator[str]:
    if record.failure:
        yield sentence(record.failure)
    bad = [check for check in record.checks if check.state is CheckState.FAILED]
    for check in bad[:_SHOWN_CHECKS]:
        yield sentence(f"check {check.name} failed: {check.detail}")
    if len(bad) > _SHOWN_CHECKS:
        yield f"{plural(len(bad) - _SHOWN_CHECKS, 'more check')} failed."
    for name, measure in (("RTO", record.rto), ("RPO", record.rpo)):
        if measure is not None and measure.missed:
            yield _missed(name, measure)


def _missed(name: str, measure: Measure) -> str:
    if measure.measured is None:
        return sentence(f"{name} was not measured: {measure.meaning}")
    over = measure.measured - (measure.target or 0)
    return (
        f"{name} {duration(measure.measured)} against a target of "
        f"{promise(measure.target)}: {duration(over)} too much."
    )
