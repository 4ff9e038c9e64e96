"""The command line as a whole."""

from __future__ import annotations

import importlib
import importlib.util
import os
from typing import Annotated, Any

import typer

from drkit import __version__
from drkit.cli import backup, policy, restore, wal
from drkit.cli.errors import render, render_unexpected, wants_json
from drkit.cli.session import write_err, write_out
from drkit.cli.signals import interrupted

# Modules that come with capabilities of their own.
_FURTHER = (
    "demo",
    "init",
    "check",
    "info",
    "expire",
    "keys",
    "verify",
    "drill",
    "heartbeat",
)

_ClickError: Any = typer.BadParameter.__mro__[2]  # ClickException, wherever it lives


def run(arguments: list[str]) -> int:
    """Run the command line; return its exit code."""
    as_json = wants_json(arguments)
    try:
        code = make_app()(arguments, prog_name="drkit", standalone_mode=False)
    except _ClickError as error:
        context = getattr(error, "ctx", None)
        path = context.command_path if context else "drkit"
        hint = f"{path} --help shows what there is"
        message = error.format_message()
        shown = render("UsageError", 2, message, hint, "", as_json=as_json)
        write_err(shown)
        return 2
    except (typer.Abort, KeyboardInterrupt) as error:
        stop = interrupted(str(error.__cause__ or error) or "SIGINT")
        code = stop.exit_code
        write_err(render("Interrupted", code, stop.message, None, "", as_json=as_json))
    except Exception as error:  # before any command has begun
        if os.environ.get("DRKIT_LOG_LEVEL") == "debug":
            raise
        code = 1
        write_err(render_unexpected(error, "", as_json=as_json))
    return int(code or 0)


def make_app() -> typer.Typer:
    """Return the application with every command."""
    app = typer.Typer(
        add_completion=False,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["--help", "-h"]},
        help="Backup and disaster recovery for PostgreSQL, proven by restoring.",
        epilog="\b\nExamples:\n"
        "  drkit init production --url postgresql:///postgres "
        "--repository file:///srv/drkit\n"
        "  drkit backup production\n"
        "  drkit restore production --to /var/lib/postgresql/restored "
        "--target-time '2026-01-15 10:30:00+00:00'",
    )
    app.callback()(_root)
    for module in (*_further(), policy, backup, restore, wal):
        module.register(app)
    return app


def _show_version(asked: bool) -> None:
    if asked:
        write_out(f"drkit {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            is_eager=True,
            callback=_show_version,
            help="Show the version and exit.",
        ),
    ] = False,
) -> None:
    pass


def _further() -> list[Any]:
    names = [f"drkit.cli.{name}" for name in _FURTHER]
    return [
        importlib.import_module(name)
        for name in names
        if importlib.util.find_spec(name)
    ]
