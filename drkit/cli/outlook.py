"""How long a restore will take, for people and for programs."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from drkit.cli import render

if TYPE_CHECKING:
    from drkit.operations.forecasting import Outlook


def outlook_text(found: Outlook, policy: str) -> str:
    """Say how long, how sure that is, and what it is known from."""
    if found.problem:
        return f"how long it takes is not known: {found.problem}"
    if found.forecast is None:
        measure = f"drkit verify {policy} --depth restore"
        return f"how long it takes was not measured yet; `{measure}` does"
    seconds = render.duration(timedelta(seconds=found.forecast.seconds))
    error = render.duration(timedelta(seconds=found.forecast.error))
    runs = "1 restore" if found.runs == 1 else f"{found.runs} restores"
    return (
        f"about {seconds} ± {error} until it takes writes, by {runs} that drkit timed"
    )


def outlook_json(found: Outlook | None) -> dict[str, Any] | None:
    """Return a forecast as JSON; null if there is none."""
    if found is None or found.forecast is None:
        return None
    return {
        "seconds": round(found.forecast.seconds, 3),
        "error": round(found.forecast.error, 3),
        "runs": found.runs,
    }
