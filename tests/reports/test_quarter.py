"""What a report says of a quarter's records."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from drkit.model.evidence import Measure, Outcome, RecordKind
from drkit.model.objectives import Objectives
from drkit.model.quarter import Quarter
from drkit.model.standing import ChainState, ClusterEvidence
from drkit.reports.controls import FINDINGS, NO_RECORD, SHOWN
from drkit.reports.quarter import drill_report
from drkit.reports.report import DayState, Report, Status, Verdict
from tests.reports.history import (
    LAST,
    QUARTERS,
    RPO,
    RTO,
    evidence_of,
    history,
    standing,
)

TROUBLED = history()


def report(*evidence: ClusterEvidence, quarter: Quarter = LAST) -> Report:
    return drill_report(evidence or (TROUBLED,), quarter, "0.1.0")


def without_records(**changes: object) -> ClusterEvidence:
    found = standing("production", datetime(2026, 4, 2, tzinfo=UTC), **changes)  # type: ignore[arg-type]
    return evidence_of(found)


def test_failures_and_misses_come_first_and_name_their_actions() -> None:
    found = report()
    assert found.status is Status.ATTENTION
    assert found.headline == (
        "Restores were proven, but 1 exercise failed and 2 exercises missed an "
        "objective."
    )
    failed, unmeasured, slow = found.findings
    assert failed.outcome is Outcome.FAILED
    assert failed.title == "drill “operator-error”"
    assert failed.what == (
        "The restored cluster is not what was backed up.",
        "Check fingerprint: tables failed: 3 rows of public.orders are missing.",
    )
    assert [(one.number, one.state) for one in failed.actions] == [(3, "done")]
    assert unmeasured.what == (
        "RPO was not measured: production's heartbeat had stopped.",
    )
    assert slow.what == (
        "RTO 18 min 23 s against a target of 15 min: 3 min 23 s too much.",
    )
    assert unmeasured.actions == slow.actions == ()
    assert "For 2 of 3 findings no action is recorded." in found.summary


def test_actions_of_before_are_carried_over_with_their_state() -> None:
    found = report()
    assert [(one.number, one.state, one.overdue) for one in found.carried] == [
        (1, "done", False),
        (2, "open", True),
    ]
    assert found.carried[0].note == "backup.jobs: 4"
    assert found.carried[0].updated == date(2026, 2, 10)
    assert [one.number for one in found.raised] == [3]
    assert "1 corrective action is open, overdue." in found.summary


def test_an_action_that_was_done_before_the_quarter_is_not_carried() -> None:
    assert report(quarter=Quarter(2025, 4)).carried == ()
    raised = report(quarter=Quarter(2025, 4)).raised
    assert [one.number for one in raised] == [1, 2]


def test_targets_and_figures() -> None:
    (cluster,) = report().clusters
    rto, rpo = cluster.rto, cluster.rpo
    assert (rto.target, rpo.target) == (RTO, RPO)
    assert (rto.verdict, rpo.verdict) == (Verdict.MISSED, Verdict.PARTLY)
    assert rto.worst == 1103.4
    assert (rto.measured, rto.met, rto.unproven) == (11, 10, 1)
    assert (rpo.measured, rpo.met, rpo.unproven) == (10, 10, 2)
    assert (len(cluster.exercises), cluster.proven, cluster.failed) == (12, 11, 1)


def test_a_failed_exercise_proves_no_figure() -> None:
    one = next(record for record in TROUBLED.records if record.started in LAST)
    failed = replace(one, outcome=Outcome.FAILED, failure="a page was damaged")
    assert failed.rto is not None
    assert failed.rto.measured is not None
    (cluster,) = report(replace(TROUBLED, records=(failed,))).clusters
    assert cluster.rto.verdict is Verdict.NOT_MEASURED
    assert (cluster.rto.worst, cluster.rto.unproven) == (None, 1)
    assert cluster.rto.sentence == "RTO was not measured; 1 exercise gave no proof."
    assert cluster.sizes == ()
    assert cluster.last_proven is None


def test_a_measure_within_its_own_target_may_miss_todays() -> None:
    evidence = history(troubled=False)
    rules = replace(
        evidence.standing.rules, objectives=Objectives(timedelta(minutes=5), None)
    )
    changed = replace(evidence, standing=replace(evidence.standing, rules=rules))
    (cluster,) = report(changed).clusters
    assert cluster.rto.verdict is Verdict.MISSED
    assert cluster.rpo.verdict is Verdict.NO_TARGET
    assert len([note for note in cluster.notes if "was changed" in note]) == 2


def test_a_changed_policy_is_told() -> None:
    standing_ = TROUBLED.standing
    rules = replace(standing_.rules, configuration="0" * 64)
    changed = replace(TROUBLED, standing=replace(standing_, rules=rules))
    assert report().clusters[0].notes == ()
    assert "policy file was changed" in report(changed).clusters[0].notes[0]


def test_a_good_quarter() -> None:
    found = report(history(troubled=False))
    assert found.findings == ()
    (cluster,) = found.clusters
    assert cluster.calendar.gaps == ()
    assert cluster.rto.verdict is cluster.rpo.verdict is Verdict.MET
    assert found.status is Status.ATTENTION  # for the actions that are overdue
    calm = history(troubled=False)
    done = [one for one in calm.records if one.kind is not RecordKind.ACTION]
    found = report(replace(calm, records=tuple(done)))
    assert found.status is Status.GOOD
    assert {each.state for one in found.controls for each in one.support} == {SHOWN}


def test_a_quarter_without_records_claims_nothing() -> None:
    found = report(without_records())
    assert found.status is Status.UNPROVEN
    (cluster,) = found.clusters
    assert cluster.rto.verdict is cluster.rpo.verdict is Verdict.NOT_MEASURED
    assert cluster.last_proven is None
    assert {day.state for day in cluster.calendar.days} == {DayState.NONE}
    assert all(day.gap for day in cluster.calendar.days)
    states = {each.state for one in found.controls for each in one.support}
    assert states == {NO_RECORD}
    (told,) = found.summary
    assert told == (
        "production: no restore was exercised. There is no record that one of its "
        "backups was ever restored."
    )


def test_controls_with_failures_say_so() -> None:
    support = {
        (one.framework, one.control): one.support[0] for one in report().controls
    }
    tested = support["SOC 2", "A1.3"]
    assert (tested.state, tested.text) == (FINDINGS, "2 drills; 1 failed")
    assert [TROUBLED.records[one].kind for one in tested.sequences] == ["drill"] * 2


def test_a_broken_chain_is_the_first_thing_said() -> None:
    chain = ChainState(0, "", problems=("record 17 is missing",))
    broken = replace(TROUBLED.standing, chain=chain)
    found = report(evidence_of(broken), history("billing", troubled=False))
    assert found.status is Status.BROKEN
    assert found.headline.startswith("The chain of evidence of production is broken")
    assert found.summary[0] == (
        "production: the chain of evidence is not sound: record 17 is missing."
    )


def test_one_proven_cluster_does_not_speak_for_another() -> None:
    found = report(history(troubled=False), without_records())
    assert found.status is Status.ATTENTION


def test_trend_holds_quarters_without_records() -> None:
    (cluster,) = report().clusters
    assert len(cluster.trend) == QUARTERS
    assert [one.quarter for one in cluster.trend][-1] == LAST
    empty = [one for one in cluster.trend if not one.exercises]
    assert [one.quarter for one in empty] == [Quarter(2023, 4)]
    assert empty[0].rto.worst is None
    worst = [one.rto.worst for one in cluster.trend if one.rto.worst is not None]
    assert worst == sorted(worst)


def test_later_records_are_left_out_but_for_actions() -> None:
    before = report(quarter=Quarter(2025, 3))
    short = tuple(
        record
        for record in TROUBLED.records
        if record.started < Quarter(2025, 3).end or record.kind is RecordKind.ACTION
    )
    assert report(replace(TROUBLED, records=short), quarter=Quarter(2025, 3)) == before


def test_a_quarter_that_runs_is_told_up_to_today() -> None:
    running = history(as_of=datetime(2026, 2, 20, 15, tzinfo=UTC))
    found = report(running)
    assert not found.over
    assert found.dated == date(2026, 2, 20)
    days = {day.date: day for day in found.clusters[0].calendar.days}
    assert days[date(2026, 2, 21)].state is DayState.AHEAD
    assert days[date(2026, 2, 20)].gap
    assert not days[date(2026, 2, 21)].gap
    assert report().over
    last_hour = datetime(2026, 3, 31, 23, tzinfo=UTC)
    assert not report(history(as_of=last_hour)).over


def test_a_quarter_that_has_not_begun_is_refused() -> None:
    with pytest.raises(ValueError, match="2026-Q3"):
        report(quarter=Quarter(2026, 3))


def test_a_measure_that_nobody_asked_for_is_no_miss() -> None:
    one = next(record for record in TROUBLED.records if record.started in LAST)
    bare = replace(one, rpo=None, rto=Measure(None, 12.0, "as the clock showed"))
    (cluster,) = report(replace(TROUBLED, records=(bare,))).clusters
    assert (cluster.rpo.unproven, cluster.rpo.measured) == (0, 0)
    assert cluster.rpo.verdict is Verdict.NOT_MEASURED
    assert (cluster.rto.measured, cluster.rto.met) == (1, 0)
