"""What all parts of a policy share."""

from __future__ import annotations

import os

from pydantic import BaseModel, ConfigDict

MAX_DEFAULT_JOBS = 8


class Section(BaseModel):
    """A part of a policy: frozen, exact in keys and types."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, hide_input_in_errors=True
    )


def default_jobs() -> int:
    """Return how many CPUs this process may use, at most 8."""
    return min(len(os.sched_getaffinity(0)), MAX_DEFAULT_JOBS)
