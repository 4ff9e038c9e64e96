"""`drkit backup`."""

from __future__ import annotations

import time
from contextlib import ExitStack
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from drkit import wiring
from drkit.cli import render
from drkit.cli.session import Session, command
from drkit.errors import UsageError

if TYPE_CHECKING:
    from drkit.config.policy import Policy
    from drkit.model.backup import BackupSummary
    from drkit.operations.backup import BackupOptions
    from drkit.postgres.connection import Connection

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
        typer.Option("--type", help="What to take; this version takes full backups."),
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
    if type_ not in (BackupType.AUTO, BackupType.FULL):
        raise UsageError(
            f"this version of drkit can't take backups of type {type_} yet",
            hint="leave --type out, or give --type full",
        )
    loaded = session.policy(policy)
    begun = time.monotonic()
    summary = _back_up(session, loaded, jobs or loaded.backup.jobs)
    took = timedelta(seconds=time.monotonic() - begun)
    session.show(_text(summary, took, loaded.name), _json(summary, took, loaded.name))
    return OBJECTIVE_MISSED if summary.damaged_pages else 0


def _back_up(session: Session, policy: Policy, jobs: int) -> BackupSummary:
    from drkit.operations.backup import full_backup

    repository = wiring.open_repository(policy, session.secrets)
    server, source, questions = wiring.open_source(policy, session.secrets)
    with ExitStack() as stack:
        stack.callback(questions.close)
        stack.callback(source.close)
        options = _options(policy, jobs, questions)
        return full_backup(repository, server, source, options, session.progress)


def _options(policy: Policy, jobs: int, questions: Connection) -> BackupOptions:
    from drkit.operations.backup import BackupOptions
    from drkit.postgres.archiver import archiver_asker

    return BackupOptions(
        host=wiring.host_name(),
        source=policy.backup.source,
        jobs=jobs,
        level=policy.backup.compression_level,
        wal_timeout=policy.backup.wal_timeout,
        archiver=archiver_asker(questions),
    )


def _text(summary: BackupSummary, took: timedelta, policy: str) -> str:
    rows = [
        ("took", render.duration(took)),
        ("content", f"{render.size(summary.bytes)} in {summary.files} files"),
        ("stored", render.size(summary.stored_bytes)),
        ("WAL", f"{summary.start_lsn} to {summary.stop_lsn}"),
        ("timeline", str(summary.timeline)),
        ("restores to", f"{render.exact(summary.stop_time)} or later"),
        ("next", f"drkit restore {policy} {summary.label} --to DIR --plan"),
    ]
    lines = [f"backup {summary.label} of {policy} is done", render.facts(rows)]
    if summary.damaged_pages:
        lines.append(
            f"DAMAGED: {summary.damaged_pages} pages of the cluster have a wrong "
            "checksum, on its own disk and so in this backup. Keep the older backups, "
            "and find the cause. The warnings above name the files."
        )
    return "\n".join(lines)


def _json(summary: BackupSummary, took: timedelta, policy: str) -> dict[str, Any]:
    from drkit.model.backup import summary_to_json

    return {
        "policy": policy,
        "seconds": round(took.total_seconds(), 3),
        "backup": summary_to_json(summary),
    }
