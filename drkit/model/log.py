"""Entries of a cluster's log, and the state machine that says which may follow.

The table of what is allowed when is in docs/repository-format.md, "Log".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar

from drkit.model import members
from drkit.model.backup import (
    BackupSummary,
    ManifestRef,
    reference_from_json,
    summary_from_json,
    summary_to_json,
)
from drkit.model.label import BackupKind, is_attempt, label_time
from drkit.model.lsn import Lsn

if TYPE_CHECKING:
    from collections.abc import Callable


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


Entry = Open | Begin | Commit | Abandon | ExpireIntent | ExpireDone


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
    """

    opened: Open | None = None
    attempts: dict[str, Attempt] = field(default_factory=dict)
    backups: dict[str, Commit] = field(default_factory=dict)
    expiring: set[str] = field(default_factory=set)
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
            case ExpireIntent():
                for label in entry.labels:
                    del self.backups[label]
                self.expiring |= set(entry.labels)
            case ExpireDone():
                self.expiring -= set(entry.labels)

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
    return None


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


_RULES: dict[type, Callable[[LogState, Any], str | None]] = {
    Open: _open_refusal,
    Begin: _begin_refusal,
    Commit: _commit_refusal,
    Abandon: _abandon_refusal,
    ExpireIntent: _intent_refusal,
    ExpireDone: _done_refusal,
}


def entry_to_json(entry: Entry) -> dict[str, Any]:
    """Return an entry's own members, `type` first."""
    fields: dict[str, Any] = {"type": entry.TYPE}
    fields |= {name: getattr(entry, name) for name in entry.__slots__}
    match entry:
        case Begin():
            fields |= {"kind": str(entry.kind), "start_lsn": str(entry.start_lsn)}
            fields["keys"] = [list(key) for key in entry.keys]
        case Commit():
            manifest = entry.manifest
            fields["manifest"] = {
                name: getattr(manifest, name) for name in ManifestRef.__slots__
            }
            fields["backup"] = summary_to_json(entry.backup)
        case ExpireIntent() | ExpireDone():
            fields["labels"] = list(entry.labels)
        case _:
            pass
    return fields


def entry_from_json(found: dict[str, Any]) -> Entry:
    """Read an entry's own members.

    Raises:
        ValueError, KeyError, TypeError: a member is missing or malformed.
    """
    return _READERS[members.text(found, "type")](found)


def _read_open(found: dict[str, Any]) -> Open:
    return Open(
        members.text(found, "cluster"),
        members.text(found, "system_identifier"),
        members.count(found, "segment_size"),
    )


def _read_begin(found: dict[str, Any]) -> Begin:
    label = members.text(found, "label")
    label_time(label)
    parent = None if found["parent"] is None else members.text(found, "parent")
    return Begin(
        _attempt(found),
        label,
        BackupKind(found["kind"]),
        parent,
        Lsn.parse(members.text(found, "start_lsn")),
        members.count(found, "timeline"),
        tuple(map(_key, members.listed(found, "keys"))),
    )


def _key(pair: Any) -> tuple[str, str]:
    purpose, key_id = pair
    return str(purpose), str(key_id)


def _read_commit(found: dict[str, Any]) -> Commit:
    return Commit(
        _attempt(found),
        reference_from_json(members.nested(found, "manifest")),
        summary_from_json(members.nested(found, "backup")),
    )


def _read_abandon(found: dict[str, Any]) -> Abandon:
    return Abandon(_attempt(found), members.text(found, "reason"))


def _attempt(found: dict[str, Any]) -> str:
    attempt = members.text(found, "attempt")
    if not is_attempt(attempt):
        raise ValueError(f"{attempt!r} is no attempt id")
    return attempt


_READERS: dict[str, Callable[[dict[str, Any]], Entry]] = {
    Open.TYPE: _read_open,
    Begin.TYPE: _read_begin,
    Commit.TYPE: _read_commit,
    Abandon.TYPE: _read_abandon,
    ExpireIntent.TYPE: lambda found: ExpireIntent(members.texts(found, "labels")),
    ExpireDone.TYPE: lambda found: ExpireDone(members.texts(found, "labels")),
}
