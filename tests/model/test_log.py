from __future__ import annotations

import contextlib
import copy
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drkit.model.fingerprint import FingerprintPlace, Mode
from drkit.model.label import BackupKind
from drkit.model.log import (
    Abandon,
    AttemptState,
    Begin,
    Entry,
    Evidence,
    ExpireDone,
    ExpireIntent,
    LogState,
    Open,
    Pin,
    Proven,
    Unpin,
)
from drkit.model.log_json import UnknownEntry, entry_from_json, entry_to_json
from drkit.model.log_wal import ExpireWal, WalSigners
from drkit.model.lsn import Lsn
from tests.builders import commit_entry

if TYPE_CHECKING:
    from collections.abc import Iterator

OPEN = Open("alpha", "7300000000000000001", 16 << 20)


def begun(number: int, parent: str | None = None) -> Begin:
    kind = BackupKind.FULL if parent is None else BackupKind.INCREMENTAL
    label = f"20260115-1030{number:02d}-{kind}"
    keys = (("backup", "ab" * 16), ("catalog", "cd" * 16))
    return Begin(f"{number:032x}", label, kind, parent, Lsn(0x2000028), 1, keys)


FULL, OTHER = begun(1), begun(2)
CHILD = begun(3, FULL.label)
COMMIT_FULL, COMMIT_CHILD = commit_entry(FULL), commit_entry(CHILD)
WITH_FINGERPRINT = replace(
    COMMIT_FULL,
    backup=replace(
        COMMIT_FULL.backup, fingerprint=FingerprintPlace(Mode.EXACT, Lsn(0x30000A0))
    ),
)
LATER = datetime(2026, 3, 1, tzinfo=UTC)
PIN = Pin(FULL.label, "before the migration", LATER)
PROVEN = Proven(FULL.label, LATER, "ab" * 32)
RECORDED = Evidence(0, "ab" * 32)
AT_FULL, BEHIND_FULL = Lsn(0x2000028), Lsn(0x2000029)
ENTRIES: list[Entry] = [
    OPEN,
    FULL,
    CHILD,
    COMMIT_FULL,
    WITH_FINGERPRINT,
    Abandon(FULL.attempt, "why"),
    ExpireIntent((FULL.label,)),
    ExpireDone((FULL.label, CHILD.label)),
    PIN,
    Unpin(FULL.label),
    PROVEN,
    RECORDED,
    ExpireWal(((1, Lsn(0x28000000)), (3, Lsn(0x1600000000)))),
    WalSigners(("ed25519:" + "0a" * 32,), ("000000010000000000000003",)),
]


def state_after(*entries: Entry) -> LogState:
    state = LogState()
    for entry in (OPEN, *entries):
        state.apply(entry)
    return state


ALLOWED: list[tuple[tuple[Entry, ...], Entry]] = [
    ((), FULL),
    ((FULL,), OTHER),
    ((FULL,), COMMIT_FULL),
    ((FULL,), Abandon(FULL.attempt, "again")),
    ((FULL, Abandon(FULL.attempt, "")), Abandon(FULL.attempt, "twice")),
    ((FULL, COMMIT_FULL), CHILD),
    ((FULL, COMMIT_FULL), ExpireIntent((FULL.label,))),
    ((FULL, COMMIT_FULL, CHILD, COMMIT_CHILD), ExpireIntent((CHILD.label,))),
    (
        (FULL, COMMIT_FULL, CHILD, COMMIT_CHILD),
        ExpireIntent((FULL.label, CHILD.label)),
    ),
    (
        (FULL, COMMIT_FULL, CHILD, Abandon(CHILD.attempt, "")),
        ExpireIntent((FULL.label,)),
    ),
    (
        (FULL, COMMIT_FULL, ExpireIntent((FULL.label,))),
        ExpireDone((FULL.label,)),
    ),
    ((FULL, COMMIT_FULL), PIN),
    ((FULL, COMMIT_FULL, PIN), replace(PIN, until=None)),
    ((FULL, COMMIT_FULL, PIN), Unpin(FULL.label)),
    ((FULL, COMMIT_FULL, PIN, Unpin(FULL.label)), ExpireIntent((FULL.label,))),
    (
        (FULL, COMMIT_FULL, CHILD, COMMIT_CHILD, PIN),
        ExpireIntent((CHILD.label,)),
    ),
    ((FULL, COMMIT_FULL), PROVEN),
    ((FULL, COMMIT_FULL, PROVEN), replace(PROVEN, evidence="cd" * 32)),
    ((FULL, COMMIT_FULL, PROVEN), ExpireIntent((FULL.label,))),
    ((), RECORDED),
    ((RECORDED,), RECORDED),
    ((RECORDED,), replace(RECORDED, record=1)),
    ((RECORDED, replace(RECORDED, record=1)), RECORDED),
    ((ExpireWal(((1, AT_FULL),)),), FULL),
    ((FULL,), ExpireWal(((1, AT_FULL), (2, BEHIND_FULL)))),
    ((FULL, COMMIT_FULL), ExpireWal(((1, BEHIND_FULL),))),
    ((FULL, Abandon(FULL.attempt, "")), ExpireWal(((1, BEHIND_FULL),))),
    ((ExpireWal(((1, BEHIND_FULL),)),), ExpireWal(((1, AT_FULL),))),
    ((ExpireWal(((2, BEHIND_FULL),)),), FULL),
    ((ExpireWal(((1, BEHIND_FULL),)),), replace(FULL, timeline=2)),
    ((ExpireWal(((1, BEHIND_FULL),)),), replace(FULL, kind=BackupKind.DUMP)),
]

