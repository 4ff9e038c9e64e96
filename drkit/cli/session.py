"""What all commands share: options, policy, logs, output, errors.

A command is a function of a `Session` and its own parameters, registered so:

    def register(app: typer.Typer) -> None:
        command(app, "info", examples="drkit info production")(info)

It returns its exit code, or None for 0; what it raises becomes a message, a hint and
an exit code.
"""

from __future__ import annotations

import inspect
import json
import os
import sys
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from drkit import wiring
from drkit.cli.errors import render_error, render_unexpected
from drkit.cli.logs import FORMATS, LEVELS, Redactor, make_log
from drkit.cli.plain import PlainCommand
from drkit.cli.progress import BarProgress, LogProgress
from drkit.cli.signals import Interruption, interrupted
from drkit.errors import DrkitError, PolicyError, UsageError
from drkit.printing import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from drkit.config.policy import Policy


class Output(StrEnum):
    """How a result is written to standard output."""

    TEXT = "text"
    JSON = "json"


class LogFormat(StrEnum):
    """How log lines are written to standard error."""

    TEXT = "text"
    JSON = "json"


class LogLevel(StrEnum):
    """The least level that is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Options:
    """The options that every command takes."""

    policy_dir: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Search policies here only; else DRKIT_POLICY_DIR, else ./policies "
            "and /etc/drkit/policies.",
        ),
    ] = None
    output: Annotated[
        Output, typer.Option(help="How to write the result to standard output.")
    ] = Output.TEXT
    log_format: Annotated[
        LogFormat | None,
        typer.Option(help="How to log to standard error; else DRKIT_LOG_FORMAT."),
    ] = None
    log_level: Annotated[
        LogLevel | None,
        typer.Option(help="What to log at least; else DRKIT_LOG_LEVEL."),
    ] = None
    quiet: Annotated[
        bool,
        typer.Option("--quiet", "-q", help="No progress, and no log below warnings."),
    ] = False


class Session:
    """One run of a command.

    Attributes:
        run: a random name that every log line and error of this run carries.
        secrets: resolves secrets and remembers them for redaction.
    """

    def __init__(
        self, command: str, options: Options, environ: Mapping[str, str]
    ) -> None:
        self.command = command
        self.options = options
        self.environ = environ
        self.run = os.urandom(4).hex()
        self.secrets = wiring.Secrets(environ)
        self.redactor = Redactor(self.secrets.seen)
        self.log_format = (
            options.log_format or environ.get("DRKIT_LOG_FORMAT") or "text"
        )
        level = (
            options.log_level or environ.get("DRKIT_LOG_LEVEL") or self._usual_level()
        )
        self.log_level = "warning" if options.quiet and level != "error" else level
        known = self.log_format in FORMATS and self.log_level in LEVELS
        self.log = make_log(
            self.log_format if known else "text",
            self.log_level if known else "info",
            self.redactor,
            run=self.run,
            command=command,
        )
        self._progress: BarProgress | LogProgress | None = None

    @property
    def json(self) -> bool:
        """Whether results are written as JSON."""
        return self.options.output is Output.JSON

    @property
    def errors_as_json(self) -> bool:
        """Whether errors are written as JSON."""
        return self.json or self.log_format == "json"

    @property
    def progress(self) -> BarProgress | LogProgress:
        """Whom long work tells how far it is."""
        if self._progress is None:
            self._progress = self._show_progress(passing=False)
        return self._progress

    @property
    def passing_progress(self) -> BarProgress | LogProgress:
        """As `progress`, for work of seconds whose result says everything.

        Nothing of it stays on a terminal; phases are logged if logs were asked for.
        """
        if self._progress is None:
            self._progress = self._show_progress(passing=not self._logs_wanted())
        return self._progress

    def policy(self, name: str | None) -> Policy:
        """Load the policy of that name or file, or the only one there is.

        Raises:
            NotFound, PolicyError: there is none, or it is wrong.
            UsageError: none is named, and there are several.
        """
        from drkit.config.recalling import recall_policy

        policy = recall_policy(self._policy_path(name), self.environ)
        self.log = self.log.bind(policy=policy.name)
        return policy

    def show(self, text: str, found: Mapping[str, Any], version: int = 1) -> None:
        """Write a result: `text` for people, or `found` as the command's JSON."""
        shape = {"drkit": self.command, "version": version, "run": self.run, **found}
        self.close()
        write_out(json.dumps(shape, indent=2) if self.json else printable(text))

    def tell(self, text: str) -> None:
        """Write a line for people; nothing where JSON was asked for."""
        if not self.json:
            self.close()
            write_out(printable(text))

    def close(self) -> None:
        """Give the terminal back."""
        if self._progress is not None:
            self._progress.close()
            self._progress = None

    def check(self) -> None:
        """Refuse settings of the environment that the command line would not take.

        Raises:
            PolicyError: a variable's value is unknown.
        """
        for name, value, known in (
            ("DRKIT_LOG_FORMAT", self.log_format, FORMATS),
            ("DRKIT_LOG_LEVEL", self.log_level, LEVELS),
        ):
            if value not in known:
                raise PolicyError(f"{name}: must be one of {', '.join(known)}")

    def fail(self, error: BaseException) -> int:
        """Tell an error; return the exit code it stands for."""
        self.close()
        as_json = self.errors_as_json
        if isinstance(error, DrkitError):
            self.log.failed("failed", error)
            write_err(render_error(error, self.run, self.redactor, as_json=as_json))
            return error.exit_code
        self.log.failed("unexpected error", error)
        write_err(render_unexpected(error, self.run, as_json=as_json))
        return 1

    def _policy_path(self, name: str | None) -> str:
        from drkit.config.discovery import (
            find_policies,
            no_policy_at_all,
            policy_dirs,
        )
        from drkit.config.recalling import find_policy

        if name is not None and os.sep in name:
            return name
        directories = policy_dirs(self.options.policy_dir, self.environ)
        if name is not None:
            return find_policy(name, directories, self.environ)
        files = find_policies(directories)
        if len(files) == 1:
            return files[0]
        if files:
            raise UsageError(
                f"there are several policies: {', '.join(files)}",
                hint="say which one you mean, by its name or its file",
            )
        raise no_policy_at_all(directories)

    def _show_progress(self, *, passing: bool) -> BarProgress | LogProgress:
        bars = self._on_terminal() and not self.options.quiet
        return (BarProgress if bars else LogProgress)(self.log, passing=passing)

    def _logs_wanted(self) -> bool:
        """Whether somebody asked for logs, not only for what goes wrong."""
        level = self.options.log_level or self.environ.get("DRKIT_LOG_LEVEL")
        return level is not None or self.log_format == "json"

    def _on_terminal(self) -> bool:
        return sys.stderr is not None and sys.stderr.isatty()

    def _usual_level(self) -> str:
        """On a terminal the bars say what a log would."""
        return "warning" if self._on_terminal() else "info"


