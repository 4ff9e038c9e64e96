"""Corrective actions: what somebody does after a drill, in the chain of evidence."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from drkit.errors import NotFound, UsageError
from drkit.model.evidence import Action, Outcome, Record, RecordKind
from drkit.repository.evidence import append, read_chain

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import date

    from drkit.repository.evidence import Place
    from drkit.repository.repository import Repository

OPEN, DONE, DROPPED = "open", "done", "dropped"
_LONGEST = 2000


class RecordedAction(NamedTuple):
    """An action as it stands now, and its newest record."""

    action: Action
    place: Place


def add_action(
    repository: Repository, text: str, owner: str, due: date, follows: int | None
) -> RecordedAction:
    """Record an action to be done; it gets the next number.

    Args:
        repository: of the cluster.
        text: what is to be done.
        owner: who does it.
        due: until when.
        follows: the record of the drill or verification that made it necessary.

    Raises:
        UsageError: a text is empty, too long or not printable.
        NotFound: `follows` is no drill and no verification.
    """
    text, owner = _printable("--text", text), _printable("--owner", owner)

    def decide(records: Sequence[Record]) -> Action:
        _refuse_stranger(records, follows)
        number = max(_actions(records), default=0) + 1
        return Action(number, text, owner, due.isoformat(), OPEN, follows)

    return _record(repository, decide)


def settle_action(
    repository: Repository, number: int, state: str, note: str
) -> RecordedAction:
    """Record that an action was done or dropped.

    Args:
        repository: of the cluster.
        number: of the action.
        state: `done` or `dropped`.
        note: what was done, or why it is not.

    Raises:
        NotFound: there is no such action.
        UsageError: it is settled already, or the note is empty.
    """
    note = _printable("--note", note)

    def decide(records: Sequence[Record]) -> Action:
        known = _actions(records)
        if number not in known:
            numbers = ", ".join(map(str, known)) or "none"
            raise NotFound(
                f"{repository.layout.cluster} has no action {number}",
                hint=f"the actions are: {numbers}",
            )
        action = known[number]
        if action.state != OPEN:
            raise UsageError(
                f"action {number} is {action.state} already: {action.note}",
                hint="add a new action if there is more to do",
            )
        return replace(action, state=state, note=note)

    return _record(repository, decide)


def _record(
    repository: Repository, decide: Callable[[Sequence[Record]], Action]
) -> RecordedAction:
    """Store the action that `decide` chooses, seeing all records before it."""
    decided: list[Action] = []

    def build(sequence: int, previous: str) -> Record:
        records = [one.record for one in read_chain(repository).records]
        decided[:] = [decide(records)]
        return _of_action(repository, decided[0], sequence, previous)

    place = append(repository, build)
    return RecordedAction(decided[0], place)


def _of_action(
    repository: Repository, action: Action, sequence: int, previous: str
) -> Record:
    opened = repository.log.state.opened
    now = repository.clock.now()
    return Record(
        kind=RecordKind.ACTION,
        sequence=sequence,
        previous=previous,
        cluster=repository.layout.cluster,
        system_identifier=opened.system_identifier if opened else "",
        started=now,
        finished=now,
        outcome=Outcome.MET,  # not stored: an action has none
        action=action,
    )


def _actions(records: Sequence[Record]) -> dict[int, Action]:
    """Return each action as its newest record has it."""
    found = [record.action for record in records if record.action is not None]
    return {action.action: action for action in found}


def _refuse_stranger(records: Sequence[Record], follows: int | None) -> None:
    if follows is None:
        return
    kinds = {record.sequence: record.kind for record in records}
    if kinds.get(follows) in (None, RecordKind.ACTION):
        raise NotFound(
            f"record {follows} is no drill and no verification",
            hint="`drkit drill list` shows the records and their numbers",
        )


def _printable(option: str, text: str) -> str:
    text = " ".join(text.split())
    if not text or len(text) > _LONGEST or not text.isprintable():
        raise UsageError(
            f"{option} must have 1 to {_LONGEST} printable characters",
            hint="whoever reads the next report sees it as it is",
        )
    return text
