"""`drkit check`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from drkit import wiring
from drkit.cli.log_head import read_head
from drkit.cli.session import Session, command
from drkit.errors import DrkitError, PolicyError, UsageError
from drkit.model.finding import Finding, State, failed, first_exit_code, ok
from drkit.printing import page

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

    from drkit.config.policy import Policy
    from drkit.model.log_head import LogHead

_SHOWN = {
    State.OK: "ok",
    State.WARNING: "WARNING",
    State.FAILED: "FAILED",
    State.SKIPPED: "skipped",
}


_SHOWN_LABELS = 5


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(
        app,
        "check",
        examples="""
        drkit check production
        drkit check production --timeout '3 minutes' --output json
        """,
    )(check)


def check(
    session: Session,
    policy: Annotated[
        str | None,
        typer.Argument(help="A policy's name or file; the only one if none."),
    ] = None,
    timeout: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION",
            help="How long the round trip of a WAL segment may take; by default the "
            "policy's wal.timeout.",
        ),
    ] = None,
    accept_head: Annotated[
        str | None,
        typer.Option(
            metavar="HEAD",
            help="Take this head of the log for right, though this host remembers a "
            "newer one: after the repository was put back on purpose.",
        ),
    ] = None,
) -> int:
    """Look whether everything is there that backups and restores need.

    Writes a restore point, switches WAL, and waits until that segment can be read back
    from the repository. Exits with 0, or with the code of the first failure.
    """
    accepted = read_head(accept_head, "--accept-head")
    from drkit.operations.check import check as check_all
    from drkit.sites.check import check_subject

    patience = None if timeout is None else _duration(timeout)
    try:
        loaded = session.policy(policy)
    except PolicyError as error:
        if not session.json:
            raise
        return _show(session, policy or "", (failed("policy", error),))
    if accepted is not None:
        _accept(session, loaded, accepted)
    subject = check_subject(loaded, session.secrets, patience or loaded.wal.timeout)
    findings = check_all(subject, session.passing_progress)
    return _show(session, loaded.name, (ok("policy", loaded.path), *findings))


def _accept(session: Session, policy: Policy, accepted: LogHead) -> None:
    """Let this host forget a newer head, and say which."""
    from drkit.operations.heads import accept_head

    repository = wiring.open_repository(policy, session.secrets)
    known = accept_head(repository, accepted)
    problem = repository.log.guard.memory.problem
    if problem is not None:
        raise DrkitError(problem, hint="nothing was accepted; see `drkit check`")
    if known is None:
        told = "this host remembered none"
    else:
        labels = ", ".join(known.labels[-_SHOWN_LABELS:]) or "none"
        told = f"this host remembered {known.head}, with the backups {labels}"
    session.progress.warning(f"head of the log accepted: {accepted}; {told}")


def _duration(text: str) -> timedelta:
    from drkit.model.duration import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        raise UsageError(f"--timeout: {error}") from None


def _show(session: Session, policy: str, findings: tuple[Finding, ...]) -> int:
    code = first_exit_code(findings)
    text = page([render_findings(findings), "", _summary(policy, findings)])
    found = {
        "policy": policy,
        "passed": code == 0,
        "exit_code": code,
        "checks": findings_json(findings),
    }
    session.show(session.redactor.text(text), found)
    return code


def _summary(policy: str, findings: Sequence[Finding]) -> str:
    counts = {state: sum(one.state is state for one in findings) for state in State}
    told = ", ".join(f"{count} {_SHOWN[state]}" for state, count in counts.items())
    verdict = "is not" if counts[State.FAILED] else "is"
    return f"{policy} {verdict} ready: {told}"


def render_findings(findings: Sequence[Finding]) -> str:
    """Write a line for each finding, and below it what to do about it."""
    width = max(len(one.name) for one in findings)
    lines = []
    for one in findings:
        lines.append(f"{_SHOWN[one.state]:<8} {one.name:<{width}}  {one.detail}")
        if one.hint:
            lines.append(f"{'':<8} {'':<{width}}  → {one.hint}")
    return page(lines)


def findings_json(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """Return findings as `check` and `keys check` write them."""
    return [
        {
            "name": one.name,
            "state": str(one.state),
            "detail": one.detail,
            "hint": one.hint,
            "exit_code": one.exit_code,
        }
        for one in findings
    ]
