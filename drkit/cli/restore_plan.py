"""A restore's plan and what comes after it, for people and for programs."""

from __future__ import annotations

import contextlib
import os
import pwd
import shlex
from typing import TYPE_CHECKING, Any

from drkit.cli import render
from drkit.cli.outlook import outlook_json, outlook_text
from drkit.cli.restore_delta import amounts, delta_json, foreign_lines
from drkit.errors import NotFound
from drkit.model.backup import summary_to_json
from drkit.model.recovery import TargetAction, TargetKind
from drkit.postgres.binaries import ServerBinaries
from drkit.postgres.configuration import render_recovery
from drkit.printing import page

if TYPE_CHECKING:
    from collections.abc import Iterator

    from drkit.operations.forecasting import Outlook
    from drkit.operations.restore import RestorePlan


_BESIDE = {"port": "5499", "archive_mode": "off"}
_ASK = "SELECT pg_is_in_recovery(), pg_last_xact_replay_timestamp()"


def plan_text(
    policy: str, plan: RestorePlan, note: str | None, expected: Outlook | None
) -> str:
    """Return everything that the restore will do."""
    facts = list(_facts(plan))
    if expected is not None:
        facts.append(("takes", outlook_text(expected, policy)))
    lines = [f"restore of {policy}", render.facts(facts)]
    if plan.tablespaces:
        lines += ["tablespaces:", *_tablespace_lines(plan)]
    lines += foreign_lines(plan.delta)
    lines.append("goes to the end of postgresql.auto.conf:")
    lines += [f"  {line}" for line in render_recovery(plan.settings).splitlines()]
    lines += [f"note: {text}" for text in [*([note] if note else []), *_notes(plan)]]
    return page(lines)


def _facts(plan: RestorePlan) -> Iterator[tuple[str, str]]:
    backup, reach = plan.backup, plan.choice.reach
    wal = len(reach.segments) * backup.wal_segment_size
    yield "backup", f"{backup.label}, complete at {render.exact(backup.stop_time)}"
    yield "server", f"PostgreSQL {render.server_version(backup.server_version)}"
    yield "to", plan.request.to
    yield "target", _target(plan)
    yield "timeline", str(plan.choice.history.timeline)
    yield "WAL", f"{len(reach.segments)} segments, {render.size(wal)}, to {reach.end}"
    if plan.choice.last_commit is not None:
        yield "last commit", f"{render.exact(plan.choice.last_commit)} in that WAL"
    yield from amounts(plan)
    yield "free", f"{render.size(_free(plan.request.to))} at {plan.request.to}"
    yield "workers", str(plan.request.jobs)
    if plan.request.owner is not None:
        yield "owner", _user(plan.request.owner.uid)


def _target(plan: RestorePlan) -> str:
    target = plan.request.target
    if target.kind is TargetKind.LATEST:
        return "the end of the archived WAL, then promote"
    return f"{target}, then {target.action}"


def _notes(plan: RestorePlan) -> Iterator[str]:
    yield from plan.choice.notes
    yield from plan.notes
    yield from plan.delta.notes if plan.delta else ()
    for found in plan.disabled:
        yield (
            f"{found.name} in {found.file}:{found.line} was meant for another "
            "recovery; the restored copy has it commented out"
        )
    inside = [one.name for one in plan.page_map.head.tablespaces if one.in_place]
    if inside:
        yield (
            f"tablespaces inside of the data directory ({', '.join(inside)}) stop a "
            "recovery unless allow_in_place_tablespaces is on, so it is turned on"
        )
    if plan.backup.damaged_pages:
        yield (
            f"{plan.backup.damaged_pages} pages had wrong checksums when they were "
            "backed up, and will have them again"
        )
    file = plan.page_map.head.server.config_file
    if file:
        yield (
            f"the server was configured by {file}, outside of its data directory, so "
            "that file is not in the backup; on another host bring it there, or write "
            "a postgresql.conf and a pg_hba.conf into the restored directory"
        )
    yield from plan.page_map.head.warnings


def _tablespace_lines(plan: RestorePlan) -> list[str]:
    old = {one.oid: one.path for one in plan.page_map.head.tablespaces}
    return [f"  {old[oid]} -> {new}" for oid, new in sorted(plan.tablespaces.items())]


