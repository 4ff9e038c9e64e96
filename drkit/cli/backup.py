"""`drkit backup`."""

from __future__ import annotations

import os
import time
from contextlib import closing
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from drkit import wiring
from drkit.cli import early, render
from drkit.cli.session import Session, command
from drkit.errors import UsageError
from drkit.printing import page

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from drkit.config.policy import Policy
    from drkit.model.backup import BackupSummary
    from drkit.model.due import Due
    from drkit.operations.backup_options import BackupOptions, Taken
    from drkit.operations.fingerprints.of_backup import FingerprintTaken
    from drkit.operations.framers.process import ProcessFramer
    from drkit.postgres.session_process import SessionProcess
    from drkit.repository.repository import Repository

OBJECTIVE_MISSED = 3


class BackupType(StrEnum):
    """What `--type` takes."""

    AUTO = "auto"
    FULL = "full"
    INCREMENTAL = "incremental"
    DUMP = "dump"
    FILES = "files"


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(
        app,
        "backup",
        examples="""
        drkit backup production
        drkit backup production --type full
        drkit backup production --jobs 8 --output json
        """,
    )(backup)


def backup(
    session: Session,
    policy: Annotated[
        str, typer.Argument(metavar="POLICY", help="A policy's name, or its file.")
    ],
    type_: Annotated[
        BackupType,
        typer.Option(
            "--type",
            help="auto takes a full backup when one is due, else an incremental.",
        ),
    ] = BackupType.AUTO,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1, max=64, help="Parallel workers; by default the policy's backup.jobs."
        ),
    ] = None,
) -> int:
    """Back up a cluster. It is listed only when it is whole and its WAL archived.

    Exits with 3 if the backup holds pages whose checksum is wrong.
    """
    if type_ in (BackupType.DUMP, BackupType.FILES):
        raise UsageError(
            f"this version of drkit can't take backups of type {type_} yet",
            hint="leave --type out, or give --type full or --type incremental",
        )
    loaded = session.policy(policy)
    begun = time.monotonic()
    taken = _back_up(session, loaded, type_, jobs or loaded.backup.jobs)
    took = timedelta(seconds=time.monotonic() - begun)
    session.show(_text(taken, took, loaded.name), _json(taken, took, loaded.name))
    return OBJECTIVE_MISSED if taken.summary.damaged_pages else 0


def _back_up(session: Session, policy: Policy, type_: BackupType, jobs: int) -> Taken:
    from drkit.operations.framers.process import framers

    local = policy.backup.source == "local"
    pages = local and type_ is not BackupType.FULL
    with (  # they get ready while this goes on
        early.session_process(wanted=local) as process,
        framers(jobs if pages else 0) as started,
    ):
        return _take(session, policy, type_, jobs, process, started)


def _take(
    session: Session,
    policy: Policy,
    type_: BackupType,
    jobs: int,
    process: SessionProcess | None,
    framers: Sequence[ProcessFramer],
) -> Taken:
    from drkit.operations.backup import take_backup
    from drkit.sites.source import open_source

    repository = wiring.open_repository(policy, session.secrets)
    wanted = _wanted(policy, repository, type_)
    with closing(open_source(policy, session.secrets, process)) as opened:
        options = _options(session, policy, jobs, opened.archiver, process, framers)
        return take_backup(
            repository,
            opened.present,
            opened.source,
            wanted,
            options,
            session.progress,
        )


def _wanted(policy: Policy, repository: Repository, type_: BackupType) -> Due:
    from drkit.model.due import Due, due
    from drkit.model.label import BackupKind

    if type_ is BackupType.AUTO:
        backups = [commit.backup for commit in repository.backups()]
        return due(backups, policy.backup.schedule.full, repository.clock.now())
    full = type_ is BackupType.FULL
    kind = BackupKind.FULL if full else BackupKind.INCREMENTAL
    return Due(kind, "asked for")


