"""One thing that was looked at, and how it was found to be."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from drkit.errors import DrkitError


class State(StrEnum):
    """How a thing was found; SKIPPED could not be looked at, and says why."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at, how it is, and what to do about it.

    Attributes:
        exit_code: that of the error class a failure belongs to; 0 for all others.
    """

    name: str
    state: State
    detail: str
    hint: str | None = None
    exit_code: int = 0


def ok(name: str, detail: str) -> Finding:
    """Return a finding that is as it should be."""
    return Finding(name, State.OK, detail)


def warning(name: str, detail: str, hint: str | None = None) -> Finding:
    """Return a finding that a person should know of, though work goes on."""
    return Finding(name, State.WARNING, detail, hint)


def failed(name: str, error: DrkitError) -> Finding:
    """Return a failure, told as the error tells it."""
    return Finding(name, State.FAILED, error.message, error.hint, error.exit_code)


def skipped(name: str, why: str) -> Finding:
    """Return what could not be looked at."""
    return Finding(name, State.SKIPPED, why)


def first_exit_code(findings: tuple[Finding, ...]) -> int:
    """Return the exit code of the first failure; 0 if nothing failed."""
    failures = (one.exit_code for one in findings if one.state is State.FAILED)
    return next(failures, 0)
