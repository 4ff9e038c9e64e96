"""The command line as a whole."""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any

import typer

from drkit import __version__
from drkit.cli.errors import render, render_unexpected, wants_json
from drkit.cli.plain import PlainGroup
from drkit.cli.session import write_err, write_out
from drkit.cli.signals import interrupted

if TYPE_CHECKING:
    from collections.abc import Iterable

# Module → what it registers; in the order of the help.
COMMANDS = {
    "demo": ("demo",),
    "init": ("init",),
    "check": ("check",),
    "info": ("info",),
    "expire": ("expire", "pin", "discard", "unpin"),
    "keys": ("keys",),
    "verify": ("verify",),
    "drill": ("drill",),
    "heartbeat": ("heartbeat",),
    "policy": ("policy",),
    "backup": ("backup",),
    "restore": ("restore",),
    "wal": ("wal",),
}

_ClickError: Any = typer.BadParameter.__mro__[2]  # ClickException, wherever it lives


def run(arguments: list[str]) -> int:
    """Run the command line; return its exit code."""
    as_json = wants_json(arguments)
    try:
        app = make_app(_modules(arguments))
        code = app(arguments, prog_name="drkit", standalone_mode=False)
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


def _modules(arguments: list[str]) -> Iterable[str]:
    """Return the modules to import: that of the command, else all.

    Whatever does not begin with a command needs all of them: it is help, or an error
    that suggests what was meant.
    """
    asked = arguments[0] if arguments else ""
    return [one for one, names in COMMANDS.items() if asked in names] or COMMANDS


def make_app(modules: Iterable[str] = COMMANDS) -> typer.Typer:
    """Return the application with the commands of these modules of `drkit.cli`."""
    app = typer.Typer(
        cls=PlainGroup,
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
    for module in modules:
        import_module(f"drkit.cli.{module}").register(app)
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
