"""Evidence that was dated back, cut short or signed by a stranger is not believed."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from drkit.errors import Corrupt
from drkit.model.quarter import Quarter
from drkit.operations.reporting import gather_evidence
from drkit.operations.verifying.evidence import check_evidence
from drkit.repository.evidence import append, read_all, read_chain
from tests.builders import CLUSTER, EPOCH, World, begin, commit_entry
from tests.evidence import RESTORED, record
from tests.reports.history import LAST, standing

if TYPE_CHECKING:
    from datetime import datetime

    from drkit.model.evidence import Record

SECONDS = timedelta(seconds=75)


def dated(
    world: World, began: datetime, *, label: str | None = None, **changes: object
) -> None:
    """Append a record of a drill that says when it began, and what it restored."""

    def build(sequence: int, previous: str) -> Record:
        restored = replace(RESTORED, label=label) if label else None
        made = replace(record(sequence, previous), restored=restored)
        times = {"started": began, "finished": began + SECONDS}
        return replace(made, **times | changes)  # type: ignore[arg-type]

    append(world.repository(), build)


def backed_up(world: World) -> str:
    repository = world.repository()
    begun = begin(repository)
    repository.log.append(lambda _: commit_entry(begun))
    return begun.label


def misdated(world: World) -> list[int]:
    return [one.sequence for one in read_chain(world.repository()).misdated]


def test_a_drill_is_not_older_than_what_it_restored() -> None:
    """Dated 70 days back, it would fill the gap in the quarter before."""
    world = World()
    world.repository()
    world.clock.jump(days=100)
    label = backed_up(world)
    world.clock.jump(minutes=5)
    dated(world, world.clock.now() - timedelta(days=70), label=label)
    chain = read_chain(world.repository())
    assert chain.problems == ()
    assert misdated(world) == [0]
    assert f"restored backup {label}, which was committed at" in chain.misdated[0].why
    with pytest.raises(Corrupt, match="restored backup"):
        read_all(world.repository())
    damage = check_evidence(world.repository())
    assert damage is not None
    assert label in damage.what


def test_a_record_does_not_slip_in_front_of_what_stands_before_it() -> None:
    """Of an old backup, so that its date alone would pass."""
    world = World()
    label = backed_up(world)
    world.clock.jump(days=60)
    dated(world, world.clock.now(), label=label)
    world.clock.jump(days=1)
    dated(world, EPOCH + timedelta(days=10), label=label)
    assert misdated(world) == [1]


@pytest.mark.parametrize("days", [-400, 400])
def test_a_record_is_not_of_before_the_cluster_or_of_the_future(days: int) -> None:
    world = World()
    label = backed_up(world)
    dated(world, world.clock.now() + timedelta(days=days), label=label)
    assert misdated(world) == [0]


def test_a_record_does_not_end_before_it_begins() -> None:
    world = World()
    dated(world, world.clock.now(), finished=world.clock.now() - timedelta(seconds=1))
    assert misdated(world) == [0]


def test_no_quarter_counts_it_and_the_report_says_so() -> None:
    world = World()
    world.clock.time = LAST.begin
    world.repository()
    world.clock.time = LAST.end + timedelta(days=5)
    label = backed_up(world)
    dated(world, LAST.end - timedelta(days=40), label=label)
    dated(world, world.clock.now(), label=label)
    world.clock.jump(days=100)
    rules = standing(CLUSTER, LAST.end).rules
    earlier = gather_evidence(world.repository(), rules, LAST)
    assert [one.sequence for one in earlier.records] == [1]
    assert earlier.standing.chain.records == 0
    assert "record 0 is not of the time" in earlier.standing.chain.problems[0]
    later = Quarter.of(LAST.end + timedelta(days=120))
    told = gather_evidence(world.repository(), rules, later).standing.chain
    assert told.sound
    assert told.records == 2


def test_clocks_that_differ_are_no_forgery() -> None:
    """Hosts that are half an hour apart, and one that was a year ahead for a run."""
    world = World()
    for minutes in (0, 30, -25, 5):
        world.clock.time = EPOCH + timedelta(hours=1, minutes=minutes)
        label = backed_up(world)
        dated(world, world.clock.now(), label=label)
    world.clock.time = EPOCH + timedelta(days=366)
    dated(world, world.clock.now(), label=label)
    world.clock.time = EPOCH + timedelta(days=2)
    dated(world, world.clock.now(), label=label)
    assert misdated(world) == []
