"""The first page in words: what a manager takes away in a minute."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drkit.model.evidence import Outcome
from drkit.reports.actions import OPEN
from drkit.reports.report import Status, Verdict
from drkit.reports.words import day, listed, plural

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from drkit.reports.report import ActionState, ClusterReport, Finding

_SETTLED = (Verdict.MET, Verdict.NO_TARGET)


def status_of(
    clusters: Sequence[ClusterReport],
    found: Sequence[Finding],
    known: Sequence[ActionState],
) -> Status:
    """Return the quarter's worst in a word."""
    if not all(one.chain.sound for one in clusters):
        return Status.BROKEN
    if not any(one.proven for one in clusters):
        return Status.UNPROVEN
    trouble = (
        bool(found)
        or any(action.overdue for action in known)
        or any(not one.proven or one.calendar.gaps for one in clusters)
        or any(
            each.verdict not in _SETTLED and each.target is not None
            for one in clusters
            for each in (one.rto, one.rpo)
        )
    )
    return Status.ATTENTION if trouble else Status.GOOD


def headline(
    status: Status, clusters: Sequence[ClusterReport], found: Sequence[Finding]
) -> str:
    """Return the quarter in one sentence."""
    if status is Status.BROKEN:
        broken = [one.cluster for one in clusters if not one.chain.sound]
        return (
            f"The chain of evidence of {listed(broken)} is broken: records are missing "
            "or were changed, so this report proves nothing."
        )
    if status is Status.UNPROVEN:
        return (
            "No restore was proven in this quarter: "
            "nothing shows that the backups can be restored."
        )
    if status is Status.GOOD:
        return "Restores were proven, and nothing failed or missed its objective."
    failed = sum(one.outcome is Outcome.FAILED for one in found)
    missed = len(found) - failed
    told = [plural(failed, "exercise") + " failed"] if failed else []
    told += [f"{plural(missed, 'exercise')} missed an objective"] if missed else []
    if told:
        return f"Restores were proven, but {listed(told)}."
    return "Restores were proven, but not everything that was promised."


def summary(
    clusters: Sequence[ClusterReport],
    found: Sequence[Finding],
    known: Sequence[ActionState],
) -> tuple[str, ...]:
    """Return the quarter in a few sentences, what is wrong first."""
    told = [_chain_problem(one) for one in clusters if not one.chain.sound]
    told += [sentence for one in clusters for sentence in _cluster(one)]
    told += _actions(found, known)
    return tuple(told)


def _chain_problem(one: ClusterReport) -> str:
    problems = "; ".join(one.chain.problems)
    return f"{one.cluster}: the chain of evidence is not sound: {problems}."


def _cluster(one: ClusterReport) -> Iterator[str]:
    count = len(one.exercises)
    if not count:
        yield f"{one.cluster}: no restore was exercised. {_last(one)}"
        return
    done = f"{plural(len(one.drills), 'drill')} and "
    done += plural(count - len(one.drills), "verification")
    result = f"{one.proven} of {plural(count, 'restore')} proven"
    yield f"{one.cluster}: {done}; {result}. {one.rto.sentence} {one.rpo.sentence}"
    if one.calendar.gaps:
        yield f"{one.cluster}: {one.calendar.sentence}"


def _last(one: ClusterReport) -> str:
    if one.last_proven is None:
        return "There is no record that one of its backups was ever restored."
    return f"A restore was last proven on {day(one.last_proven.date())}."


def _actions(found: Sequence[Finding], known: Sequence[ActionState]) -> Iterator[str]:
    bare = sum(not one.actions for one in found)
    if bare:
        yield f"For {bare} of {plural(len(found), 'finding')} no action is recorded."
    still = [action for action in known if action.state == OPEN]
    overdue = sum(action.overdue for action in still)
    if still:
        all_late = "overdue" if len(still) == 1 else "all of them overdue"
        some = all_late if overdue == len(still) else f"{overdue} of them overdue"
        late = f", {some}" if overdue else ""
        verb = "is" if len(still) == 1 else "are"
        yield f"{plural(len(still), 'corrective action')} {verb} open{late}."
