"""`drkit heartbeat`."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Annotated

import typer

from drkit import wiring
from drkit.cli import render
from drkit.cli.session import Session, command
from drkit.printing import page

if TYPE_CHECKING:
    from drkit.postgres.heartbeat import Beat


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(
        app,
        "heartbeat",
        examples="""
        drkit heartbeat production --create
        drkit heartbeat production --quiet
        """,
    )(heartbeat)


def heartbeat(
    session: Session,
    policy: Annotated[
        str, typer.Argument(metavar="POLICY", help="A policy's name, or its file.")
    ],
    *,
    create: Annotated[
        bool, typer.Option(help="Make its schema and table first, if need be.")
    ] = False,
) -> None:
    """Write the time into a row of its own, for drills to read back.

    Read back after a restore, it proves how old the recovered data is. Run it as often
    as `heartbeat.every` says, by a timer. Every backup writes one too.
    """
    from drkit.operations.heartbeat import beat, create_heartbeat

    loaded, host, created = session.policy(policy), wiring.host_name(), False
    opened = wiring.heartbeat_connection(loaded, session.secrets)
    with closing(opened) as connection:
        database = connection.info.dbname
        if create:
            created, written = create_heartbeat(connection, host)
        else:
            written = beat(connection, host)
    _show(session, loaded.name, database, written, created=created)


def _show(
    session: Session, policy: str, database: str, written: Beat, *, created: bool
) -> None:
    lines = [f"heartbeat of {policy} written at {render.exact(written.written_at)}"]
    if created:
        lines.insert(0, f"made the table drkit.heartbeat in database {database}")
    found = {
        "policy": policy,
        "database": database,
        "created": created,
        "written_at": written.written_at.isoformat(),
        "lsn": str(written.lsn),
        "host": written.host,
    }
    session.show(page(lines), found)
