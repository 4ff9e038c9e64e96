"""Where recovery shall stop, and what the server does there."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from drkit.model.lsn import Lsn  # noqa: TC001  part of the value

if TYPE_CHECKING:
    from datetime import datetime


class TargetKind(StrEnum):
    """The ways PostgreSQL names a recovery target; LATEST is having none."""

    LATEST = "latest"
    IMMEDIATE = "immediate"
    TIME = "time"
    LSN = "lsn"
    XID = "xid"
    NAME = "name"


class TargetAction(StrEnum):
    """What the server does at the target."""

    PAUSE = "pause"
    PROMOTE = "promote"
    SHUTDOWN = "shutdown"


@dataclass(frozen=True, slots=True)
class RecoveryTarget:
    """One recovery target: at most one of time, lsn, xid and name is set.

    Attributes:
        time: with its zone.
        timeline: a number, or None for the newest branch that the backup lies on.
        inclusive: whether what lies exactly at the target is replayed.
    """

    kind: TargetKind = TargetKind.LATEST
    time: datetime | None = None
    lsn: Lsn | None = None
    xid: int | None = None
    name: str | None = None
    timeline: int | None = None
    inclusive: bool = True
    action: TargetAction = TargetAction.PROMOTE

    def __str__(self) -> str:
        value = self.time or self.lsn or self.xid or self.name
        if self.time is not None:
            value = self.time.isoformat(sep=" ")
        shown = f"{self.kind} {value}" if value is not None else str(self.kind)
        return shown if self.inclusive else f"{shown} (exclusive)"
