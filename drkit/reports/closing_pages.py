"""The report's end: control map, evidence, every exercise, and lines to sign."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from drkit.model.evidence import CheckState, RecordKind
from drkit.reports.blocks import (
    Cell,
    Facts,
    Heading,
    Items,
    SignOff,
    Text,
    Tone,
    cells,
    table,
)
from drkit.reports.cluster_pages import OUTCOMES
from drkit.reports.controls import FINDINGS, NO_RECORD, SHOWN
from drkit.reports.words import duration, moment, plural, sentence

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from drkit.model.evidence import Measure, Record
    from drkit.model.standing import ChainState
    from drkit.reports.blocks import Block, Table
    from drkit.reports.report import ClusterReport, Control, Report, Support

_ROLES = ("Prepared by", "Reviewed by", "Approved by")
_MARKS = {
    SHOWN: ("✓", Tone.GOOD),
    FINDINGS: ("!", Tone.WARN),
    NO_RECORD: ("○", Tone.BAD),
}


def closing_pages(report: Report, digest: str) -> Iterator[Block]:
    """Yield what follows the clusters."""
    yield from _controls(report.controls)
    yield from _evidence(report.clusters, digest)
    yield Heading(2, "Sign-off")
    yield Text(
        f"This report's content has the SHA-256 {digest}: its HTML, PDF, Markdown and "
        "JSON carry the same."
    )
    yield SignOff(_ROLES)
    yield Heading(2, "Every exercise of the quarter", fresh=True)
    for one in report.clusters:
        yield from _exercises(one)


def _controls(controls: Sequence[Control]) -> Iterator[Block]:
    yield Heading(2, "Controls and their records", fresh=True)
    yield Text(
        "A record shows what was done in the quarter. Whether a control is met, an "
        "auditor decides."
    )
    rows = [
        cells(f"{one.framework} {one.control}", one.asks, each.cluster, _support(each))
        for one in controls
        for each in one.support
    ]
    head = ("Control", "What it asks, in short", "Cluster", "What the records show")
    yield table("", (25, 30, 13, 32), head, rows)


def _support(each: Support) -> Cell:
    mark, tone = _MARKS[each.state]
    told = f" (records {_ranges(each.sequences)})" if each.sequences else ""
    return Cell(f"{mark} {each.text}{told}", tone)


def _ranges(sequences: Sequence[int]) -> str:
    """Write numbers with stretches drawn together: `3 to 7, 9`."""
    runs: list[list[int]] = []
    for number in sorted(sequences):
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(f"{a}" if a == b else f"{a} to {b}" for a, b in runs)


def _evidence(clusters: Sequence[ClusterReport], digest: str) -> Iterator[Block]:
    yield Heading(2, "Evidence, and how to check it")
    yield Text(
        "Every exercise left a record, signed and chained to the one before. Each "
        "figure of this report comes from one of them. `drkit drill export` writes "
        "them to files, which `drkit drill verify` checks anywhere, without repository "
        "or keys; `drkit drill report` writes this report again from them."
    )
    for one in clusters:
        rows = [
            ("cluster", one.cluster),
            ("records up to then", str(one.chain.records)),
            ("SHA-256 of the newest of them", one.chain.head or "none"),
            ("state of the chain", _state(one.chain)),
            ("head of the repository's log then", one.log_head or "none"),
            *(("signed by", key) for key in one.chain.signers),
            *(("trusted by the policy", key) for key in one.trusted),
        ]
        yield Facts(tuple(rows))
        if not one.chain.sound:
            yield Items(tuple(sentence(problem) for problem in one.chain.problems))
    yield Facts((("SHA-256 of this report's JSON", digest),))


def _state(chain: ChainState) -> str:
    if not chain.sound:
        return "BROKEN"
    return "sound" if chain.records else "there is no record"


def _exercises(one: ClusterReport) -> Iterator[Block]:
    yield Heading(3, one.cluster)
    if not one.exercises:
        yield Text("There is no record of an exercise.")
        return
    yield _exercise_table(one)
    seen = Counter(
        text
        for record in one.exercises
        if record.kind is RecordKind.VERIFICATION
        for text in record.deviations
    )
    if seen:
        yield Text("What verifications found different, or could not compare:")
        order = sorted(seen, key=lambda text: (-seen[text], text))
        yield Items(tuple(f"{plural(seen[each], 'time')}: {each}" for each in order))


def _exercise_table(one: ClusterReport) -> Table:
    head = (
        "Record",
        "Started, UTC",
        "What",
        "Backup",
        "RTO",
        "RPO",
        "Checks",
        "Outcome",
    )
    told = zip(one.exercises, one.digests, strict=True)
    rows = [_exercise(record, digest) for record, digest in told]
    caption = (
        "Each record with its number and the beginning of its SHA-256, and how many of "
        "its checks passed."
    )
    return table(caption, (13, 15, 15, 17, 12, 11, 7, 10), head, rows)


def _exercise(record: Record, digest: str) -> tuple[Cell, ...]:
    drill = record.kind is RecordKind.DRILL
    return cells(
        f"{record.sequence} {digest[:8]}",
        moment(record.started).removesuffix(" UTC"),
        f"drill {record.scenario}".strip() if drill else "verification",
        record.restored.label if record.restored else "none",
        _figure(record.rto),
        _figure(record.rpo),
        _checks(record),
        OUTCOMES[record.outcome],
    )


def _figure(measure: Measure | None) -> Cell:
    if measure is None:
        return Cell("not measured", Tone.SOFT)
    tone = Tone.WARN if measure.missed else Tone.PLAIN
    mark = "! " if measure.missed else ""
    return Cell(f"{mark}{duration(measure.measured)}", tone)


def _checks(record: Record) -> str:
    if not record.checks:
        return "none"
    passed = sum(check.state is CheckState.PASSED for check in record.checks)
    return f"{passed} of {len(record.checks)}"
