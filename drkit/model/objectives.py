"""How good recovery has to be, as the policy promises it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import timedelta


@dataclass(frozen=True, slots=True)
class Objectives:
    """Targets that verifications and drills are measured against.

    Attributes:
        rto: recovery time objective: from "it is gone" to "it answers queries".
        rpo: recovery point objective: how old the newest recovered data may be.
    """

    rto: timedelta | None = None
    rpo: timedelta | None = None
