"""`drkit info`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from drkit import wiring
from drkit.cli import render
from drkit.cli.fates import fate_json, fates_text
from drkit.cli.log_head import ExpectHead, read_head, standing_json, standing_lines
from drkit.cli.outlook import outlook_json, outlook_text
from drkit.cli.restorable import restorable_json, restorable_lines
from drkit.cli.session import Session, command
from drkit.cli.wal import signed_json, timeline_json
from drkit.errors import DrkitError
from drkit.printing import page

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from datetime import timedelta

    from drkit.config.policy import Policy
    from drkit.model.backup import BackupSummary
    from drkit.model.log_head import LogHead
    from drkit.model.reach import Gap
    from drkit.operations.forecasting import Outlook
    from drkit.operations.info import ClusterInfo, RunningAttempt
    from drkit.operations.wal_status import TimelineStatus

OBJECTIVE_MISSED = 3


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(
        app,
        "info",
        examples="""
        drkit info
        drkit info production --output json
        """,
    )(info)


def info(
    session: Session,
    policy: Annotated[
        str | None,
        typer.Argument(help="A policy's name or file; every policy if none."),
    ] = None,
    expect_head: ExpectHead = None,
) -> int:
    """Show backups and what keeps them, archived WAL, and what can be restored.

    Reads the repository only; the database may be gone. Exits with 3 if objectives.rpo
    is missed: if the newest moment that can be restored is older than it. Where the
    archived WAL can't be looked into, as without keys.wal, it shows all the rest and
    exits with the code of that error; with 15 if the log's newest entries are gone, or
    one can't be believed: then it shows what is proven in front of that.
    """
    expected = read_head(expect_head)
    found: list[ClusterInfo] = []
    errors: list[DrkitError] = []
    for each in _policies(session, policy):
        try:
            found.append(_look(session, each, expected))
        except DrkitError as error:
            if policy is not None:
                raise
            errors.append(error)
            session.progress.warning(f"{each}: {error}", hint=error.hint)
    blocks = [line for one in found for line in ("", _text(one))]
    text = page(blocks[1:])
    shape = {
        "policies": [_json(one) for one in found],
        "errors": [error.message for error in errors],
    }
    session.show(session.redactor.text(text), shape)
    errors += [alarm for one in found for alarm in one.log.alarms]
    errors += [one.blind for one in found if one.blind is not None]
    if errors:
        return errors[0].exit_code
    missed = any(one.rpo is not None and not one.rpo.met for one in found)
    return OBJECTIVE_MISSED if missed else 0


def _policies(session: Session, policy: str | None) -> list[str | None]:
    """Return what to show: the files of all policies if none is named."""
    from drkit.config.discovery import find_policies, policy_dirs

    if policy is not None:
        return [policy]
    files = find_policies(policy_dirs(session.options.policy_dir, session.environ))
    return [*files] or [None]


def _look(session: Session, name: str | None, expected: LogHead | None) -> ClusterInfo:
    from drkit.operations.info import cluster_info

    policy: Policy = session.policy(name)
    repository = wiring.open_repository(policy, session.secrets)
    return cluster_info(
        repository,
        policy.objectives,
        wiring.host_name(),
        policy.retention,
        expected,
    )


def _text(found: ClusterInfo) -> str:
    rows = [
        ("repository", found.repository),
        ("lineage", found.lineage),
        ("system identifier", found.system_identifier),
        ("head of the log", str(found.log.head)),
    ]
    told = standing_lines(found.log, found.cluster)
    lines = [
        found.cluster,
        *told,
        render.facts(rows),
        "",
        *(_blind(found.blind) or restorable_lines(found.restorable)),
        "",
    ]
    if found.backups:
        lines.append(_backups(found.backups))
        age = found.newest_backup_age
        lines += [f"the newest backup ended {_ago(age)}", "", fates_text(found.fates)]
    elif found.log.alarms:
        lines.append("what is left of the log names no backup")
    else:
        lines.append(f"no backup yet; take one: drkit backup {found.cluster}")
    lines += [_running(one, found.log.uncommitted) for one in found.running]
    lines += ["", *(line for one in found.wal.timelines for line in _wal(found, one))]
    if not found.wal.timelines:
        lines.append("no WAL is archived")
    elif found.wal.unsigned:
        lines.append(f"note: {found.wal.unsigned}")
    if found.rpo is not None:
        lines += ["", _rpo(found)]
    if found.outlook is not None:
        lines += ["", _rto(found.outlook, found)]
    return page(lines)


def _blind(why: DrkitError | None) -> list[str]:
    if why is None:
        return []
    lines = [f"UNKNOWN what can be restored: {why.message}"]
    return [*lines, f"  → {why.hint}"] if why.hint else lines


def _backups(backups: tuple[BackupSummary, ...]) -> str:
    head = ("backup", "source", "ended", "took", "content", "stored", "WAL", "notes")
    rows = [
        (
            one.label,
            one.source,
            render.moment(one.stop_time),
            render.duration(one.stop_time - one.start_time),
            render.size(one.bytes),
            render.size(one.stored_bytes),
            f"{one.timeline}: {one.start_lsn} to {one.stop_lsn}",
            _notes(one),
        )
        for one in backups
    ]
    return render.table(head, rows)


def _notes(one: BackupSummary) -> str:
    notes = []
    if one.damaged_pages:
        notes.append(f"{one.damaged_pages} DAMAGED PAGES")
    if one.warnings:
        notes.append(f"{one.warnings} warnings")
    return ", ".join(notes)


def _running(one: RunningAttempt, whole: Collection[str]) -> str:
    told = {
        "held": f"lease of {one.holder} until {one.until:%H:%M:%S} UTC"
        if one.until
        else "",
        "lapsed": f"lease of {one.holder} has lapsed; the next backup clears it away",
        "none": "without a lease; the next backup clears it away when it is old",
    }[one.lease]
    if one.label in whole:
        told = "it is whole, so nothing clears it away"
    return (
        f"running: {one.label} on {one.host} since {render.moment(one.since)}, {told}"
    )


def _wal(found: ClusterInfo, line: TimelineStatus) -> Iterator[str]:
    size = found.wal.segment_size
    yield (
        f"WAL of timeline {line.timeline}: {line.first.name(size)} to "
        f"{line.last.name(size)}, {line.segments} segments, "
        f"{render.size(line.stored_bytes)}"
    )
    for gap in line.gaps:
        first, last = _gap(gap, size)
        yield f"  GAP: {first if first == last else f'{first} to {last}'} missing"


def _gap(gap: Gap, size: int) -> tuple[str, str]:
    return gap.first.name(size), gap.last.name(size)


def _rpo(found: ClusterInfo) -> str:
    if found.rpo is None:
        return ""
    target = render.duration(found.rpo.target)
    if found.blind is not None:
        return f"UNKNOWN: rpo {target}: the archived WAL could not be looked into"
    if found.rpo.measured is None:
        return f"MISSED: rpo {target}: nothing can be restored"
    verdict = "met" if found.rpo.met else "MISSED"
    return (
        f"{verdict}: rpo {target}: the newest moment that can be restored was "
        f"{_ago(found.rpo.measured)}. Whatever was committed since would be lost with "
        "the server; an idle cluster commits nothing"
    )


def _rto(expected: Outlook, found: ClusterInfo) -> str:
    told = f"a restore to the newest moment: {outlook_text(expected, found.cluster)}"
    if found.rto is None:
        return told
    late = expected.forecast is not None and (
        expected.forecast.seconds > found.rto.total_seconds()
    )
    risk = "AT RISK: " if late else ""
    return f"{risk}rto {render.duration(found.rto)}: {told}"


def _ago(length: timedelta | None) -> str:
    return "" if length is None else f"{render.duration(length)} ago"


def _json(found: ClusterInfo) -> dict[str, Any]:
    from drkit.model.backup import summary_to_json

    age = found.newest_backup_age
    return {
        "policy": found.cluster,
        "repository": found.repository,
        "lineage": found.lineage,
        "log": standing_json(found.log),
        "system_identifier": found.system_identifier,
        "time": found.time.isoformat(),
        "backups": [summary_to_json(one) for one in found.backups],
        "newest_backup_age_seconds": None if age is None else age.total_seconds(),
        "running": [_running_json(one) for one in found.running],
        "wal": [
            timeline_json(one, found.wal.segment_size) for one in found.wal.timelines
        ],
        "wal_signed": signed_json(found.wal),
        **restorable_json(found.restorable),
        "wal_error": None if found.blind is None else _error(found.blind),
        "fates": [fate_json(fate) for fate in found.fates],
        "rpo": _rpo_json(found),
        "rto_seconds": None if found.rto is None else found.rto.total_seconds(),
        "forecast": outlook_json(found.outlook),
    }


def _running_json(one: RunningAttempt) -> dict[str, Any]:
    return {
        "label": one.label,
        "attempt": one.attempt,
        "host": one.host,
        "since": one.since.isoformat(),
        "lease": one.lease,
        "holder": one.holder or None,
        "until": None if one.until is None else one.until.isoformat(),
    }


def _error(error: DrkitError) -> dict[str, Any]:
    return {
        "error": type(error).__name__,
        "exit_code": error.exit_code,
        "message": error.message,
        "hint": error.hint,
    }


def _rpo_json(found: ClusterInfo) -> dict[str, Any] | None:
    if found.rpo is None:
        return None
    measured = found.rpo.measured
    return {
        "target_seconds": found.rpo.target.total_seconds(),
        "measured_seconds": None if measured is None else measured.total_seconds(),
        "met": found.rpo.met,
    }
