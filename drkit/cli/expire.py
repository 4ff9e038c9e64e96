"""`drkit expire`, `drkit pin` and `drkit unpin`."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any

import typer

from drkit import wiring
from drkit.cli import render
from drkit.cli.fates import fate_json, fates_text
from drkit.cli.session import Session, command
from drkit.errors import UsageError
from drkit.printing import page

if TYPE_CHECKING:
    from collections.abc import Iterator

    from drkit.model.log import Pin
    from drkit.operations.expire import Expired, ExpirePlan

_PolicyArgument = Annotated[str, typer.Argument(help="A policy's name, or its file.")]
_LabelArgument = Annotated[
    str, typer.Argument(help="A backup's label, a unique prefix of it, or `latest`.")
]
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}\Z")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    command(
        app,
        "expire",
        examples="""
        drkit expire production --plan
        drkit expire production
        """,
    )(expire)
    command(
        app,
        "pin",
        examples="""
        drkit pin production latest --reason 'before the move to version 18'
        drkit pin production 20260115 --reason audit --until 2026-12-31
        """,
    )(pin)
    command(app, "discard", examples="drkit discard production 20260115-020000-full")(
        discard
    )
    command(app, "unpin", examples="drkit unpin production 20260115-020000-full")(unpin)


def expire(
    session: Session,
    policy: _PolicyArgument,
    plan: Annotated[
        bool, typer.Option("--plan", help="Show what would go and why; delete nothing.")
    ] = False,
    most: Annotated[
        int | None,
        typer.Option(
            "--max",
            min=1,
            metavar="N",
            help="Delete at most so many backups; else retention.max_deletions.",
        ),
    ] = None,
    accept_clock: Annotated[
        bool,
        typer.Option(
            "--accept-clock",
            help="Believe this host's clock, though the log speaks against it.",
        ),
    ] = False,
) -> None:
    """Delete backups and WAL that the policy's retention keeps no longer.

    The newest backup, the newest that was proven to restore, and pinned ones are never
    deleted, nor what a kept or running backup builds on.
    """
    from drkit.operations.expire import execute_expire, plan_expire

    loaded = session.policy(policy)
    repository = wiring.open_repository(loaded, session.secrets)
    planned = plan_expire(
        repository,
        loaded.retention,
        repository.clock.now(),
        most=most,
        accept_clock=accept_clock,
    )
    for note in planned.notes:
        session.progress.warning(note)
    shape = {"policy": loaded.name, "plan": _plan_json(planned), "executed": not plan}
    if plan:
        session.show(_plan_text(planned), {**shape, "result": None})
        return
    done = execute_expire(repository, planned, wiring.host_name(), session.progress)
    session.show(_done_text(planned, done), {**shape, "result": _done_json(done)})


def pin(
    session: Session,
    policy: _PolicyArgument,
    label: _LabelArgument,
    reason: Annotated[
        str, typer.Option(metavar="TEXT", help="Why; whoever tidies up reads it.")
    ],
    until: Annotated[
        str | None,
        typer.Option(
            metavar="DATE",
            help="Last day of the pin in UTC, or a time with its offset; else it holds "
            "until `drkit unpin`.",
        ),
    ] = None,
) -> None:
    """Keep a backup, and what it builds on, whatever the policy's retention says."""
    from drkit.operations.pins import pin_backup

    end = None if until is None else read_end(until)
    loaded = session.policy(policy)
    repository = wiring.open_repository(loaded, session.secrets)
    made = pin_backup(repository, label, reason, end)
    told = "until it is unpinned" if end is None else f"until {render.moment(end)}"
    session.show(
        f"{made.label} is pinned {told}: {made.reason}",
        {"policy": loaded.name, "pin": _pin_json(made)},
    )


def discard(
    session: Session,
    policy: _PolicyArgument,
    label: Annotated[str, typer.Argument(help="The whole label, as `info` shows it.")],
) -> None:
    """Delete what is stored of a backup that the log does not list.

    Such a one is left by a backup that was killed just before its commit, or its log
    entries are hidden or lost: look for those first. It is never deleted by itself.
    """
    from drkit.operations.discarding import discard as discard_backup

    loaded = session.policy(policy)
    repository = wiring.open_repository(loaded, session.secrets)
    done = discard_backup(repository, label, session.progress)
    session.show(
        f"{done.label} is deleted: {done.objects} objects that the log, whose head is "
        f"{done.head}, did not list",
        {
            "policy": loaded.name,
            "label": done.label,
            "attempts": list(done.attempts),
            "objects": done.objects,
            "head": str(done.head),
        },
    )


