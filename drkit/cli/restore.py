"""`drkit restore`."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from drkit import wiring
from drkit.cli import render
from drkit.cli.log_head import ExpectHead, read_head, standing_json, standing_lines
from drkit.cli.restore_plan import plan_json, plan_text
from drkit.cli.restore_target import TargetOptions, read_target
from drkit.cli.session import Session, command
from drkit.errors import UsageError
from drkit.model.recovery import TargetAction  # noqa: TC001  typer reads it
from drkit.printing import page

if TYPE_CHECKING:
    from drkit.config.policy import Policy
    from drkit.model.log_head import LogHead
    from drkit.operations.heads import LogStanding
    from drkit.operations.restore import RestorePlan, RestoreRequest
    from drkit.repository.repository import Repository


NEWER_IS_GONE = 3


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(
        app,
        "restore",
        examples="""
        drkit restore production --to /srv/restored --plan
        drkit restore production --to /srv/restored
        drkit restore production --to DIR --target-time '2026-01-15 10:30:00+01:00'
        drkit restore production --to /var/lib/postgresql/16/main --delta --plan
        drkit restore production 20260115-020000-full --to DIR --target-immediate
        """,
    )(restore)


def restore(
    session: Session,
    policy: Annotated[
        str, typer.Argument(metavar="POLICY", help="A policy's name, or its file.")
    ],
    label: Annotated[
        str | None,
        typer.Argument(
            metavar="LABEL",
            help="A backup's label or the unique beginning of one, or latest; without "
            "it, the newest backup from which the target can be reached.",
        ),
    ] = None,
    *,
    to: Annotated[
        str,
        typer.Option(
            metavar="DIR",
            help="The data directory to make; empty, but for --delta.",
        ),
    ] = "",
    target_time: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Recover to a moment: '2026-01-15 10:30:00+01:00'. Without an offset "
            "it is this host's local time.",
        ),
    ] = None,
    target_lsn: Annotated[
        str | None, typer.Option(metavar="LSN", help="Recover to a WAL position.")
    ] = None,
    target_xid: Annotated[
        int | None, typer.Option(metavar="XID", help="Recover to a transaction's end.")
    ] = None,
    target_name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Recover to a pg_create_restore_point()."),
    ] = None,
    target_immediate: Annotated[
        bool,
        typer.Option("--target-immediate", help="Stop as soon as data is consistent."),
    ] = False,
    target_timeline: Annotated[
        str | None,
        typer.Option(
            metavar="TIMELINE",
            help="latest (the default), current (the backup's own), or a number.",
        ),
    ] = None,
    target_action: Annotated[
        TargetAction | None,
        typer.Option(help="What the server does at the target; promote by default."),
    ] = None,
    exclusive: Annotated[
        bool, typer.Option("--exclusive", help="Stop just before the target.")
    ] = False,
    tablespace_map: Annotated[
        list[str] | None,
        typer.Option(metavar="OLD=NEW", help="Put a tablespace elsewhere; repeatable."),
    ] = None,
    delta: Annotated[
        bool,
        typer.Option(
            "--delta",
            help="Restore over the cluster's own data directory: compare content, "
            "write only what differs, delete what the backup does not have.",
        ),
    ] = False,
    accept_unsigned_wal: Annotated[
        bool,
        typer.Option(
            "--accept-unsigned-wal",
            help="Take WAL also where it must be signed and is not: only if you know "
            "who archived it.",
        ),
    ] = False,
    plan: Annotated[
        bool, typer.Option("--plan", help="Say what would be done, and do nothing.")
    ] = False,
    log_until: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="Believe the log up to entry N only, where a later one is damaged.",
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1, max=64, help="Parallel workers; by default the policy's backup.jobs."
        ),
    ] = None,
    expect_head: ExpectHead = None,
) -> int:
    """Restore a cluster into a directory, to the newest state or to a target.

    Nothing but the repository and its keys is needed. The directory must be empty, or
    with --delta the cluster's own. The server is not started: the plan's end says how.

    If the log's newest entries are gone, as this host or --expect-head knows, it says
    so, restores what is there, and exits with 3.
    """
    from drkit.operations.forecasting import outlook_of_plan

    options = TargetOptions(
        time=target_time,
        lsn=target_lsn,
        xid=target_xid,
        name=target_name,
        immediate=target_immediate,
        timeline=target_timeline,
        action=target_action,
        exclusive=exclusive,
    )
    options.check()
    expected_head = read_head(expect_head)
    directory = _directory(to)
    tablespaces = _tablespaces(tablespace_map or [])
    loaded = session.policy(policy)
    repository = wiring.open_repository(
        loaded, session.secrets, accept_unsigned=accept_unsigned_wal
    )
    _read_log(session, repository, log_until)
    standing = _standing(session, repository, expected_head)
    request = _request(loaded, repository, options, label, directory, tablespaces, jobs)
    made = _plan(repository, replace(request, delta=delta))
    expected = outlook_of_plan(repository, made)
    shown = {
        "policy": loaded.name,
        "plan": plan_json(made, expected),
        "log": standing_json(standing),
    }
    session.tell(plan_text(loaded.name, made, options.note(), expected))
    if plan:
        if session.json:
            done = {"restored": False, "seconds": 0.0, "delta": None}
            session.show("", {**shown, **done})
    else:
        _run(session, repository, made, shown)
    if not standing.alarms:
        return 0
    session.tell(page(standing_lines(standing, loaded.name)))
    return NEWER_IS_GONE


def _standing(
    session: Session, repository: Repository, expected: LogHead | None
) -> LogStanding:
    """Say loudly if newer backups are gone; what is there can still be restored."""
    from drkit.operations.heads import log_standing

    standing = log_standing(repository, expected)
    for alarm in standing.alarms:
        told = f"{alarm.message}. This restores the newest of what is left"
        session.progress.warning(told, hint=alarm.hint)
    return standing


def _run(
    session: Session, repository: Repository, made: RestorePlan, shown: dict[str, Any]
) -> None:
    from drkit.cli.restore_delta import patched_json, patched_text
    from drkit.cli.restore_plan import next_steps
    from drkit.operations.restore import execute_restore

    begun = time.monotonic()
    patched = execute_restore(repository, made, session.progress)
    seconds = time.monotonic() - begun
    took = render.duration(timedelta(seconds=seconds))
    text = f"restored {made.backup.label} to {made.request.to} in {took}"
    done = {"restored": True, "seconds": round(seconds, 3)}
    session.show(
        page([f"{text}{patched_text(patched)}", next_steps(made)]),
        {**shown, **done, "delta": patched_json(patched)},
    )


def _read_log(session: Session, repository: Repository, until: int | None) -> None:
    """Read the log, as far as it is asked for, and warn of what is odd about it."""
    from drkit.operations.alarms import need_whole_log, warn_of_log

    if until is not None:
        repository.log.stop_at(until)
    need_whole_log(repository)
    if until is not None:
        if repository.log.head != until:
            raise UsageError(
                f"--log-until {until}: the log has no entry {until}; the one before "
                f"it is {repository.log.head}",
                hint="the error that the log's reading ends with names a number",
            )
        session.progress.warning(
            f"the log was read up to entry {until}, as --log-until says: backups that "
            "came or went later are not known to this restore"
        )
    warn_of_log(repository, session.progress)


def _plan(repository: Repository, request: RestoreRequest) -> RestorePlan:
    from drkit.operations.restore import plan_restore

    return plan_restore(repository, request)


def _request(
    policy: Policy,
    repository: Repository,
    options: TargetOptions,
    label: str | None,
    directory: str,
    tablespaces: dict[str, str],
    jobs: int | None,
) -> RestoreRequest:
    from drkit.cli.owner import target_owner
    from drkit.operations.restore import RestoreRequest

    def own_timeline() -> int:
        return repository.find(label or "latest").backup.timeline

    since = repository.wal.trust().since
    return RestoreRequest(
        label=label,
        target=read_target(options, own_timeline),
        to=directory,
        tablespaces=tablespaces,
        jobs=jobs or policy.backup.jobs,
        restore_command=wiring.restore_command(policy, since),
        owner=target_owner(directory, policy.cluster.data_directory),
    )


def _directory(to: str) -> str:
    if not to:
        raise UsageError(
            "--to is missing: the directory to restore into",
            hint="name an empty directory, or one that does not exist yet",
        )
    return os.path.abspath(to)


def _tablespaces(pairs: list[str]) -> dict[str, str]:
    places: dict[str, str] = {}
    for pair in pairs:
        old, equals, new = pair.partition("=")
        if not (equals and os.path.isabs(old) and os.path.isabs(new)):
            raise UsageError(
                f"--tablespace-map {pair} is not OLD=NEW, two absolute paths",
                hint="--plan shows where the backup's tablespaces were",
            )
        if old in places:
            raise UsageError(f"--tablespace-map names {old} twice")
        places[old] = new
    return places
