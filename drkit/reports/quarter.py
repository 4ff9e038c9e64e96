"""From records to a report: everything that is counted, compared or said.

Pure: the same evidence gives the same report. No record, no claim.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from drkit.model.duration import format_duration
from drkit.model.evidence import Outcome, RecordKind
from drkit.model.label import BackupKind
from drkit.reports.actions import actions, findings, still_open_at
from drkit.reports.calendar import calendar, day_of, proves
from drkit.reports.controls import controls
from drkit.reports.measures import (
    objective,
    rpo_of,
    rto_of,
    seconds,
    sizes,
    trend,
)
from drkit.reports.report import Backups, ClusterReport, Fact, Report
from drkit.reports.summary import headline, status_of, summary

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from drkit.model.evidence import Record
    from drkit.model.quarter import Quarter
    from drkit.model.retention import Retention
    from drkit.model.standing import ClusterEvidence, Rules, Standing
    from drkit.reports.report import ActionState

EXERCISES = (RecordKind.DRILL, RecordKind.VERIFICATION)


def drill_report(
    evidence: Sequence[ClusterEvidence], quarter: Quarter, drkit: str
) -> Report:
    """Report on a quarter.

    Args:
        evidence: of each cluster, all as of the same moment; they are told in this
            order. Records that are later than the quarter count only as updates of
            corrective actions.
        quarter: which has begun.
        drkit: the version that writes the report.

    Raises:
        ValueError: there is no cluster, or the quarter has not begun.
    """
    if not evidence or any(one.standing.as_of <= quarter.begin for one in evidence):
        raise ValueError(f"there is nothing to report of {quarter} yet")
    as_of = max(one.standing.as_of for one in evidence)
    dated = min(day_of(as_of), quarter.last_day)
    known = [
        actions(one.standing.cluster, one.records, quarter, dated) for one in evidence
    ]
    clusters = tuple(cluster_report(one, quarter) for one in evidence)
    found = [
        finding
        for report, own in zip(clusters, known, strict=True)
        for finding in findings(report.cluster, report.exercises, own)
    ]
    found.sort(key=lambda one: one.outcome is not Outcome.FAILED)
    carried = tuple(_carried(evidence, known, quarter))
    raised = tuple(_raised(clusters, known, quarter))
    status = status_of(clusters, found, [*carried, *raised])
    return Report(
        quarter=quarter,
        dated=dated,
        over=as_of >= quarter.end,
        drkit=drkit,
        status=status,
        headline=headline(status, clusters, found),
        summary=summary(clusters, found, [*carried, *raised]),
        findings=tuple(found),
        carried=carried,
        raised=raised,
        clusters=clusters,
        controls=controls(clusters),
    )


def _carried(
    evidence: Sequence[ClusterEvidence],
    known: Sequence[Sequence[ActionState]],
    quarter: Quarter,
) -> Iterator[ActionState]:
    """Yield the actions that were open when the quarter began, as they stand now."""
    for one, own in zip(evidence, known, strict=True):
        open_then = still_open_at(one.records, quarter)
        yield from (action for action in own if action.number in open_then)


def _raised(
    clusters: Sequence[ClusterReport],
    known: Sequence[Sequence[ActionState]],
    quarter: Quarter,
) -> Iterator[ActionState]:
    """Yield the actions opened in the quarter, or later because of it."""
    for report, own in zip(clusters, known, strict=True):
        told = {record.sequence for record in report.exercises}
        for action in own:
            later = action.opened > quarter.last_day
            if not action.carried and (not later or action.follows in told):
                yield action


def cluster_report(evidence: ClusterEvidence, quarter: Quarter) -> ClusterReport:
    """Report on one cluster's quarter."""
    standing, rules = evidence.standing, evidence.standing.rules
    past = [
        record
        for record in evidence.records
        if record.kind in EXERCISES and record.started < quarter.end
    ]
    current = [record for record in past if record.started in quarter]
    promised = rules.objectives
    until = min(standing.as_of, quarter.end)
    return ClusterReport(
        cluster=standing.cluster,
        system_identifier=standing.system_identifier,
        rto=objective("RTO", rto_of, current, seconds(promised.rto)),
        rpo=objective("RPO", rpo_of, current, seconds(promised.rpo)),
        exercises=tuple(current),
        digests=tuple(evidence.digests[one.sequence] for one in current),
        proven=sum(map(proves, current)),
        failed=sum(one.outcome is Outcome.FAILED for one in current),
        last_proven=max((one.finished for one in past if proves(one)), default=None),
        trend=trend(past, quarter),
        sizes=sizes(past, quarter),
        calendar=calendar(past, quarter, until, rules.verification, standing.opened),
        backups=_backups(standing),
        in_force=tuple(_in_force(standing)),
        notes=tuple(_notes(rules, current)),
        chain=standing.chain,
        trusted=rules.trusted,
        log_head=standing.log_head,
    )


def _backups(standing: Standing) -> Backups:
    backups = standing.backups
    kinds = [backup.kind for backup in backups]
    times = [backup.stop_time for backup in backups]
    return Backups(
        count=len(backups),
        full=kinds.count(BackupKind.FULL),
        incremental=kinds.count(BackupKind.INCREMENTAL),
        proven=sum(backup.label in standing.proven for backup in backups),
        pinned=sum(backup.label in standing.pinned for backup in backups),
        damaged_pages=sum(backup.damaged_pages for backup in backups),
        stored_bytes=sum(backup.stored_bytes for backup in backups),
        oldest=min(times, default=None),
        newest=max(times, default=None),
    )


def _in_force(standing: Standing) -> Iterator[Fact]:
    rules = standing.rules
    yield Fact("repository", standing.repository)
    for kind, schedule in rules.backups.items():
        told = f"{schedule} ({rules.timezone})"
        yield Fact(f"{kind} backups", told)
    if not rules.backups:
        yield Fact("backups", "no schedule is set")
    verified = rules.verification
    told = "no schedule is set" if verified is None else str(verified)
    yield Fact("verifications", told)
    yield from _retention(rules.retention)
    yield Fact("policy file, SHA-256", rules.configuration or "not known")


def _retention(retention: Retention) -> Iterator[Fact]:
    counts = {
        "full backups kept": retention.full,
        "daily backups kept": retention.daily,
        "weekly backups kept": retention.weekly,
        "monthly backups kept": retention.monthly,
        "yearly backups kept": retention.yearly,
    }
    for name, count in counts.items():
        if count is not None:
            yield Fact(name, str(count))
    if retention.window is not None:
        yield Fact("any moment kept for", format_duration(retention.window))
    window = retention.wal_window
    told = "as far as backups reach" if window is None else format_duration(window)
    yield Fact("WAL kept for", told)


def _notes(rules: Rules, current: Sequence[Record]) -> Iterator[str]:
    """Tell where what is in force is not what the quarter was measured by."""
    for name, of, now in (
        ("RTO", rto_of, rules.objectives.rto),
        ("RPO", rpo_of, rules.objectives.rpo),
    ):
        targets = {
            measure.target for one in current if (measure := of(one)) is not None
        }
        if targets - {seconds(now)}:
            yield (
                f"The target of {name} was changed: some exercises of this quarter "
                "were measured against another one, which their own records hold."
            )
    files = {one.actor.configuration for one in current if one.actor is not None}
    if rules.configuration and files - {rules.configuration}:
        yield (
            "The policy file was changed since some of the quarter's exercises: "
            "their records hold the SHA-256 of the one that they used."
        )
