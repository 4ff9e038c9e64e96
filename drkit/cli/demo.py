"""`drkit demo`."""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from drkit.cli import render
from drkit.cli.session import Session, command
from drkit.errors import DrkitError, TargetNotEmpty
from drkit.printing import page

if TYPE_CHECKING:
    from collections.abc import Callable

    from drkit.operations.demo import DemoReport, Step

_SUBPROCESS_LIMIT = 300.0  # seconds


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "demo", examples="drkit demo\ndrkit demo --keep /tmp/drkit-demo")(demo)


def demo(
    session: Session,
    keep: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Leave repository, keys, policy and the restored cluster in DIR.",
        ),
    ] = None,
    report: Annotated[
        str | None,
        typer.Option(
            metavar="DIR", help="Leave the drill's report in DIR; made if need be."
        ),
    ] = None,
) -> None:
    """Show the whole story on a throw-away PostgreSQL, and prove it.

    Starts a server, backs it up while it is written to, loses it, restores it to the
    last good moment, and compares every row. Then it rehearses that recovery as a
    drill, and writes the signed drill's report. Each step is the command that you would
    type. Takes under a minute and leaves nothing behind.
    """
    from drkit.operations.demo import run_demo

    session.tell(page(["drkit demo: back up a PostgreSQL, lose it, get it back", ""]))
    directory = _directory(keep)
    done = run_demo(
        directory,
        _runner(session, directory),
        lambda step: session.tell(_line(step)),
        keep=keep is not None,
        reports=None if report is None else os.path.abspath(report),
        path=session.environ.get("PATH", os.defpath),
    )
    session.show(_text(done), _json(done))


def _directory(keep: str | None) -> str:
    """Make the demo's directory, which the server's user must reach."""
    if keep is None:
        directory = tempfile.mkdtemp(prefix="drkit-demo-")
    else:
        directory = os.path.abspath(keep)
        os.makedirs(directory, exist_ok=True)
        if os.listdir(directory):
            raise TargetNotEmpty(
                f"{directory} is not empty", hint="name a new directory for --keep"
            )
    os.chmod(directory, 0o755)  # noqa: S103  the keys inside are 0600
    return directory


def _runner(session: Session, directory: str) -> Callable[[list[str]], str]:
    """Return what runs drkit itself, free of the caller's own settings.

    This host is to remember nothing of the demo's repository, which goes away.
    """
    from drkit.postgres import process

    environ = {
        name: value
        for name, value in session.environ.items()
        if not name.startswith("DRKIT_")
    }
    environ["DRKIT_STATE_DIR"] = os.path.join(directory, "state")

    def run(arguments: list[str]) -> str:
        argv = [sys.executable, "-m", "drkit", *arguments, "--log-level", "warning"]
        done = process.run(argv, env=environ, timeout=_SUBPROCESS_LIMIT, raising=None)
        if done.returncode:
            raise DrkitError(
                f"`drkit {' '.join(arguments)}` ended with {done.returncode}"
                f"{process.tail(done.stderr)}"
            )
        return done.stdout.decode()

    return run


def _line(step: Step) -> str:
    head = f"  {step.seconds:6.2f} s  {step.title}"
    lines = [head]
    lines += [f"            $ {step.command}"] if step.command else []
    lines += [f"            {step.detail}"] if step.detail else []
    return page(lines)


def _text(report: DemoReport) -> str:
    rows = [
        ("restored to", report.moment),
        ("rows written", str(report.written)),
        ("rows restored", f"{report.restored}, all equal"),
        ("recovery took", f"{report.recovery_seconds:.1f} s, from loss to first write"),
        ("drill", report.drill),
        ("total", f"{sum(step.seconds for step in report.steps):.1f} s"),
    ]
    if report.report:
        rows.append(("its report", report.report))
    if report.kept:
        rows.append(("kept in", report.kept))
        rows.append(
            ("look at it", f"drkit info demo --policy-dir {report.kept}/policies")
        )
    told = "proven: nothing that was committed was lost"
    return page(["", told, render.facts(rows)])


def _json(report: DemoReport) -> dict[str, Any]:
    found = asdict(report)
    found["postgresql_major"] = int(found.pop("version"))
    found["steps"] = [step._asdict() for step in report.steps]
    return found