def unpin(session: Session, policy: _PolicyArgument, label: _LabelArgument) -> None:
    """Lift a backup's pin: retention decides about it again."""
    from drkit.operations.pins import unpin_backup

    loaded = session.policy(policy)
    repository = wiring.open_repository(loaded, session.secrets)
    lifted = unpin_backup(repository, label)
    session.show(
        f"{lifted.label} is no longer pinned; it was for: {lifted.reason}",
        {"policy": loaded.name, "pin": _pin_json(lifted)},
    )


def read_end(text: str) -> datetime:
    """Return when a pin ends: a day's end in UTC, or a moment.

    Raises:
        UsageError: neither, or a moment without its offset.
    """
    try:
        if _DATE.match(text):
            following = date.fromisoformat(text) + timedelta(days=1)
            return datetime.combine(following, time(), UTC)
        moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        moment = None
    if moment is None or moment.tzinfo is None:
        raise UsageError(
            f"--until {text!r} is neither a day nor a time with its offset",
            hint="write 2026-12-31, or '2026-12-31 18:00:00+01:00'",
        )
    return moment


def _plan_text(plan: ExpirePlan) -> str:
    lines = [fates_text(plan.fates) if plan.fates else "no backups", ""]
    going = [label for chain in plan.chains for label in chain]
    sizes = {fate.label: fate.backup.stored_bytes for fate in plan.fates}
    stored = render.size(sum(sizes[label] for label in going))
    lines.append(f"{_count(len(going), 'backup')} would be deleted, {stored}")
    if plan.deferred:
        lines.append(f"{_count(len(plan.deferred), 'more')} by later runs: --max")
    if plan.unfinished:
        lines.append(
            f"{_count(len(plan.unfinished), 'backup')} that an earlier run has expired "
            f"would be deleted to the end: {', '.join(plan.unfinished)}"
        )
    lines += _wal_text(plan)
    return page([*lines, "", "nothing was deleted: this is a plan"])


def _wal_text(plan: ExpirePlan) -> Iterator[str]:
    """Yield how much WAL would go, and of each timeline from where to where."""
    size = render.size(plan.wal_bytes)
    yield f"{_count(len(plan.wal), 'WAL file')} would be deleted, {size}"
    for timeline, group in groupby(plan.wal, lambda stored: stored.file.timeline):
        names = [stored.file.name for stored in group]
        reach = names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"
        yield f"  timeline {timeline}: {len(names)}, {reach}"


def _done_text(plan: ExpirePlan, done: Expired) -> str:
    backups = _count(len(done.labels), "backup")
    wal = f"{_count(done.wal_files, 'WAL file')}, {render.size(done.wal_bytes)}"
    lines = [f"{plan.cluster}: deleted {backups} and {wal}"]
    lines += [f"  deleted: {label}" for label in done.labels]
    lines += [f"  kept after all, the log has changed: {label}" for label in done.kept]
    lines += [
        f"  retained: {label}; the store keeps its objects for now, and later runs "
        "try again"
        for label in done.retained
    ]
    if done.wal_retained:
        lines.append(f"  retained: {_count(done.wal_retained, 'WAL file')}")
    if plan.deferred:
        lines.append(f"  left to later runs: {_count(len(plan.deferred), 'backup')}")
    return page(lines)


def _count(number: int, what: str) -> str:
    plural = "" if number == 1 or what == "more" else "s"
    return f"{number:,} {what}{plural}"


def _plan_json(plan: ExpirePlan) -> dict[str, Any]:
    return {
        "time": plan.time.isoformat(),
        "fates": [fate_json(fate) for fate in plan.fates],
        "delete": [label for chain in plan.chains for label in chain],
        "deferred": list(plan.deferred),
        "unfinished": list(plan.unfinished),
        "wal": {
            "files": len(plan.wal),
            "stored_bytes": plan.wal_bytes,
        },
        "notes": list(plan.notes),
    }


def _done_json(done: Expired) -> dict[str, Any]:
    return {
        "deleted": done.labels,
        "kept": done.kept,
        "retained": done.retained,
        "wal": {
            "files": done.wal_files,
            "stored_bytes": done.wal_bytes,
            "retained": done.wal_retained,
        },
    }


def _pin_json(pin: Pin) -> dict[str, Any]:
    return {
        "label": pin.label,
        "reason": pin.reason,
        "until": None if pin.until is None else pin.until.isoformat(),
    }
