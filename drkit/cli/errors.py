"""Errors as a person or a program reads them on standard error."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from drkit.printing import Lines, page

if TYPE_CHECKING:
    from drkit.cli.logs import Redactor
    from drkit.errors import DrkitError


def wants_json(arguments: list[str]) -> bool:
    """Say whether JSON is wanted, before the arguments could be understood."""
    text = " ".join(arguments).replace("=", " ")
    asked = "--output json" in text or "--log-format json" in text
    return asked or os.environ.get("DRKIT_LOG_FORMAT") == "json"


def render_error(
    error: DrkitError, run: str, redactor: Redactor, *, as_json: bool
) -> str:
    """Return an error's message and hint, without secrets."""
    message = redactor.text(error.message)
    hint = redactor.text(error.hint) if error.hint else None
    name = type(error).__name__
    return render(name, error.exit_code, message, hint, run, as_json=as_json)


def render_unexpected(error: BaseException, run: str, *, as_json: bool) -> str:
    """Return what to tell of an error that nobody foresaw.

    Its text may hold anything, so only its kind is told.
    """
    name = type(error).__name__
    return render(
        name,
        1,
        f"unexpected {name}: this is a fault in drkit",
        "--log-level debug shows where it happened; please report it",
        run,
        as_json=as_json,
    )


def render(
    name: str, code: int, message: str, hint: str | None, run: str, *, as_json: bool
) -> str:
    """Return an error as lines of text, or as one line of JSON."""
    if as_json:
        found = {"drkit": "error", "version": 1, "error": name, "exit_code": code}
        return json.dumps(found | {"message": message, "hint": hint, "run": run})
    first, *others = message.split("\n")
    if not isinstance(message, Lines):  # a program's output, or a name that would forge
        others = [f"  | {line}" for line in others]
    lines = [f"drkit: error: {first}", *others]
    if hint:
        lines.append(f"drkit: hint: {hint}")
    return page(lines)
