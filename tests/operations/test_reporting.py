"""Gathering a report's evidence from a repository."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from drkit.errors import UsageError
from drkit.model.evidence import RecordKind
from drkit.model.log import Pin, Proven
from drkit.model.quarter import Quarter
from drkit.operations.reporting import gather_evidence
from drkit.reports.as_json import json_text
from drkit.reports.quarter import drill_report
from drkit.reports.report import Status
from drkit.repository.evidence import append
from tests.builders import CLUSTER, SYSTEM, World, begin, commit_entry, replace_object
from tests.reports.history import LAST, history, standing

if TYPE_CHECKING:
    from drkit.model.evidence import Record
    from drkit.repository.repository import Repository

RULES = standing(CLUSTER, LAST.end).rules
SHORT = sorted(
    (one for one in history(CLUSTER).records if one.started > LAST.back(1).begin),
    key=lambda one: one.finished,
)


def store(repository: Repository, record: Record) -> None:
    def build(sequence: int, previous: str) -> Record:
        place = replace(record, sequence=sequence, previous=previous)
        return replace(place, system_identifier=SYSTEM)

    append(repository, build)


@pytest.fixture
def world() -> World:
    """A world with two quarters of records, the clock behind the second."""
    world = World()
    world.clock.time = LAST.back(1).begin
    repository = world.repository()
    for record in SHORT:
        world.clock.time = max(record.finished, world.clock.time)
        store(repository, record)
    world.clock.time = LAST.end + timedelta(days=2)
    return world


def back_up(repository: Repository) -> str:
    begun = begin(repository)
    repository.log.append(lambda _: commit_entry(begun))
    return begun.label


def test_records_and_chain(world: World) -> None:
    found = gather_evidence(world.repository(), RULES, LAST)
    assert len(found.records) == len(SHORT)
    assert [one.started for one in found.records] == [one.started for one in SHORT]
    chain = found.standing.chain
    assert chain.sound
    assert chain.head == found.digests[len(SHORT) - 1]
    assert chain.records == len(SHORT)
    assert chain.signers == (f"ed25519:{world.keys.signer.public.hex()}",)
    report = drill_report([found], LAST, "0.1.0")
    assert report.status is Status.ATTENTION
    assert report.clusters[0].rto.worst == 1103.4


def test_backups_pins_and_proofs_are_those_of_the_quarters_end(world: World) -> None:
    repository = world.repository()
    world.clock.time = LAST.end - timedelta(days=3)
    inside = back_up(repository)
    proven = Proven(inside, world.clock.now(), "ab" * 32)
    repository.log.append(lambda _: Pin(inside, "audit", None))
    world.clock.time = LAST.end + timedelta(days=1)
    after = back_up(repository)
    repository.log.append(lambda _: proven)
    found = gather_evidence(world.repository(), RULES, LAST).standing
    assert [one.label for one in found.backups] == [inside]
    assert found.pinned == {inside}
    assert found.proven == {}
    assert found.as_of == LAST.end
    later = gather_evidence(world.repository(), RULES, Quarter(2026, 2)).standing
    assert [one.label for one in later.backups] == [inside, after]
    assert set(later.proven) == {inside}
    assert later.as_of == world.clock.now()


def test_a_past_quarters_report_stays_the_same(world: World) -> None:
    before = gather_evidence(world.repository(), RULES, LAST)
    repository = world.repository()
    world.clock.time = LAST.end + timedelta(days=40)
    drill = next(one for one in SHORT if one.kind is RecordKind.DRILL)
    now = world.clock.now()
    store(repository, replace(drill, started=now, finished=now))
    back_up(repository)
    after = gather_evidence(world.repository(host="host-b"), RULES, LAST)
    assert len(after.records) == len(before.records) + 1
    first, second = (drill_report([one], LAST, "0.1.0") for one in (before, after))
    assert json_text(first) == json_text(second)


def test_what_is_wrong_with_the_chain_is_told(world: World) -> None:
    repository = world.repository()
    name = repository.layout.evidence_record(3)
    world.storage.delete(name)
    found = gather_evidence(world.repository(), RULES, LAST)
    assert found.standing.chain.problems == (f"record {name} is missing",)
    assert 3 not in found.digests
    report = drill_report([found], LAST, "0.1.0")
    assert report.status is Status.BROKEN
    assert f"record {name} is missing" in report.summary[0]


def test_a_record_that_was_changed_is_not_told_of(world: World) -> None:
    repository = world.repository()
    name = repository.layout.evidence_record(4)
    data = bytearray(world.storage.get(name))
    data[200] ^= 1
    replace_object(world.storage, name, bytes(data))
    found = gather_evidence(world.repository(), RULES, LAST)
    assert len(found.records) == len(SHORT) - 1
    assert 4 not in found.digests
    assert not found.standing.chain.sound


def test_a_cluster_without_evidence() -> None:
    world = World()
    world.clock.time = LAST.end
    found = gather_evidence(world.repository(), RULES, LAST)
    assert found.records == ()
    assert (found.standing.chain.records, found.standing.chain.head) == (0, "")
    assert drill_report([found], LAST, "0.1.0").status is Status.UNPROVEN


def test_a_quarter_that_has_not_begun_is_refused(world: World) -> None:
    with pytest.raises(UsageError, match="2026-Q3 has not begun"):
        gather_evidence(world.repository(), RULES, Quarter(2026, 3))