REFUSED: list[tuple[tuple[Entry, ...], Entry, str]] = [
    ((), OPEN, "open already"),
    ((FULL,), FULL, "begun already"),
    ((OTHER,), FULL, "not newer"),
    ((FULL,), replace(OTHER, label=FULL.label), "not newer"),
    (
        (FULL,),
        replace(OTHER, label=FULL.label.replace("full", "incr")),
        "not newer",
    ),
    ((), CHILD, "no live backup"),
    ((FULL,), CHILD, "no live backup"),
    ((FULL, COMMIT_FULL, ExpireIntent((FULL.label,))), CHILD, "no live backup"),
    ((), COMMIT_FULL, "has not begun"),
    ((FULL, COMMIT_FULL), COMMIT_FULL, "is committed"),
    ((FULL, Abandon(FULL.attempt, "")), COMMIT_FULL, "is abandoned"),
    ((FULL, OTHER), replace(commit_entry(OTHER), attempt=FULL.attempt), "began as"),
    ((), Abandon(FULL.attempt, ""), "has not begun"),
    ((FULL, COMMIT_FULL), Abandon(FULL.attempt, ""), "has committed"),
    ((FULL,), ExpireIntent((FULL.label,)), "no live backup"),
    ((FULL, COMMIT_FULL, CHILD), ExpireIntent((FULL.label,)), "child that stays"),
    (
        (FULL, COMMIT_FULL, CHILD, COMMIT_CHILD),
        ExpireIntent((FULL.label,)),
        "child that stays",
    ),
    (
        (FULL, COMMIT_FULL, ExpireIntent((FULL.label,))),
        ExpireIntent((FULL.label,)),
        "no live backup",
    ),
    ((FULL, COMMIT_FULL), ExpireDone((FULL.label,)), "no intent"),
    ((FULL, COMMIT_FULL), ExpireIntent((FULL.label, FULL.label)), "twice"),
    ((), PIN, "no live backup"),
    ((FULL,), PIN, "no live backup"),
    ((FULL, COMMIT_FULL, ExpireIntent((FULL.label,))), PIN, "no live backup"),
    ((FULL, COMMIT_FULL), Unpin(FULL.label), "not pinned"),
    ((FULL, COMMIT_FULL, PIN, Unpin(FULL.label)), Unpin(FULL.label), "not pinned"),
    ((FULL, COMMIT_FULL, PIN), ExpireIntent((FULL.label,)), "pinned: before the"),
    (
        (FULL, COMMIT_FULL, CHILD, COMMIT_CHILD, replace(PIN, label=CHILD.label)),
        ExpireIntent((FULL.label, CHILD.label)),
        "pinned: before the",
    ),
    ((FULL,), PROVEN, "no live backup"),
    ((), replace(RECORDED, record=1), "names no record of evidence 0"),
    ((RECORDED,), replace(RECORDED, digest="cd" * 32), "is another one"),
    ((FULL, COMMIT_FULL, ExpireIntent((FULL.label,))), PROVEN, "no live backup"),
    ((ExpireWal(((1, BEHIND_FULL),)),), FULL, "from 0/2000028 on, not from 0/2000029"),
    (
        (ExpireWal(((1, BEHIND_FULL),)), ExpireWal(((1, AT_FULL),))),
        FULL,
        "from 0/2000028 on, not from 0/2000029",
    ),
    ((FULL,), ExpireWal(((1, BEHIND_FULL),)), "from 0/2000028 on, not from 0/2000029"),
    ((), ExpireWal(()), "names no timeline"),
    ((), ExpireWal(((1, AT_FULL), (1, BEHIND_FULL))), "or one twice"),
]


