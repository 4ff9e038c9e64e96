"""Whatever records there are, a report can be made of them, and claims no more."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from statistics import median
from xml.etree import ElementTree as ET

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from drkit.model.evidence import (
    Action,
    Actor,
    Check,
    CheckState,
    Cleanup,
    Forecast,
    Measure,
    Outcome,
    Phase,
    Record,
    RecordKind,
    Restored,
)
from drkit.model.schedule import Schedule
from drkit.model.standing import ChainState, ClusterEvidence, Standing
from drkit.reports.blocks import Chart
from drkit.reports.forms import Form, render
from drkit.reports.pages import document
from drkit.reports.quarter import drill_report
from drkit.reports.report import Report, Status, Verdict
from tests.reports.history import LAST, evidence_of, standing
from tests.reports.test_forms import Page

texts = st.text(st.characters(codec=None), max_size=12)
seconds = st.floats(0, 1e12, allow_nan=False)
counts = st.integers(0, 1 << 62)
moments = st.timedeltas(timedelta(0), timedelta(days=1461)).map(
    lambda since: datetime(2023, 1, 1, tzinfo=UTC) + since
)
recent = st.timedeltas(timedelta(0), timedelta(days=90)).map(LAST.begin.__add__)
measures = st.builds(Measure, st.none() | seconds, st.none() | seconds, texts)
restores = st.builds(
    Restored,
    label=texts,
    chain=st.tuples(texts),
    manifests=st.tuples(texts),
    key_ids=st.just(()),
    start_lsn=texts,
    stop_lsn=texts,
    target=texts,
    reached_lsn=st.none() | texts,
    reached_time=st.none() | moments,
    timeline=st.none() | counts,
    wal_segments=counts,
    bytes=counts,
    fetched_bytes=counts,
)
actions = st.builds(
    Action,
    action=st.integers(1, 3),
    text=texts,
    owner=texts,
    due=st.sampled_from(["2026-02-01", "2026-12-31", "soon", ""]),
    state=st.sampled_from(["open", "done", "dropped"]),
    follows=st.none() | st.integers(0, 9),
    note=texts,
)
records = st.builds(
    Record,
    kind=st.sampled_from(RecordKind),
    sequence=st.just(0),
    previous=st.just(""),
    cluster=st.just("production"),
    system_identifier=texts,
    started=moments | recent,
    finished=moments,
    outcome=st.sampled_from(Outcome),
    scenario=texts,
    chosen=texts,
    restored=st.none() | restores,
    actor=st.none() | st.builds(Actor, texts, texts, texts, texts, texts, texts),
    phases=st.lists(st.builds(Phase, texts, seconds, seconds), max_size=3).map(tuple),
    rto=st.none() | measures,
    rpo=st.none() | measures,
    checks=st.lists(
        st.builds(Check, texts, st.sampled_from(CheckState), texts, seconds, counts),
        max_size=3,
    ).map(tuple),
    deviations=st.lists(texts, max_size=2).map(tuple),
    forecast=st.none() | st.builds(Forecast, seconds, seconds),
    cleanup=st.none() | st.builds(Cleanup, texts, counts, st.booleans(), texts),
    failure=texts,
    action=st.none() | actions,
    notes=st.lists(texts, max_size=1).map(tuple),
)
schedules = st.none() | st.sampled_from(
    ["daily at 03:00", "sunday at 02:00", "every 12 hours", "hourly"]
).map(Schedule.parse)


@st.composite
def evidence(draw: st.DrawFn) -> ClusterEvidence:
    """A cluster with any records, in any order of times."""
    drawn = draw(st.lists(records, max_size=5))
    chain = tuple(replace(one, sequence=place) for place, one in enumerate(drawn))
    found: Standing = standing("production", draw(recent) + timedelta(seconds=1))
    rules = replace(found.rules, verification=draw(schedules))
    problems = draw(st.just(()) | st.tuples(texts))
    state = ChainState(len(chain), "ab" * 32, (), problems)
    kept = draw(st.integers(0, 3))
    found = replace(found, rules=rules, chain=state, backups=found.backups[:kept])
    return evidence_of(found, chain)


def check_claims(report: Report, found: ClusterEvidence) -> None:
    """What the report counts, counted once more in the plainest way."""
    (cluster,) = report.clusters
    exercises = [
        one
        for one in found.records
        if one.kind is not RecordKind.ACTION and one.started in LAST
    ]
    assert list(cluster.exercises) == exercises
    good = [one for one in exercises if one.outcome is not Outcome.FAILED]
    assert cluster.proven == sum(one.restored is not None for one in good)
    for objective, name in ((cluster.rto, "rto"), (cluster.rpo, "rpo")):
        measures = [getattr(one, name) for one in good]
        figures = [one.measured for one in measures if one and one.measured is not None]
        assert objective.worst == (max(figures) if figures else None)
        assert objective.median == (median(figures) if figures else None)
        assert (objective.verdict is Verdict.NOT_MEASURED) == (not figures)
        if objective.verdict is Verdict.MET:
            assert len(good) == len(exercises)
            assert not any(one and one.missed for one in measures)
    wrong = [one for one in exercises if one.outcome is not Outcome.MET]
    assert len(report.findings) == len(wrong)
    assert (report.status is Status.BROKEN) == bool(found.standing.chain.problems)
    if report.status is Status.GOOD:
        assert not wrong
        assert cluster.proven
    for control in report.controls:
        for support in control.support:
            known = {record.sequence for record in exercises}
            assert set(support.sequences) <= known
            assert (support.state == "no record") == (not support.sequences)


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(evidence())
def test_any_records(found: ClusterEvidence) -> None:
    report = drill_report([found], LAST, "0.1.0")
    check_claims(report, found)
    json.loads(render(report, Form.JSON))
    render(report, Form.MARKDOWN)
    Page(render(report, Form.HTML).decode())
    for one in document(report).blocks:
        if isinstance(one, Chart):
            ET.fromstring(one.drawing.document("serif"))


@pytest.mark.long
@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(evidence())
def test_any_records_as_pdf(found: ClusterEvidence) -> None:
    report = drill_report([found], LAST, "0.1.0")
    assert render(report, Form.PDF).startswith(b"%PDF-1.7")
