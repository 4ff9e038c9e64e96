"""Void names of the log, checked as a model: every order of every step.

Two hosts each want to add one entry; somebody without keys stores garbage at log names
whenever he likes. In the second model he also deletes or puts back garbage. A host
reads name by name, creates the next, and reads once more before it acts; each of these
is one step, between which all others may go on. It is the protocol of
docs/repository-format.md, "Void names", and shares no line with drkit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMES = 5
GARBAGE = "garbage"
ROOT = ("root",)


class Entry(NamedTuple):
    """A signed entry: who wrote it, the history that it follows, and what it skips."""

    host: str
    previous: tuple[object, ...]
    void: int


Slot = Entry | str | None
Slots = tuple[Slot, ...]


@dataclass(frozen=True)
class Host:
    """A host, before its next step.

    Attributes:
        history: the entries that it has read or written, by name.
        at: the name that it looks at next.
        stage: `read`, `probe`, `put`, `again`, `probe again`, and then `acts` or
            `alarm`.
    """

    name: str
    stage: str = "read"
    history: tuple[object, ...] = ROOT
    head: int = 0
    at: int = 1
    free: int = 0

    def done(self) -> bool:
        return self.stage in {"acts", "alarm"}


@dataclass(frozen=True)
class State:
    slots: Slots
    hosts: tuple[Host, Host]
    left: int  # what the attacker may still do


def steps(state: State, *, deletes: bool) -> Iterator[State]:
    for place, host in enumerate(state.hosts):
        if not host.done():
            slots, moved = step(state.slots, host)
            hosts = (*state.hosts[:place], moved, *state.hosts[place + 1 :])
            yield State(slots, (hosts[0], hosts[1]), state.left)
    if state.left:
        for at in range(1, NAMES):
            if state.slots[at] is None:
                yield changed(state, at, GARBAGE)
            elif state.slots[at] == GARBAGE and deletes:
                yield changed(state, at, None)


def changed(state: State, at: int, what: Slot) -> State:
    slots = (*state.slots[:at], what, *state.slots[at + 1 :])
    return replace(state, slots=slots, left=state.left - 1)


def step(slots: Slots, host: Host) -> tuple[Slots, Host]:
    if host.stage == "put":
        return put(slots, host)
    found = slots[host.at] if host.at < NAMES else None
    look = probed if host.stage.startswith("probe") else read
    return slots, look(slots, host, found, " again" * host.stage.endswith("again"))


def read(_: Slots, host: Host, found: Slot, again: str) -> Host:
    if isinstance(found, Entry):
        return took(host, found, again)
    if found == GARBAGE:
        return replace(host, at=host.at + 1)
    return replace(host, stage=f"probe{again}", free=host.at, at=host.at + 1)


def probed(slots: Slots, host: Host, found: Slot, again: str) -> Host:
    """Look behind a name that was free."""
    if not isinstance(found, Entry):
        return replace(host, stage="acts" if again else "put")
    if slots[host.free] is not None:  # it has been used meanwhile
        return replace(host, stage=f"read{again}", at=host.head + 1)
    return took(host, found, again)


def took(host: Host, entry: Entry, again: str) -> Host:
    """Go on behind an entry, if it is the next one."""
    if (entry.previous, entry.void) != (host.history, host.at - host.head - 1):
        return replace(host, stage="alarm")
    history = (*host.history, (host.at, entry.host))
    return replace(
        host, stage=f"read{again}", history=history, head=host.at, at=host.at + 1
    )


def put(slots: Slots, host: Host) -> tuple[Slots, Host]:
    if host.free >= NAMES:
        return slots, replace(host, stage="alarm")
    back = replace(host, at=host.head + 1)
    if slots[host.free] is not None:
        return slots, replace(back, stage="read")
    entry = Entry(host.name, host.history, host.free - host.head - 1)
    slots = (*slots[: host.free], entry, *slots[host.free + 1 :])
    return slots, replace(back, stage="read again")


def explore(*, deletes: bool, moves: int) -> set[State]:
    first = State((GARBAGE, *[None] * (NAMES - 1)), (Host("a"), Host("b")), moves)
    seen, left = {first}, [first]
    while left:
        for after in steps(left.pop(), deletes=deletes):
            if after not in seen:
                seen.add(after)
                left.append(after)
    return seen


def acted(state: State) -> list[tuple[object, ...]]:
    return [host.history for host in state.hosts if host.stage == "acts"]


def agree(histories: list[tuple[object, ...]]) -> bool:
    """Say whether one of two histories begins with the other."""
    if len(histories) < 2:
        return True
    short, long = sorted(histories, key=len)
    return long[: len(short)] == short


@pytest.mark.parametrize("moves", [0, 1, 2, 3])
def test_who_only_creates_neither_forks_the_log_nor_stops_it(moves: int) -> None:
    for state in explore(deletes=False, moves=moves):
        assert agree(acted(state)), state
        full = all(slot is not None for slot in state.slots)
        alarmed = [host for host in state.hosts if host.stage == "alarm"]
        assert not alarmed or full, state


@pytest.mark.parametrize("moves", [2, 3, 4])
def test_who_deletes_garbage_forks_nothing_that_was_acted_upon(moves: int) -> None:
    """He can make both write; never do both act on it, and everybody sees it."""
    forks = 0
    for state in explore(deletes=True, moves=moves):
        assert agree(acted(state)), state
        forks += any(host.stage == "alarm" for host in state.hosts)
    assert forks, "the model is too small to show the race"
