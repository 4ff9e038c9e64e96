"""`drkit wal`: `push` and `get` as PostgreSQL runs them, and `status`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from drkit import wiring
from drkit.cli import archiving, render
from drkit.cli.plain import PlainGroup
from drkit.cli.session import Options, Session, command
from drkit.printing import page

if TYPE_CHECKING:
    from drkit.model.reach import Gap
    from drkit.operations.wal_status import TimelineStatus, WalStatus

OBJECTIVE_MISSED = 3
_PolicyOption = Annotated[
    str | None,
    typer.Option(
        metavar="POLICY",
        help="A policy's name or file; by default the only one, or the one of the "
        "cluster whose WAL it is.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(
        cls=PlainGroup,
        no_args_is_help=True,
        rich_markup_mode=None,
        help="Archive WAL, fetch it back, and look for gaps.",
    )
    command(
        group,
        "push",
        group="wal",
        examples="archive_command = 'drkit wal push --policy production %p'",
    )(push)
    command(
        group,
        "get",
        group="wal",
        examples="restore_command = 'drkit wal get --policy production %f %p'",
    )(get)
    command(group, "status", group="wal", examples="drkit wal status production")(
        status
    )
    app.add_typer(group, name="wal")


def push(
    session: Session,
    path: Annotated[
        str, typer.Argument(metavar="PATH", help="A file of pg_wal, as %p names it.")
    ],
    policy: _PolicyOption = None,
) -> int:
    """Archive one WAL file; PostgreSQL runs this as archive_command."""
    return archiving.push([*_archiving_options(session.options, policy), "--", path])


def get(
    session: Session,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A WAL file's name, as %f gives it.")
    ],
    dest: Annotated[
        str, typer.Argument(metavar="DEST", help="Where to write it, as %p gives it.")
    ],
    policy: _PolicyOption = None,
    absent_exit: Annotated[
        int | None,
        typer.Option(
            metavar="CODE",
            min=1,
            max=125,
            help="Exit with this instead of 1 if the file is not archived, so that a "
            "shell can tell it from a Python that did not find drkit.",
        ),
    ] = None,
    unsigned_before: Annotated[
        str | None,
        typer.Option(
            metavar="SEGMENTS",
            help="Take WAL from before these segments also if it is not signed: one "
            "for each timeline that has such, with commas between, or `all`.",
        ),
    ] = None,
) -> int:
    """Fetch one WAL file; PostgreSQL runs this as restore_command.

    Exits with 1 only if the file is proven not to be archived, and with 200 for every
    other failure, which stops the recovery. Where standby.signal lies in the working
    directory, failures are retried for the policy's wal.timeout, and the code is 1.
    """
    options = _archiving_options(session.options, policy)
    if absent_exit is not None:
        options.append(f"--absent-exit={absent_exit}")
    if unsigned_before is not None:
        options.append(f"--unsigned-before={unsigned_before}")
    return archiving.get([*options, "--", name, dest])


def _archiving_options(options: Options, policy: str | None) -> list[str]:
    given = {
        "--policy": policy,
        "--policy-dir": options.policy_dir,
        "--output": options.output,
        "--log-format": options.log_format,
    }
    words = [f"{name}={value}" for name, value in given.items() if value is not None]
    return [*words, "--quiet"] if options.quiet else words


def status(
    session: Session,
    policy: Annotated[
        str | None,
        typer.Argument(
            metavar="POLICY", help="A policy's name or file; the only one if none."
        ),
    ] = None,
) -> int:
    """Show what WAL is archived: per timeline the first, the last, and gaps.

    Exits with 3 if a segment is missing between others, with 15 if the log's newest
    entries are gone.
    """
    from drkit.cli.log_head import standing_json, standing_lines
    from drkit.operations.heads import log_standing
    from drkit.operations.wal_status import wal_status

    loaded = session.policy(policy)
    repository = wiring.open_repository(loaded, session.secrets)
    standing = log_standing(repository)
    found = wal_status(repository)
    text = page([*standing_lines(standing, loaded.name), _text(loaded.name, found)])
    session.show(text, {**_json(loaded.name, found), "log": standing_json(standing)})
    if standing.alarms:
        return standing.alarms[0].exit_code
    return OBJECTIVE_MISSED if found.has_gaps else 0


def _text(policy: str, found: WalStatus) -> str:
    if not found.timelines:
        return f"no WAL of {policy} is archived"
    size = found.segment_size
    rows = [
        (
            str(line.timeline),
            line.first.name(size),
            line.last.name(size),
            str(line.segments),
            str(len(line.gaps)),
            render.size(line.stored_bytes),
        )
        for line in found.timelines
    ]
    head = ("timeline", "first", "last", "segments", "gaps", "stored")
    lines: list[str] = [render.table(head, rows)]
    for line in found.timelines:
        lines += [_gap_text(gap, size) for gap in line.gaps]
    if found.unsigned:
        lines.append(f"note: {found.unsigned}")
    lines.append(f"all WAL of {policy} takes {render.size(found.stored_bytes)}")
    return page(lines)


def _gap_text(gap: Gap, size: int) -> str:
    first, last = gap.first.name(size), gap.last.name(size)
    missing = first if gap.first == gap.last else f"{first} to {last}"
    return (
        f"GAP: {missing} missing; no recovery can go past it. Take a backup now: what "
        "comes after it can be restored again."
    )


def _json(policy: str, found: WalStatus) -> dict[str, Any]:
    size = found.segment_size
    return {
        "policy": policy,
        "segment_size": size,
        "stored_bytes": found.stored_bytes,
        "timelines": [timeline_json(line, size) for line in found.timelines],
        "other_files": found.other,
        "signed": signed_json(found),
    }


def signed_json(found: WalStatus) -> dict[str, Any] | None:
    """Return whose signatures WAL must have, and since when, as JSON."""
    if found.signed_since is None:
        return None
    since = [name for _, name in sorted(found.signed_since.items())]
    return {"signers": list(found.signers), "since": since}


def timeline_json(line: TimelineStatus, size: int) -> dict[str, Any]:
    """Return what is archived of one timeline as JSON; `size` is a segment's."""
    return {
        "timeline": line.timeline,
        "first": line.first.name(size),
        "last": line.last.name(size),
        "segments": line.segments,
        "stored_bytes": line.stored_bytes,
        "gaps": [
            {
                "first": gap.first.name(size),
                "last": gap.last.name(size),
                "segments": gap.last.number - gap.first.number + 1,
            }
            for gap in line.gaps
        ],
    }