def command(
    app: typer.Typer, name: str, *, group: str = "", examples: str = ""
) -> Callable[[Callable[..., int | None]], None]:
    """Register a function of a `Session` as a command.

    Args:
        app: where it belongs.
        name: as it is typed.
        group: what is typed before it, such as `wal`.
        examples: lines to show at the end of its help.
    """
    full_name = f"{group} {name}".strip()

    def register(function: Callable[..., int | None]) -> None:
        def call(**given: Any) -> int:
            options = Options(**{one: given.pop(one) for one in Options.__slots__})
            return run_session(Session(full_name, options, os.environ), function, given)

        call.__doc__ = function.__doc__
        signature = _signature(function)
        vars(call)["__signature__"] = signature  # typer reads it
        call.__annotations__ = {
            one.name: one.annotation for one in signature.parameters.values()
        }
        app.command(name, cls=PlainCommand, epilog=_epilog(examples))(call)

    return register


def run_session(
    session: Session, function: Callable[..., int | None], given: Mapping[str, Any]
) -> int:
    """Run a command from its checks to its exit code."""
    with Interruption(as_json=session.errors_as_json) as interruption:
        try:
            session.check()
            return function(session, **given) or 0
        except typer.Exit as end:
            return end.exit_code
        except BaseException as error:  # noqa: BLE001  every error becomes an exit code
            interruption.over()
            return session.fail(_cause(error, interruption))
        finally:
            interruption.over()
            session.close()


def _cause(error: BaseException, interruption: Interruption) -> BaseException:
    """Return what to tell: after a signal that, whatever clearing up ran into."""
    if interruption.name is None:
        return error
    stop = interrupted(interruption.name)
    stop.__cause__ = error
    return stop


def write_out(text: str) -> None:
    """Write to standard output; a reader that went away is no error of ours."""
    if sys.stdout is None:
        return  # it was closed from the beginning
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        # Python would complain once more when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def write_err(text: str) -> None:
    """Write to standard error, if there is one."""
    if sys.stderr is not None:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


def _signature(function: Callable[..., int | None]) -> inspect.Signature:
    """Return a command's own parameters, then the common ones."""
    hints = get_type_hints(function, include_extras=True)
    own = list(inspect.signature(function).parameters.values())[1:]
    parameters = [
        one.replace(annotation=hints[one.name], kind=inspect.Parameter.KEYWORD_ONLY)
        for one in own
    ]
    common = get_type_hints(Options, include_extras=True)
    parameters += [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=Options.__dataclass_fields__[name].default,
            annotation=common[name],
        )
        for name in Options.__slots__
    ]
    return inspect.Signature(parameters)


def _epilog(examples: str) -> str | None:
    lines = [f"  {line}" for line in inspect.cleandoc(examples).splitlines()]
    return "\n".join(["\b", "Examples:", *lines]) if examples else None
