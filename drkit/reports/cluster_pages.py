"""One cluster's pages: objectives over time, days, drills, sizes, rules in force."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drkit.model.evidence import CheckState, Outcome
from drkit.reports import charts
from drkit.reports.actions import title_of
from drkit.reports.blocks import (
    Cell,
    Chart,
    Facts,
    Heading,
    Items,
    Text,
    Tone,
    cells,
    table,
)
from drkit.reports.words import (
    duration,
    moment,
    plural,
    promise,
    sentence,
    size,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from drkit.model.evidence import Check, Measure, Record
    from drkit.model.quarter import Quarter
    from drkit.reports.blocks import Block, Table
    from drkit.reports.report import Backups, ClusterReport

OUTCOMES = {
    Outcome.MET: Cell("✓ met", Tone.GOOD),
    Outcome.MISSED: Cell("! missed", Tone.WARN),
    Outcome.FAILED: Cell("✗ failed", Tone.BAD),
}
_CHECKS = {
    CheckState.PASSED: Cell("✓ passed", Tone.GOOD),
    CheckState.FAILED: Cell("✗ failed", Tone.BAD),
    CheckState.NOT_DONE: Cell("○ not done", Tone.SOFT),
}


def cluster_pages(
    one: ClusterReport, quarter: Quarter, *, fresh: bool
) -> Iterator[Block]:
    """Yield a cluster's part of the report."""
    yield Heading(2, f"Cluster {one.cluster}", fresh=fresh)
    yield Text(f"System identifier {one.system_identifier}.", Tone.SOFT)
    yield from (Text(note) for note in one.notes)
    yield from _trends(one)
    yield Heading(3, "Days with a proven restore")
    yield Text(f"{one.calendar.sentence} {one.calendar.rule}")
    caption = f"Verifications and drills of {quarter}, by UTC day."
    yield Chart(charts.calendar(one.calendar), caption)
    yield from _drills(one)
    yield from _sizes(one)
    yield from _in_force(one)


def _trends(one: ClusterReport) -> Iterator[Block]:
    yield Heading(3, "Recovery time and recovery point over quarters")
    yield Text(f"{one.rto.sentence} {one.rpo.sentence}")
    for name, of in (
        ("recovery time", charts.rto_figures),
        ("recovery point", charts.rpo_figures),
    ):
        if any(of(quarter).count for quarter in one.trend):
            drawing = charts.trend(name, of, one.trend)
            yield Chart(drawing, f"Worst and median {name} of each quarter.")
        else:
            span = plural(len(one.trend), "quarter")
            yield Text(f"No {name} was measured in the {span} up to this one.")


def _sizes(one: ClusterReport) -> Iterator[Block]:
    yield Heading(3, "Restore time against size")
    if not one.sizes:
        yield Text("No restore was measured.")
        return
    caption = "Each proven restore that measured its time."
    yield Chart(charts.sizes(one.sizes), caption)


def _drills(one: ClusterReport) -> Iterator[Block]:
    yield Heading(3, "Drills")
    if not one.drills:
        yield Text("No drill was run in this quarter.")
    for record in one.drills:
        yield from _drill(record)


def _drill(record: Record) -> Iterator[Block]:
    begun = f"{title_of(record)}, {moment(record.started)}"
    yield Heading(4, f"{OUTCOMES[record.outcome].text}: {begun}")
    if record.phases:
        caption = f"Timeline of the {title_of(record)}, record {record.sequence}."
        yield Chart(charts.gantt(record), caption)
    else:
        yield Text("Its phases were not measured.")
    yield Facts(tuple(_drill_facts(record)))
    if record.checks:
        yield _check_table(record.checks)
    else:
        yield Text("Nothing of the restored content was checked.")
    if record.deviations:
        yield Text("What was different from production, or could not be compared:")
        yield Items(tuple(sentence(one) for one in record.deviations))
    yield from (Text(sentence(note)) for note in record.notes)


def _drill_facts(record: Record) -> Iterator[tuple[str, str]]:
    yield "recovery time", measured(record.rto)
    yield "recovery point", measured(record.rpo)
    if record.forecast is not None:
        told = (
            f"{duration(record.forecast.seconds)} ± {duration(record.forecast.error)}"
        )
        off = record.forecast_off
        if off is not None:
            told += f"; it took {duration(abs(off))} {'more' if off > 0 else 'less'}"
        yield "recovery time as forecast before", told
    if record.chosen:
        yield "how it was chosen", record.chosen
    found = record.restored
    if found is None:
        yield "restored", "nothing"
    else:
        yield "backup", found.label
        yield "recovery target", found.target
        reached = found.reached_lsn or "not measured"
        if found.reached_time is not None:
            reached += f", last commit {moment(found.reached_time)}"
        yield "reached", reached
        read = f"{size(found.fetched_bytes)} read from the repository"
        yield "size", f"{size(found.bytes)}, {read}"
        yield "WAL replayed", plural(found.wal_segments, "segment")
    if record.actor is not None:
        actor = record.actor
        told = f"PostgreSQL {actor.postgresql} on {actor.host}, drkit {actor.drkit}"
        yield "restored by", told
    yield "left behind", _cleanup(record)


def _cleanup(record: Record) -> str:
    if record.cleanup is None:
        return "not looked at"
    if record.cleanup.proven:
        return "nothing: the scratch directory was seen to be gone"
    return record.cleanup.detail or "could not be proven to be gone"


def measured(measure: Measure | None) -> str:
    """Write a measure with its target: `18 min 23 s (target 15 min)`."""
    if measure is None:
        return "not measured"
    told = f"{duration(measure.measured)} (target {promise(measure.target)})"
    return f"{told}: {measure.meaning}" if measure.meaning else told


def _check_table(checks: Sequence[Check]) -> Table:
    rows = [
        cells(one.name, _CHECKS[one.state], one.detail, duration(one.seconds))
        for one in checks
    ]
    head = ("Check", "Result", "What was compared", "Took")
    return table("", (24, 14, 48, 14), head, rows)


def _in_force(one: ClusterReport) -> Iterator[Block]:
    yield Heading(3, "Schedule, retention and backups in force")
    rows = [(fact.name, fact.value) for fact in one.in_force]
    yield Facts((*rows, *_backups(one.backups)))


def _backups(found: Backups) -> Iterator[tuple[str, str]]:
    if not found.count or found.oldest is None or found.newest is None:
        yield "backups in force", "none"
        return
    kinds = f"{found.full} full, {found.incremental} incremental"
    yield "backups in force", f"{found.count} ({kinds}), {size(found.stored_bytes)}"
    yield "oldest and newest", f"{moment(found.oldest)} and {moment(found.newest)}"
    yield "proven by a restore of their own", f"{found.proven} of {found.count}"
    if found.pinned:
        yield "pinned", str(found.pinned)
    if found.damaged_pages:
        yield "pages damaged when they were read", str(found.damaged_pages)
