"""`drkit drill`: the group, and `drkit drill list` and `drkit drill export`.

The other commands of the group are in modules of their own, each a function and its
EXAMPLES: `drill_action`, `drill_report`, `drill_run`, `drill_verify`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from drkit import wiring
from drkit.cli import drill_action, drill_report, drill_run, drill_verify, render
from drkit.cli.plain import PlainGroup
from drkit.cli.records import measured, outcome, record_json, what
from drkit.cli.session import Session, command
from drkit.errors import Corrupt, UsageError
from drkit.printing import page

if TYPE_CHECKING:
    from drkit.model.evidence import Record
    from drkit.operations.evidence import Export
    from drkit.repository.evidence import Chain

PolicyArgument = Annotated[
    str, typer.Argument(metavar="POLICY", help="A policy's name, or its file.")
]


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(
        cls=PlainGroup,
        no_args_is_help=True,
        rich_markup_mode=None,
        help="Drills and verifications: their evidence, reports and corrective "
        "actions.",
    )
    command(group, "list", group="drill", examples="drkit drill list production")(list_)
    command(group, "export", group="drill", examples=_EXPORTS)(export)
    verify, report = drill_verify, drill_report
    command(group, "run", group="drill", examples=drill_run.EXAMPLES)(drill_run.run)
    command(group, "verify", group="drill", examples=verify.EXAMPLES)(verify.verify)
    command(group, "report", group="drill", examples=report.EXAMPLES)(report.report)
    drill_action.register(group)
    app.add_typer(group, name="drill")


_EXPORTS = """
drkit drill export production --all --to evidence
drkit drill export production 17 --to evidence
"""


def list_(session: Session, policy: PolicyArgument) -> int:
    """List the records of evidence, the newest last, and check their chain.

    Every signature is verified, and the chain is held against the log. Exits with 15
    if a record is missing or was changed.
    """
    from drkit.operations.evidence import list_evidence

    loaded = session.policy(policy)
    chain = list_evidence(wiring.open_repository(loaded, session.secrets))
    session.show(_text(loaded.name, chain), _json(loaded.name, chain))
    return Corrupt.exit_code if chain.doubts else 0


def export(
    session: Session,
    policy: PolicyArgument,
    sequence: Annotated[
        int | None,
        typer.Argument(
            metavar="[NUMBER]", min=0, help="The record; the newest if none is given."
        ),
    ] = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="All records.")] = False,
    to: Annotated[
        str, typer.Option(metavar="DIR", help="Where to; made if need be.")
    ] = ".",
) -> int:
    """Write signed records to files, which `drkit drill verify` checks anywhere.

    Each is a DSSE envelope as JSON, not encrypted. Exits with 15 if the chain that they
    are from is not whole; what could be read is written all the same.
    """
    from drkit.operations.evidence import export_evidence

    if every and sequence is not None:
        raise UsageError(
            "a record's number and --all contradict each other",
            hint="give one of them; without either, the newest record is written",
        )
    loaded = session.policy(policy)
    repository = wiring.open_repository(loaded, session.secrets)
    done = export_evidence(repository, to, sequence, every=every)
    for problem in done.problems:
        session.progress.warning(problem)
    session.show(_exported_text(done), _exported_json(loaded.name, done))
    return Corrupt.exit_code if done.problems else 0


def _text(policy: str, chain: Chain) -> str:
    head = ("record", "when", "what", "backup", "outcome", "RTO", "RPO")
    rows = [_row(one.record) for one in chain.records]
    lines = [render.table(head, rows), ""] if rows else []
    lines += [f"✗ {problem}" for problem in chain.doubts]
    return page([*lines, f"{policy}: {_verdict(chain)}"])


def _row(record: Record) -> tuple[str, ...]:
    backup = record.restored.label if record.restored else "—"
    return (
        str(record.sequence),
        render.moment(record.started),
        what(record),
        record.action.text if record.action else backup,
        outcome(record),
        measured(record.rto),
        measured(record.rpo),
    )


def _verdict(chain: Chain) -> str:
    count = len(chain.records)
    if chain.problems:
        return "the chain of evidence is not whole"
    if chain.misdated:
        return "a record is not of the time that it says; reports don't count it"
    if not count:
        return "no evidence yet; `drkit drill run` and `drkit verify` make it"
    records = "1 record" if count == 1 else f"{count} records"
    return f"{records}; all signatures are good, and none is missing or changed"


def _json(policy: str, chain: Chain) -> dict[str, Any]:
    return {
        "policy": policy,
        "whole": not chain.problems,
        "problems": list(chain.problems),
        "misdated": [
            {"sequence": one.sequence, "problem": one.why} for one in chain.misdated
        ],
        "head": chain.head or None,
        "records": [record_json(one) for one in chain.records],
    }


def _exported_text(done: Export) -> str:
    lines = [f"wrote {one.path}" for one in done.files]
    return page(lines or ["there is no evidence yet; nothing was written"])


def _exported_json(policy: str, done: Export) -> dict[str, Any]:
    return {
        "policy": policy,
        "whole": not done.problems,
        "problems": list(done.problems),
        "files": [
            {"path": one.path, "sequence": one.record.record.sequence}
            | {"sha256": one.record.digest}
            for one in done.files
        ],
    }
