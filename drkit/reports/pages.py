"""The report's document: the first page, what went wrong, and what follows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drkit.model.evidence import Outcome
from drkit.reports import charts
from drkit.reports.as_json import content_digest
from drkit.reports.blocks import (
    Banner,
    Card,
    Cell,
    Document,
    Heading,
    Items,
    Text,
    Tone,
    cells,
    table,
)
from drkit.reports.closing_pages import closing_pages
from drkit.reports.cluster_pages import cluster_pages
from drkit.reports.report import Status, Verdict
from drkit.reports.words import day, duration, listed, moment, plural, promise, sentence

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from drkit.reports.blocks import Block, Table
    from drkit.reports.report import (
        ActionState,
        ClusterReport,
        Finding,
        Objective,
        Report,
    )

_BANNERS = {
    Status.GOOD: (Tone.GOOD, "✓ Proven"),
    Status.ATTENTION: (Tone.WARN, "! Needs attention"),
    Status.UNPROVEN: (Tone.BAD, "✗ Not proven"),
    Status.BROKEN: (Tone.BAD, "✗ Evidence broken"),
}
_VERDICTS = {
    Verdict.MET: (Tone.GOOD, "✓"),
    Verdict.MISSED: (Tone.BAD, "✗"),
    Verdict.PARTLY: (Tone.WARN, "!"),
    Verdict.NOT_MEASURED: (Tone.WARN, "○"),
    Verdict.NO_TARGET: (Tone.SOFT, "○"),
}


def document(report: Report) -> Document:
    """Lay a report out."""
    digest = content_digest(report)
    quarter = report.quarter
    names = listed([one.cluster for one in report.clusters])
    until = quarter.last_day if report.over else report.dated
    span = f"{day(quarter.first_day)} to {day(until)}"
    running = "" if report.over else "; the quarter is not over"
    return Document(
        title=f"Drill report {quarter}",
        subtitle=f"PostgreSQL {_clusters(report)} {names} · {span}{running}",
        digest=digest,
        version=report.drkit,
        blocks=tuple(_blocks(report, digest)),
    )


def _clusters(report: Report) -> str:
    return "cluster" if len(report.clusters) == 1 else "clusters"


def _blocks(report: Report, digest: str) -> Iterator[Block]:
    tone, word = _BANNERS[report.status]
    yield Banner(tone, word, report.headline)
    yield Heading(2, "Summary")
    yield _objectives(report.clusters)
    yield _proofs(report.clusters)
    yield Items(report.summary)
    yield Heading(2, "Failures and misses")
    if not any(one.exercises for one in report.clusters):
        yield Text("There is no record of an exercise that could have failed.")
    elif not report.findings:
        yield Text("The quarter's records hold no failure and no missed objective.")
    yield from _findings(report.findings)
    yield from _actions(report)
    for number, cluster in enumerate(report.clusters):
        yield from cluster_pages(cluster, report.quarter, fresh=number > 0)
    yield from closing_pages(report, digest)


def _objectives(clusters: Sequence[ClusterReport]) -> Table:
    rows = [
        _objective(one.cluster, each) for one in clusters for each in (one.rto, one.rpo)
    ]
    head = ("Cluster", "Objective", "Target", "Worst", "Median", "", "Verdict")
    caption = (
        "Recovery time (RTO) and recovery point (RPO): target against measured. The "
        "bar is the worst, the ring the median, the upright line the target."
    )
    return table(caption, (15, 9, 11, 14, 14, 20, 17), head, rows)


def _objective(cluster: str, each: Objective) -> tuple[Cell, ...]:
    tone, mark = _VERDICTS[each.verdict]
    return cells(
        cluster,
        each.name,
        promise(each.target),
        duration(each.worst),
        duration(each.median),
        Cell("", drawing=charts.target(each)),
        Cell(f"{mark} {each.verdict}", tone),
    )


def _proofs(clusters: Sequence[ClusterReport]) -> Table:
    head = (
        "Cluster",
        "Restores proven",
        "Failed",
        "Drills",
        "Last proven",
        "Longest gap",
        "Evidence chain",
    )
    rows = [_proof(one) for one in clusters]
    caption = "Restores that were exercised, and the state of their evidence."
    return table(caption, (15, 14, 9, 9, 20, 13, 20), head, rows)


def _proof(one: ClusterReport) -> tuple[Cell, ...]:
    count, failed = len(one.exercises), one.failed
    longest = max((gap.days for gap in one.calendar.gaps), default=0)
    last = "never" if one.last_proven is None else moment(one.last_proven)
    return cells(
        one.cluster,
        Cell(f"{one.proven} of {count}", Tone.PLAIN if one.proven else Tone.BAD),
        Cell(f"✗ {failed}" if failed else "0", Tone.BAD if failed else Tone.PLAIN),
        str(len(one.drills)),
        Cell(last, Tone.PLAIN if one.last_proven else Tone.BAD),
        Cell(
            f"! {plural(longest, 'day')}" if longest else "none",
            Tone.WARN if longest else Tone.PLAIN,
        ),
        _chain(one),
    )


def _chain(one: ClusterReport) -> Cell:
    if not one.chain.sound:
        return Cell("✗ broken", Tone.BAD)
    if not one.chain.records:
        return Cell("○ no record", Tone.WARN)
    return Cell(f"✓ sound, {plural(one.chain.records, 'record')}", Tone.GOOD)


def _findings(found: Sequence[Finding]) -> Iterator[Block]:
    for one in found:
        failed = one.outcome is Outcome.FAILED
        word = "✗ Failed" if failed else "! Objective missed"
        yield Card(
            tone=Tone.BAD if failed else Tone.WARN,
            title=f"{word}: {one.title}",
            when=f"{one.cluster} · {moment(one.started)} · record {one.sequence}",
            items=one.what,
            actions=action_table("", one.actions) if one.actions else None,
        )


def _actions(report: Report) -> Iterator[Block]:
    yield Heading(2, "Corrective actions")
    if not report.carried and not report.raised:
        yield Text("No corrective action is recorded.")
    if report.carried:
        caption = "Open when the quarter began, as they stand now."
        yield action_table(caption, report.carried)
    if report.raised:
        yield action_table("Raised since then.", report.raised)


def action_table(caption: str, known: Sequence[ActionState]) -> Table:
    """Return actions with owner, due date and state."""
    head = ("Action", "What", "Owner", "Due", "State")
    return table(caption, (16, 37, 15, 12, 20), head, [_action(one) for one in known])


def _action(one: ActionState) -> tuple[Cell, ...]:
    follows = "" if one.follows is None else f" (record {one.follows})"
    text = f"{sentence(one.text)} Note: {one.note}" if one.note else one.text
    if one.overdue:
        state = Cell(f"✗ {one.state}, overdue", Tone.BAD)
    else:
        done = one.state == "done"
        mark = "✓" if done else "○"
        since = f"{mark} {one.state} {one.updated}"
        state = Cell(since, Tone.GOOD if done else Tone.PLAIN)
    name = f"{one.cluster} {one.number}{follows}"
    return cells(name, text, one.owner, one.due, state)
