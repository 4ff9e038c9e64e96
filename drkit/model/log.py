"""Entries of a cluster's log, and the state machine that says which may follow.

The table of what is allowed when is in docs/repository-format.md, "Log".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar

from drkit.model.label import BASE_BACKUPS, label_time
from drkit.model.log_wal import ExpireWal, WalSigners, signed_since
from drkit.model.lsn import Lsn

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from drkit.model.backup import BackupSummary, ManifestRef
    from drkit.model.label import BackupKind
    from drkit.model.wal import Segment


@dataclass(frozen=True, slots=True)
class Open:
    """The log's first entry: whose log this is."""

    TYPE: ClassVar = "open"

    cluster: str
    system_identifier: str
    segment_size: int


@dataclass(frozen=True, slots=True)
class Begin:
    """An attempt has started; it pins its parent and the WAL from `start_lsn`.

    Attributes:
        keys: purpose and id of each DEK that was made for this attempt alone.
    """

    TYPE: ClassVar = "begin"

    attempt: str
    label: str
    kind: BackupKind
    parent: str | None
    start_lsn: Lsn
    timeline: int
    keys: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Commit:
    """A backup exists."""

    TYPE: ClassVar = "commit"

    attempt: str
    manifest: ManifestRef
    backup: BackupSummary


@dataclass(frozen=True, slots=True)
class Abandon:
    """An attempt can't commit any more; what it left may be swept."""

    TYPE: ClassVar = "abandon"

    attempt: str
    reason: str


@dataclass(frozen=True, slots=True)
class ExpireIntent:
    """These backups are gone; deleting their objects may start."""

    TYPE: ClassVar = "expire-intent"

    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ExpireDone:
    """These backups' objects are deleted."""

    TYPE: ClassVar = "expire-done"

    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Pin:
    """A backup is kept, whatever retention says, until it is unpinned.

    Attributes:
        until: from when on an expiry may unpin it; None: only a person does.
    """

    TYPE: ClassVar = "pin"

    label: str
    reason: str
    until: datetime | None


@dataclass(frozen=True, slots=True)
class Unpin:
    """A backup's pin is lifted."""

    TYPE: ClassVar = "unpin"

    label: str


@dataclass(frozen=True, slots=True)
class Proven:
    """A verification restored a backup and found all well.

    Attributes:
        verified_at: when it ended.
        evidence: SHA-256 of its signed record, in hex.
    """

    TYPE: ClassVar = "proven"

    label: str
    verified_at: datetime
    evidence: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """A record of evidence exists; whoever deletes or changes it can't hide that.

    Attributes:
        record: its number in the chain of evidence.
        digest: SHA-256 of the signed record, in hex.
    """

    TYPE: ClassVar = "evidence"

    record: int
    digest: str


Entry = (
    Open
    | Begin
    | Commit
    | Abandon
    | ExpireIntent
    | ExpireDone
    | ExpireWal
    | WalSigners
    | Pin
    | Unpin
    | Proven
    | Evidence
)


class AttemptState(StrEnum):
    """How far an attempt came."""

    RUNNING = "running"
    COMMITTED = "committed"
    ABANDONED = "abandoned"


@dataclass(slots=True)
class Attempt:
    """An attempt and what became of it."""

    begin: Begin
    state: AttemptState = AttemptState.RUNNING


@dataclass(slots=True)
class LogState:
    """What a log says, folded entry by entry.

    Attributes:
        backups: commit entries by label, in the log's order; expired ones leave.
        expiring: labels that an intent names and no `expire-done` does yet.
        pins: the pin of each live backup that has one.
        proven: the newest proof of each live backup that has one.
        evidence: digest of each record of evidence, by its number.
        wal_bounds: by timeline, before which position its WAL has expired.
        wal_signers, wal_signed: whose signatures WAL has, and from where on it must.
    """

    opened: Open | None = None
    attempts: dict[str, Attempt] = field(default_factory=dict)
    backups: dict[str, Commit] = field(default_factory=dict)
    expiring: set[str] = field(default_factory=set)
    pins: dict[str, Pin] = field(default_factory=dict)
    proven: dict[str, Proven] = field(default_factory=dict)
    evidence: list[str] = field(default_factory=list)
    wal_bounds: dict[int, Lsn] = field(default_factory=dict)
    wal_signers: set[str] = field(default_factory=set)
    wal_signed: dict[int, str] | None = None
    last_label: str | None = None

    def running(self) -> list[Begin]:
        """Return the attempts that have neither committed nor been abandoned."""
        return [
            attempt.begin
            for attempt in self.attempts.values()
            if attempt.state is AttemptState.RUNNING
        ]

    def refusal(self, entry: Entry) -> str | None:
        """Say why `entry` may not come next; None if it may."""
        if self.opened is None and not isinstance(entry, Open):
            return "the log has not been opened"
        return _RULES[type(entry)](self, entry)

    def apply(self, entry: Entry) -> None:
        """Take in the next entry.

        Raises:
            ValueError: it may not follow.
        """
        why = self.refusal(entry)
        if why is not None:
            raise ValueError(why)
        match entry:
            case Open():
                self.opened = entry
            case Begin():
                self.attempts[entry.attempt] = Attempt(entry)
                self.last_label = entry.label
            case Commit():
                self.attempts[entry.attempt].state = AttemptState.COMMITTED
                self.backups[entry.backup.label] = entry
            case Abandon():
                self.attempts[entry.attempt].state = AttemptState.ABANDONED
            case ExpireIntent() | ExpireDone() | ExpireWal():
                self._expire(entry)
            case WalSigners():
                self.wal_signed = signed_since(self.wal_signed, entry)
                self.wal_signers |= set(entry.signers)
            case Pin() | Unpin() | Proven():
                self._mark(entry)
            case Evidence():
                self.evidence[entry.record : entry.record + 1] = [entry.digest]

    def _expire(self, entry: ExpireIntent | ExpireDone | ExpireWal) -> None:
        match entry:
            case ExpireIntent():
                self.expiring |= set(entry.labels)
                for label in entry.labels:
                    del self.backups[label]
                    self.proven.pop(label, None)
            case ExpireDone():
                self.expiring -= set(entry.labels)
            case ExpireWal():
                for timeline, bound in entry.bounds:
                    self.wal_bounds[timeline] = max(self.wal_bound(timeline), bound)

    def _mark(self, entry: Pin | Unpin | Proven) -> None:
        match entry:
            case Pin():
                self.pins[entry.label] = entry
            case Unpin():
                del self.pins[entry.label]
            case Proven():
                self.proven[entry.label] = entry

    def wal_bound(self, timeline: int) -> Lsn:
        """Return the position before which a timeline's WAL has expired; 0 if none."""
        return self.wal_bounds.get(timeline, Lsn(0))

    def wal_expired(self, segment: Segment, size: int) -> bool:
        """Say whether a segment of `size` bytes has expired, and is not lost."""
        return segment.next().start(size) <= self.wal_bound(segment.timeline)

    def parent_of(self, label: str) -> str | None:
        """Return the parent of a committed backup."""
        return self.attempts[self.backups[label].attempt].begin.parent