def _options(
    session: Session,
    policy: Policy,
    jobs: int,
    archiver: Callable[[], str],
    process: SessionProcess | None,
    framers: Sequence[ProcessFramer],
) -> BackupOptions:
    from drkit.operations.backup_options import BackupOptions

    return BackupOptions(
        host=wiring.host_name(),
        source=policy.backup.source,
        jobs=jobs,
        level=policy.backup.compression_level,
        wal_timeout=policy.backup.wal_timeout,
        archiver=archiver,
        fingerprint=wiring.fingerprint_wanted(policy, session.secrets),
        heartbeat=wiring.heartbeat_writer(policy, session.secrets, process),
        framers=framers,
        pg_wal=_pg_wal(policy),
    )


def _pg_wal(policy: Policy) -> str | None:
    directory = policy.cluster.data_directory
    if policy.backup.source != "local" or directory is None:
        return None
    return os.path.join(directory, "pg_wal")


def _text(taken: Taken, took: timedelta, policy: str) -> str:
    summary = taken.summary
    rows = [
        ("took", _took(summary, took)),
        ("kind", _kind(taken)),
        ("content", f"{render.size(summary.bytes)} in {summary.files} files"),
        ("stored", render.size(summary.stored_bytes)),
        ("WAL", f"{summary.start_lsn} to {summary.stop_lsn}"),
        ("timeline", str(summary.timeline)),
        *_fingerprint_row(taken),
        ("restores to", f"{render.exact(summary.stop_time)} or later"),
        ("head of the log", str(taken.head)),
        ("next", f"drkit restore {policy} {summary.label} --to DIR --plan"),
    ]
    lines = [f"backup {summary.label} of {policy} is done", render.facts(rows)]
    if summary.damaged_pages:
        lines.append(
            f"DAMAGED: {summary.damaged_pages} pages of the cluster have a wrong "
            "checksum, on its own disk and so in this backup. Keep the older backups, "
            "and find the cause. The warnings above name the files."
        )
    return page(lines)


def _took(summary: BackupSummary, took: timedelta) -> str:
    """Return the length that `info` shows as well, and that of the whole command."""
    backup = render.duration(summary.stop_time - summary.start_time)
    return f"{backup}; {render.duration(took)} until its WAL was archived and it listed"


def _fingerprint_row(taken: Taken) -> list[tuple[str, str]]:
    """Return what to tell of the fingerprint; the warnings are told already."""
    found = taken.fingerprint
    if found is None:
        return []
    if found.reference is None:
        return [("fingerprint", "NONE: see the warning above")]
    said = f"{found.reference.mode}, of {found.reference.lsn}"
    if found.held_seconds:
        said += f"; writers waited for {1000 * found.held_seconds:.0f} ms at most"
    return [("fingerprint", said)]


def _kind(taken: Taken) -> str:
    if taken.parent is not None:
        return f"incremental, building on {taken.parent}"
    return f"full: {taken.reason}"


def _fingerprint_json(found: FingerprintTaken | None) -> dict[str, Any] | None:
    if found is None:
        return None
    made = found.reference
    return {
        "taken": made is not None,
        "mode": str(made.mode) if made else None,
        "lsn": str(made.lsn) if made else None,
        "restore_point": made.restore_point if made else None,
        "stored_bytes": made.size if made else 0,
        "seconds": round(found.seconds, 3),
        "held_seconds": round(found.held_seconds, 3),
        "warnings": list(found.warnings),
    }


def _json(taken: Taken, took: timedelta, policy: str) -> dict[str, Any]:
    from drkit.model.backup import summary_to_json

    return {
        "policy": policy,
        "seconds": round(took.total_seconds(), 3),
        "parent": taken.parent,
        "reason": taken.reason,
        "log_head": str(taken.head),
        "fingerprint": _fingerprint_json(taken.fingerprint),
        "backup": summary_to_json(taken.summary),
    }
