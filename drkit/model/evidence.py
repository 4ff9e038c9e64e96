"""What a verification or a drill proves: the content of its signed record.

Every field says what was measured or compared. What was not measured is None or absent,
and reports say so; nothing here is ever estimated but the forecast, which is named so.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime


class RecordKind(StrEnum):
    """What a record is of."""

    VERIFICATION = "verification"
    DRILL = "drill"
    ACTION = "action"


class Outcome(StrEnum):
    """How a verification or a drill ended, against the policy's objectives.

    MET: all checks passed, and every objective there is was met.
    MISSED: all checks passed, but an objective was missed.
    FAILED: a check failed, or it could not be carried through.
    """

    MET = "met"
    MISSED = "missed"
    FAILED = "failed"


class CheckState(StrEnum):
    """What came of one check; one that could not be done says why in its detail."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_DONE = "not done"


@dataclass(frozen=True, slots=True)
class Phase:
    """One timed step: when it began, from the start, and how long it took; seconds."""

    name: str
    begin: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Check:
    """One check of a restored cluster.

    Attributes:
        name: a fixed name, for example `pages`, `rows`, `fingerprint: tables`.
        detail: what was compared, in numbers, or what failed.
        compared: how many things (pages, rows, tables, …) it looked at.
    """

    name: str
    state: CheckState
    detail: str
    seconds: float
    compared: int = 0

    @property
    def made(self) -> bool:
        """Whether it could be done."""
        return self.state is not CheckState.NOT_DONE

    @property
    def passed(self) -> bool:
        """Whether it was done and found nothing wrong."""
        return self.state is CheckState.PASSED


@dataclass(frozen=True, slots=True)
class Restored:
    """What was restored.

    Attributes:
        label: of the backup; `chain` has its ancestors', oldest first, and itself.
        manifests: SHA-256 of each stored manifest, in the order of `chain`.
        key_ids: of the data keys that were needed.
        target: the recovery target in words, for example `time 2026-01-15 10:30:00+00`.
        reached_lsn, reached_time, timeline: where recovery ended; the time is of the
            last replayed commit, None if there was none.
        wal_segments: how many were replayed.
        bytes: of the restored data directory.
        fetched_bytes: read from the repository.
    """

    label: str
    chain: tuple[str, ...]
    manifests: tuple[str, ...]
    key_ids: tuple[str, ...]
    start_lsn: str
    stop_lsn: str
    target: str
    reached_lsn: str | None
    reached_time: datetime | None
    timeline: int | None
    wal_segments: int
    bytes: int
    fetched_bytes: int


@dataclass(frozen=True, slots=True)
class Actor:
    """By what it was done.

    Attributes:
        configuration: SHA-256 of the policy file.
    """

    drkit: str
    python: str
    postgresql: str
    host: str
    system: str
    configuration: str


@dataclass(frozen=True, slots=True)
class Measure:
    """An objective: its target and what was measured, in seconds.

    Attributes:
        target: None where the policy sets none.
        measured: None where it could not be measured; `meaning` then says why.
        meaning: how the figure was come by, in a sentence.
    """

    target: float | None
    measured: float | None
    meaning: str

    @property
    def missed(self) -> bool:
        """Say whether there is a target and it was not proven to be met."""
        if self.target is None:
            return False
        return self.measured is None or self.measured > self.target


@dataclass(frozen=True, slots=True)
class Forecast:
    """What the time to restore was expected to be, before: seconds, and their error."""

    seconds: float
    error: float


@dataclass(frozen=True, slots=True)
class Cleanup:
    """That nothing of the scratch instance is left, as looked at afterwards."""

    directory: str
    removed_bytes: int
    proven: bool
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Action:
    """A corrective action, as it stands at the time of its record.

    Attributes:
        action: its number; later records of the same number update it.
        due: a date, `YYYY-MM-DD`.
        state: `open`, `done` or `dropped`.
        follows: sequence of the record that made it necessary.
    """

    action: int
    text: str
    owner: str
    due: str
    state: str
    follows: int | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """One verification, drill or corrective action.

    Attributes:
        sequence, previous: its place in the cluster's chain of evidence, and the
            SHA-256 of the envelope before it (64 zeros for the first).
        scenario: of a drill; empty for a verification.
        chosen: how backup and moment were chosen, for example `random backup`.
        deviations: differences between production and the scratch instance, and what
            could not be compared, each a sentence.
    """

    kind: RecordKind
    sequence: int
    previous: str
    cluster: str
    system_identifier: str
    started: datetime
    finished: datetime
    outcome: Outcome
    scenario: str = ""
    chosen: str = ""
    restored: Restored | None = None
    actor: Actor | None = None
    phases: tuple[Phase, ...] = ()
    rto: Measure | None = None
    rpo: Measure | None = None
    checks: tuple[Check, ...] = ()
    deviations: tuple[str, ...] = ()
    forecast: Forecast | None = None
    cleanup: Cleanup | None = None
    failure: str = ""
    action: Action | None = None
    notes: tuple[str, ...] = field(default=())

    @property
    def forecast_off(self) -> float | None:
        """How many seconds more the recovery took than was forecast; negative: less."""
        if self.forecast is None or self.rto is None or self.rto.measured is None:
            return None
        return self.rto.measured - self.forecast.seconds