def _open_refusal(state: LogState, _: Open) -> str | None:
    return "the log is open already" if state.opened is not None else None


def _begin_refusal(state: LogState, entry: Begin) -> str | None:
    if entry.attempt in state.attempts:
        return f"attempt {entry.attempt} has begun already"
    if state.last_label is not None and label_time(entry.label) <= label_time(
        state.last_label
    ):
        return f"label {entry.label} is not newer than {state.last_label}"
    if entry.parent is not None and entry.parent not in state.backups:
        return f"parent {entry.parent} is no live backup"
    return _needed_before(entry, state.wal_bound(entry.timeline))


def _commit_refusal(state: LogState, entry: Commit) -> str | None:
    attempt = state.attempts.get(entry.attempt)
    if attempt is None:
        return f"attempt {entry.attempt} has not begun"
    if attempt.state is not AttemptState.RUNNING:
        return f"attempt {entry.attempt} is {attempt.state}"
    if attempt.begin.label != entry.backup.label:
        return f"attempt {entry.attempt} began as {attempt.begin.label}"
    parent = attempt.begin.parent
    if parent is not None and parent not in state.backups:
        return f"parent {parent} has expired"
    return None


def _abandon_refusal(state: LogState, entry: Abandon) -> str | None:
    attempt = state.attempts.get(entry.attempt)
    if attempt is None:
        return f"attempt {entry.attempt} has not begun"
    if attempt.state is AttemptState.COMMITTED:
        return f"attempt {entry.attempt} has committed"
    return None


def _intent_refusal(state: LogState, entry: ExpireIntent) -> str | None:
    going = set(entry.labels)
    if len(going) != len(entry.labels):
        return "a label is named twice"
    for label in entry.labels:
        if label not in state.backups:
            return f"{label} is no live backup"
        if label in state.pins:
            return f"{label} is pinned: {state.pins[label].reason}"
    children = [state.parent_of(label) for label in state.backups if label not in going]
    children += [begin.parent for begin in state.running()]
    for parent in children:
        if parent in going:
            return f"{parent} has a child that stays"
    return None


def _done_refusal(state: LogState, entry: ExpireDone) -> str | None:
    for label in entry.labels:
        if label not in state.expiring:
            return f"no intent to expire names {label}"
    return None


def _wal_refusal(state: LogState, entry: ExpireWal) -> str | None:
    bounds = dict(entry.bounds)
    if not bounds or len(bounds) != len(entry.bounds):
        return "it names no timeline, or one twice"
    running = ((one, bounds.get(one.timeline, Lsn(0))) for one in state.running())
    return next((why for pair in running if (why := _needed_before(*pair))), None)


def _needed_before(begin: Begin, bound: Lsn) -> str | None:
    """Say that an attempt needs WAL from before a bound; None if it does not."""
    if begin.kind not in BASE_BACKUPS or begin.start_lsn >= bound:
        return None
    return f"{begin.label} needs WAL from {begin.start_lsn} on, not from {bound}"


def _signers_refusal(state: LogState, entry: WalSigners) -> str | None:
    right = signed_since(state.wal_signed, entry) is not None
    return None if right else "it names nobody, or WAL that must be signed already"


def _live_refusal(state: LogState, entry: Pin | Proven) -> str | None:
    live = entry.label in state.backups
    return None if live else f"{entry.label} is no live backup"


def _unpin_refusal(state: LogState, entry: Unpin) -> str | None:
    return None if entry.label in state.pins else f"{entry.label} is not pinned"


def _evidence_refusal(state: LogState, entry: Evidence) -> str | None:
    known = state.evidence[entry.record : entry.record + 1]
    if entry.record > len(state.evidence):
        return f"the log names no record of evidence {entry.record - 1}"
    if known and known != [entry.digest]:
        return f"record of evidence {entry.record} is another one"
    return None


_RULES: dict[type, Callable[[LogState, Any], str | None]] = {
    Open: _open_refusal,
    Begin: _begin_refusal,
    Commit: _commit_refusal,
    Abandon: _abandon_refusal,
    ExpireIntent: _intent_refusal,
    ExpireDone: _done_refusal,
    ExpireWal: _wal_refusal,
    WalSigners: _signers_refusal,
    Pin: _live_refusal,
    Unpin: _unpin_refusal,
    Proven: _live_refusal,
    Evidence: _evidence_refusal,
}
