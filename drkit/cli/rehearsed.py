"""A rehearsed recovery as text and JSON: what a verification or a drill found."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from drkit.cli import render
from drkit.cli.records import measured
from drkit.model.evidence import CheckState, Outcome, RecordKind
from drkit.model.evidence_json import statement_of
from drkit.printing import page

if TYPE_CHECKING:
    from collections.abc import Iterator

    from drkit.model.evidence import Check, Measure, Record, Restored
    from drkit.operations.rehearsal import Rehearsed

_SIGNS = {
    CheckState.PASSED: "✓",
    CheckState.FAILED: "✗",
    CheckState.NOT_DONE: "?",
}
_VERDICTS = {
    Outcome.MET: "proven",
    Outcome.MISSED: "proven, but an objective was MISSED",
    Outcome.FAILED: "FAILED",
}


def rehearsed_text(policy: str, done: Rehearsed) -> str:
    """Tell the story: what was played, each phase, each check, what it comes to."""
    record = done.record
    lines = [f"{policy}: {_title(record)}: {_VERDICTS[record.outcome]}"]
    if record.failure:
        lines.append(f"  {record.failure}")
    lines.append(render.facts(list(_facts(record))))
    lines += _section("phases", _phases(record))
    lines += _section("checks", (_check(one) for one in record.checks))
    lines += _section("deviations", record.deviations)
    lines += _section("notes", record.notes)
    lines += ["", *_next(policy, done)]
    return page(lines)


def rehearsed_json(policy: str, done: Rehearsed) -> dict[str, Any]:
    """Return the record with its place in the chain of evidence."""
    return {
        "policy": policy,
        "exit_code": done.exit_code,
        "sha256": done.place.digest,
        "record": statement_of(done.record)["predicate"],
        "left_overs": [
            {"path": one.path, "bytes": one.bytes, "since": one.since.isoformat()}
            for one in done.left_overs
        ],
    }


def _title(record: Record) -> str:
    if record.kind is RecordKind.DRILL:
        return f"drill {record.scenario}"
    return "verification by restoring"


def _facts(record: Record) -> Iterator[tuple[str, str]]:
    if record.chosen:
        yield "chosen", record.chosen
    if record.restored is not None:
        yield from _restored(record.restored)
    yield "RTO", _measure(record.rto)
    yield "RPO", _measure(record.rpo)
    if record.forecast is not None:
        expected = render.duration(timedelta(seconds=record.forecast.seconds))
        error = render.duration(timedelta(seconds=record.forecast.error))
        yield "forecast", f"{expected} ± {error}{_off(record.forecast_off)}"
    if record.cleanup is not None:
        size = render.size(record.cleanup.removed_bytes)
        left = "nothing is left" if record.cleanup.proven else "SOMETHING IS LEFT"
        yield "cleared away", f"{size} in {record.cleanup.directory}; {left}"


def _off(seconds: float | None) -> str:
    if seconds is None:
        return ""
    length = render.duration(timedelta(seconds=abs(seconds)))
    return f"; it took {length} {'more' if seconds > 0 else 'less'}"


def _restored(restored: Restored) -> Iterator[tuple[str, str]]:
    yield "backup", " on ".join(reversed(restored.chain))
    yield "target", restored.target
    if restored.reached_lsn is not None:
        time = restored.reached_time
        last = "" if time is None else f", last commit {render.moment(time)}"
        yield "reached", f"{restored.reached_lsn} on timeline {restored.timeline}{last}"
    size = render.size(restored.bytes)
    yield "restored", f"{size} and {restored.wal_segments} WAL segments"


def _measure(measure: Measure | None) -> str:
    if measure is None:
        return "not measured"
    figure = measured(measure)
    missed = " MISSED" if measure.missed else ""
    return f"{figure}{missed}: {measure.meaning}"


def _phases(record: Record) -> Iterator[str]:
    for phase in record.phases:
        yield f"{phase.seconds:8.2f} s  {phase.name}"


def _check(check: Check) -> str:
    return f"{_SIGNS[check.state]} {check.name}: {check.detail}"


def _section(title: str, lines: Iterator[str] | tuple[str, ...]) -> list[str]:
    told = [f"  {line}" for line in lines]
    return ["", title, *told] if told else []


def _next(policy: str, done: Rehearsed) -> list[str]:
    number = done.record.sequence
    lines = [f"record {number}, SHA-256 {done.place.digest}"]
    if done.record.outcome is not Outcome.MET:
        lines.append(
            f"next: drkit drill action add {policy} --follows {number} --text '…' "
            "--owner '…' --due YYYY-MM-DD"
        )
    lines.append(f"hand it over: drkit drill export {policy} {number} --to DIR")
    return lines
