"""A drill report as plain values: all that its pages say, and nothing that they don't.

`drkit.reports.quarter` makes one; the writers only lay it out. Durations are seconds,
sizes bytes. None is what was not measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from drkit.model.evidence import RecordKind

if TYPE_CHECKING:
    from datetime import date, datetime

    from drkit.model.evidence import Outcome, Record
    from drkit.model.quarter import Quarter
    from drkit.model.standing import ChainState

VERSION = 1
"""Of the JSON report's shape."""


class Verdict(StrEnum):
    """What the quarter's measurements say of an objective.

    MET: every exercise proved it. MISSED: at least one measured more than its target.
    PARTLY: those that measured it met it, but others failed or could not.
    NOT_MEASURED: nothing measured it. NO_TARGET: measured, but nothing is promised.
    """

    MET = "met"
    MISSED = "missed"
    PARTLY = "partly proven"
    NOT_MEASURED = "not measured"
    NO_TARGET = "no target"


class Status(StrEnum):
    """The whole quarter in a word.

    GOOD: restores were proven and nothing failed or missed. ATTENTION: something did,
    is overdue or unproven. UNPROVEN: no restore was proven. BROKEN: the chain of
    evidence is not sound, so that records may be missing from the report.
    """

    GOOD = "good"
    ATTENTION = "attention"
    UNPROVEN = "unproven"
    BROKEN = "broken"


class DayState(StrEnum):
    """A day in the calendar, by the worst that happened on it."""

    MET = "met"
    MISSED = "missed"
    FAILED = "failed"
    NONE = "none"
    AHEAD = "ahead"


@dataclass(frozen=True, slots=True)
class Objective:
    """Recovery time or recovery point: what is promised, and what was measured.

    Attributes:
        target: the policy's, when the report was made.
        measured: how many exercises measured it and restored all they checked.
        met: how many of those kept the target of their time.
        unproven: how many failed, or could not measure it.
    """

    name: str
    target: float | None
    measured: int
    met: int
    unproven: int
    worst: float | None
    median: float | None
    verdict: Verdict
    sentence: str


@dataclass(frozen=True, slots=True)
class Figures:
    """An objective in one quarter of the trend; the target is the newest record's."""

    count: int
    worst: float | None
    median: float | None
    target: float | None


@dataclass(frozen=True, slots=True)
class TrendQuarter:
    """A quarter in the trend."""

    quarter: Quarter
    exercises: int
    failed: int
    rto: Figures
    rpo: Figures


@dataclass(frozen=True, slots=True)
class SizePoint:
    """How long a restore of so many bytes took."""

    sequence: int
    bytes: int
    seconds: float
    drill: bool
    current: bool


@dataclass(frozen=True, slots=True)
class Day:
    """A day of the quarter.

    Attributes:
        gap: whether it lies in a stretch without a proven restore that is too long.
    """

    date: date
    state: DayState
    exercises: int
    drill: bool
    gap: bool


@dataclass(frozen=True, slots=True)
class Gap:
    """Days without a proven restore, first and last."""

    first: date
    last: date
    days: int


@dataclass(frozen=True, slots=True)
class Calendar:
    """When restores were proven, and when not.

    Attributes:
        due, kept: how many verifications the schedule asked for in the quarter, and
            after how many of them one was carried out in time; None without a schedule.
    """

    days: tuple[Day, ...]
    gaps: tuple[Gap, ...]
    rule: str
    due: int | None
    kept: int | None
    sentence: str


@dataclass(frozen=True, slots=True)
class ActionState:
    """A corrective action as its newest record has it.

    Attributes:
        opened, updated: the days of its first and its newest record.
        carried: whether it was opened before the quarter.
    """

    cluster: str
    number: int
    text: str
    owner: str
    due: str
    state: str
    overdue: bool
    carried: bool
    follows: int | None
    opened: date
    updated: date
    note: str


@dataclass(frozen=True, slots=True)
class Finding:
    """A failed exercise or a missed objective, and what is done about it."""

    cluster: str
    sequence: int
    started: datetime
    outcome: Outcome
    title: str
    what: tuple[str, ...]
    actions: tuple[ActionState, ...]


@dataclass(frozen=True, slots=True)
class Backups:
    """The backups in force at the end of the quarter, or now if it still runs."""

    count: int
    full: int
    incremental: int
    proven: int
    pinned: int
    damaged_pages: int
    stored_bytes: int
    oldest: datetime | None
    newest: datetime | None


@dataclass(frozen=True, slots=True)
class Fact:
    """A name and its value, as text."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class ClusterReport:
    """One cluster's quarter.

    Attributes:
        exercises: drills and verifications of the quarter, in order of their records.
        digests: SHA-256 of their signed envelopes, in hex, in the same order.
        last_proven: when a restore was last proven up to the quarter's end.
        in_force: schedule, retention and what else the policy rules.
        log_head: the newest entry of the repository's log up to the quarter's end.
    """

    cluster: str
    system_identifier: str
    rto: Objective
    rpo: Objective
    exercises: tuple[Record, ...]
    digests: tuple[str, ...]
    proven: int
    failed: int
    last_proven: datetime | None
    trend: tuple[TrendQuarter, ...]
    sizes: tuple[SizePoint, ...]
    calendar: Calendar
    backups: Backups
    in_force: tuple[Fact, ...]
    notes: tuple[str, ...]
    chain: ChainState
    trusted: tuple[str, ...]
    log_head: str = ""

    @property
    def drills(self) -> tuple[Record, ...]:
        """Those of the exercises that are drills."""
        return tuple(one for one in self.exercises if one.kind is RecordKind.DRILL)


@dataclass(frozen=True, slots=True)
class Support:
    """What one cluster's records show for a control.

    Attributes:
        state: `shown`, `with findings` or `no record`.
        sequences: of the records.
    """

    cluster: str
    state: str
    text: str
    sequences: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Control:
    """A control of a framework, and the records that speak for it."""

    framework: str
    control: str
    asks: str
    support: tuple[Support, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """A quarter of one or more clusters.

    Attributes:
        dated: up to when the report tells; its files carry it as their date.
        over: whether the quarter had ended then.
        summary: the quarter in a few sentences.
        carried: actions from before the quarter that were open when it began.
        raised: actions opened in it, or later because of it.
    """

    quarter: Quarter
    dated: date
    over: bool
    drkit: str
    status: Status
    headline: str
    summary: tuple[str, ...]
    findings: tuple[Finding, ...]
    carried: tuple[ActionState, ...]
    raised: tuple[ActionState, ...]
    clusters: tuple[ClusterReport, ...]
    controls: tuple[Control, ...]
