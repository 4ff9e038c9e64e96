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
        time = None if self.time is None else self.time.isoformat(sep=" ")
        values = (time, self.lsn, self.xid, self.name)
        words = [str(value) for value in values if value is not None]
        shown = " ".join([str(self.kind), *words])
        return shown if self.inclusive else f"{shown} (exclusive)"