@pytest.mark.parametrize(("before", "entry"), ALLOWED)
def test_what_may_follow(before: tuple[Entry, ...], entry: Entry) -> None:
    state_after(*before).apply(entry)


@pytest.mark.parametrize(("before", "entry", "why"), REFUSED)
def test_what_may_not_follow_changes_nothing(
    before: tuple[Entry, ...], entry: Entry, why: str
) -> None:
    state = state_after(*before)
    kept = copy.deepcopy(state)
    with pytest.raises(ValueError, match=why):
        state.apply(entry)
    assert state == kept


@pytest.mark.parametrize("entry", ENTRIES[1:])
def test_nothing_comes_before_open(entry: Entry) -> None:
    assert LogState().refusal(entry) == "the log has not been opened"


def test_a_backup_exists_from_its_commit_to_its_intent() -> None:
    state = state_after(FULL)
    assert not state.backups
    assert state.running() == [FULL]
    state.apply(COMMIT_FULL)
    assert list(state.backups) == [FULL.label]
    assert not state.running()
    state.apply(ExpireIntent((FULL.label,)))
    assert not state.backups
    assert state.expiring == {FULL.label}
    state.apply(ExpireDone((FULL.label,)))
    assert not state.expiring
    assert state.attempts[FULL.attempt].state is AttemptState.COMMITTED


def test_pins_and_proofs_are_of_live_backups() -> None:
    state = state_after(FULL, COMMIT_FULL, PIN, PROVEN)
    newer = replace(PIN, reason="audit", until=None)
    state.apply(newer)
    assert state.pins == {FULL.label: newer}
    assert state.proven == {FULL.label: PROVEN}
    state.apply(Unpin(FULL.label))
    state.apply(ExpireIntent((FULL.label,)))
    assert (state.pins, state.proven) == ({}, {})


def test_an_entry_of_a_later_version_is_told_apart() -> None:
    with pytest.raises(UnknownEntry, match="'moved'"):
        entry_from_json({"type": "moved"})


@pytest.mark.parametrize("evidence", ["", "ab" * 31, "AB" * 32, "ab" * 32 + "\n"])
def test_evidence_is_a_digest(evidence: str) -> None:
    with pytest.raises(ValueError, match="no SHA-256"):
        entry_from_json(entry_to_json(PROVEN) | {"evidence": evidence})


@pytest.mark.parametrize("entry", ENTRIES)
def test_entries_are_read_as_they_are_written(entry: Entry) -> None:
    written = json.loads(json.dumps(entry_to_json(entry)))
    assert entry_from_json(written) == entry


@pytest.mark.parametrize("entry", ENTRIES)
def test_unknown_members_are_ignored(entry: Entry) -> None:
    assert entry_from_json(entry_to_json(entry) | {"later": [1.5, None]}) == entry


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path to every member and element of a JSON value."""
    if isinstance(value, dict):
        for key in value:
            yield from places(value[key], (*path, key))
    elif isinstance(value, list | tuple):
        for number, one in enumerate(value):
            yield from places(one, (*path, number))
    if path:
        yield path


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.just("9" * 5000),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner)
    ),
    max_leaves=4,
)


@given(st.data())
def test_a_malformed_entry_is_never_another_error(data: st.DataObject) -> None:
    entry = data.draw(st.sampled_from(ENTRIES))
    found = json.loads(json.dumps(entry_to_json(entry)))
    *above, last = data.draw(st.sampled_from(list(places(found))))
    inside = found
    for step in above:
        inside = inside[step]
    inside[last] = data.draw(JSON)
    state = state_after(FULL, COMMIT_FULL)
    with contextlib.suppress(ValueError, KeyError, TypeError):
        state.refusal(entry_from_json(found))


def test_commits_from_before_fingerprints_are_read() -> None:
    found = entry_to_json(COMMIT_FULL)
    del found["backup"]["fingerprint"]
    assert entry_from_json(json.loads(json.dumps(found))) == COMMIT_FULL


YOUNGER = {("backup", "fingerprint"), ("backup", "wal")}  # older entries lack these


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_member_is_needed(entry: Entry) -> None:
    for path in places(json.loads(json.dumps(entry_to_json(entry)))):
        if not isinstance(path[-1], str) or path in YOUNGER:
            continue
        found = json.loads(json.dumps(entry_to_json(entry)))
        inside = found
        for step in path[:-1]:
            inside = inside[step]
        del inside[path[-1]]
        with pytest.raises((ValueError, KeyError)):
            entry_from_json(found)
