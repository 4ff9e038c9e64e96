"""The log's head, and what speaks against its being the last, as commands show it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from drkit.errors import UsageError
from drkit.model.log_head import LogHead

if TYPE_CHECKING:
    from drkit.operations.heads import LogStanding

ExpectHead = Annotated[
    str | None,
    typer.Option(
        metavar="HEAD",
        help="A head of the log that must be in it, as `drkit info` or a report wrote "
        "it: number and digest with a colon between.",
    ),
]


def read_head(text: str | None, option: str = "--expect-head") -> LogHead | None:
    """Return the head that an option names; None if it was not given.

    Raises:
        UsageError: it is none.
    """
    if text is None:
        return None
    try:
        return LogHead.parse(text)
    except ValueError as error:
        raise UsageError(
            f"{option}: {error}", hint="`drkit info` shows the head as it is now"
        ) from None


def standing_lines(found: LogStanding, cluster: str) -> list[str]:
    """Say what speaks against the log's being whole, the worst first; often nothing."""
    lines = []
    for alarm in found.alarms:
        lines += [f"ALARM: {alarm.message}", f"  → {alarm.hint}"]
    for label in found.uncommitted:
        lines.append(
            f"NOT LISTED: {label} is stored and whole, but the log has no commit of it"
        )
        lines.append(
            "  → its backup died just before it, or newer log entries are gone; it is "
            f"never cleared away by itself. To delete it: drkit discard {cluster} "
            f"{label}"
        )
    return lines + [f"note: {note}" for note in found.notes]


def standing_json(found: LogStanding) -> dict[str, Any]:
    """Return the member `log` of commands that look at the log's head."""
    return {
        "head": None if found.head is None else str(found.head),
        "alarms": [
            {
                "error": type(alarm).__name__,
                "exit_code": alarm.exit_code,
                "message": alarm.message,
                "hint": alarm.hint,
            }
            for alarm in found.alarms
        ],
        "not_listed": list(found.uncommitted),
        "notes": list(found.notes),
    }