def next_steps(plan: RestorePlan) -> str:
    """Return what a person does after the restore."""
    lines = [
        "next:",
        f"  start it   {_start(plan, {})}",
        "             or, while the old server still runs, beside it:",
        f"             {_start(plan, _BESIDE)}",
        f"  watch it   tail -f {shlex.quote(_log(plan))}",
        f"  ask it     psql -c '{_ASK}'; beside the old one with -p {_BESIDE['port']}",
    ]
    if plan.request.target.action is TargetAction.PAUSE and (
        plan.request.target.kind is not TargetKind.LATEST
    ):
        lines.append("  go on      psql -c 'SELECT pg_wal_replay_resume()', to promote")
    lines.append(
        "It keeps the configuration of the backed-up server: port, archive_command and "
        "all. Once promoted it archives under the same policy, on a new timeline; the "
        "command for beside the old server keeps it from archiving."
    )
    return page(lines)


def _start(plan: RestorePlan, more: dict[str, str]) -> str:
    """Return the command that starts the restored server, with further settings."""
    to, log = shlex.quote(plan.request.to), shlex.quote(_log(plan))
    pg_ctl = f"{_as_user(plan)}{_pg_ctl(plan)} -D {to} -l {log}"
    return f"{pg_ctl}{_options(plan, more)} start"


def _log(plan: RestorePlan) -> str:
    return f"{plan.request.to}.log"


def _options(plan: RestorePlan, more: dict[str, str]) -> str:
    """Return pg_ctl's `-o` for settings that the configuration must not decide."""
    options = dict(more)
    file = plan.page_map.head.server.config_file
    if file:
        # Debian's file names the data directory and a PID file too, which are those
        # of the cluster that was backed up, and may be in use.
        options |= {
            "config_file": file,
            "data_directory": plan.request.to,
            "external_pid_file": "",
        }
    given = [
        f"-c {name}={shlex.quote(value) if value else ''}"
        for name, value in options.items()
    ]
    return f" -o {shlex.quote(' '.join(given))}" if given else ""


def _pg_ctl(plan: RestorePlan) -> str:
    with contextlib.suppress(NotFound):
        binaries = ServerBinaries.locate(plan.backup.server_version // 10000)
        return shlex.quote(binaries.tool("pg_ctl"))
    return "pg_ctl"


def _as_user(plan: RestorePlan) -> str:
    owner = plan.request.owner
    return "" if owner is None else f"runuser -u {_user(owner.uid)} -- "


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _free(directory: str) -> int:
    """Return the bytes free where a directory is or will be."""
    while not os.path.isdir(directory):
        directory = os.path.dirname(directory)
    status = os.statvfs(directory)
    return status.f_bavail * status.f_frsize


def plan_json(plan: RestorePlan, expected: Outlook | None) -> dict[str, Any]:
    """Return a plan as JSON; the shape is in docs/json-output.md."""
    backup, choice, target = plan.backup, plan.choice, plan.request.target
    size = backup.wal_segment_size
    old = {one.oid: one.path for one in plan.page_map.head.tablespaces}
    segments = choice.reach.segments
    last = choice.last_commit
    return {
        "backup": summary_to_json(backup),
        "to": plan.request.to,
        "target": {
            "kind": str(target.kind),
            "value": _target_value(plan),
            "inclusive": target.inclusive,
            "action": str(target.action),
        },
        "timeline": choice.history.timeline,
        "wal": {
            "first": segments[0].name(size) if segments else None,
            "last": segments[-1].name(size) if segments else None,
            "segments": len(segments),
            "bytes": len(segments) * size,
            "end_lsn": str(choice.reach.end),
            "last_commit_time": last.isoformat() if last is not None else None,
        },
        "fetch_bytes": plan.fetch_bytes,
        "write_bytes": plan.write_bytes,
        "delta": delta_json(plan.delta),
        "free_bytes": _free(plan.request.to),
        "forecast": outlook_json(expected),
        "tablespaces": [
            {"oid": oid, "old": old[oid], "new": new}
            for oid, new in sorted(plan.tablespaces.items())
        ],
        "settings": dict(plan.settings),
        "start": {
            "command": _start(plan, {}),
            "beside": _start(plan, _BESIDE),
            "log": _log(plan),
        },
        "notes": list(_notes(plan)),
    }


def _target_value(plan: RestorePlan) -> str | None:
    target = plan.request.target
    if target.time is not None:
        return target.time.isoformat()
    for value in (target.lsn, target.xid, target.name):
        if value is not None:
            return str(value)
    return None
