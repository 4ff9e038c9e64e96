"""Forecasts from evidence, as `info` and `restore --plan` show them."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from drkit.cli.outlook import outlook_json, outlook_text
from drkit.model.evidence import Measure, Outcome, Phase
from drkit.model.forecast import Amounts
from drkit.operations.forecasting import outlook
from drkit.repository.evidence import append, newest_records
from tests.builders import World
from tests.evidence import RESTORED, name_of, record
from tests.faults import FOREVER, FaultyStorage, unavailable
from tests.operations.scene import backup, drkit
from tests.protect import NAME

if TYPE_CHECKING:
    from pathlib import Path

    from drkit.model.evidence import Record
    from drkit.repository.repository import Repository
    from tests.operations.scene import Scene

WANTED = Amounts(RESTORED.bytes, RESTORED.fetched_bytes, RESTORED.wal_segments)


def timed(
    sequence: int, previous: str, *, of: Record | None = None, rto: float = 80.0
) -> Record:
    """A drill that took 12.5 s to fetch and 62.5 s to replay."""
    phases = (Phase("fetch", 0.0, 12.5), Phase("replay", 12.5, 62.5))
    made = of or record(sequence, previous)
    return replace(
        made,
        sequence=sequence,
        previous=previous,
        phases=phases,
        rto=Measure(None, rto, "timed"),
    )


def test_nothing_measured_says_what_measures() -> None:
    found = outlook(World().repository(), WANTED)
    assert (found.forecast, found.runs, outlook_json(found)) == (None, 0, None)
    assert "`drkit verify alpha --depth restore` does" in outlook_text(found, "alpha")


def test_it_says_how_many_restores_it_is_made_from() -> None:
    repository = World().repository()
    append(repository, timed)
    one = outlook(repository, WANTED)
    assert one.runs == 1
    assert "about 1 min 20 s ± 1 min 20 s" in outlook_text(one, "alpha")
    assert "by 1 restore" in outlook_text(one, "alpha")
    for _ in range(3):
        append(repository, timed)
    four = outlook(repository, WANTED)
    assert "about 1 min 20 s ± 20.0 s" in outlook_text(four, "alpha")
    assert "by 4 restores" in outlook_text(four, "alpha")
    assert outlook_json(four) == {"seconds": 80.0, "error": 20.0, "runs": 4}


def test_failures_and_what_was_not_timed_do_not_count() -> None:
    repository = World().repository()
    append(repository, timed)

    def failed(sequence: int, previous: str) -> Record:
        made = timed(sequence, previous)
        return replace(made, rto=None, outcome=Outcome.FAILED, failure="no space")

    append(repository, failed)
    assert outlook(repository, WANTED).runs == 1


def test_only_the_newest_records_are_read() -> None:
    world = World()
    for _ in range(6):
        append(world.repository(), record)
    found = newest_records(world.repository(), 3)
    assert [one.sequence for one in found] == [3, 4, 5]
    assert len(newest_records(world.repository(), 99)) == 6
    assert newest_records(World().repository(), 3) == []


def test_a_record_that_is_gone_or_another_stops_nobody() -> None:
    world = World()
    repository = world.repository()
    for _ in range(3):
        append(repository, timed)
    world.storage.delete(name_of(1))
    assert [one.sequence for one in newest_records(repository, 9)] == [0, 2]
    assert outlook(repository, WANTED).runs == 2


def test_evidence_that_cannot_be_read_is_told() -> None:
    world = World()
    append(world.repository(), timed)
    faulty = FaultyStorage(world.storage)
    faulty.fail("get", unavailable(), times=FOREVER, name=name_of(0))
    found = outlook(world.repository(storage=faulty), WANTED)
    assert found.forecast is None
    assert found.problem == "503 SlowDown"
    assert found.problem in outlook_text(found, "alpha")


# On a real cluster.


def facts(plan: str) -> dict[str, str]:
    lines = [line.strip().partition("  ") for line in plan.splitlines()]
    return {name: value.strip() for name, _, value in lines}


@pytest.fixture
def target(scene: Scene) -> Path:
    return scene.target()


def test_plan_and_info_show_it(scene: Scene, target: Path) -> None:
    protected = scene.protect(18)
    protected.change_policy(
        lambda policy: policy.update(objectives={"rto": "1 minute"})
    )
    backup(protected)
    words = ("restore", NAME, "--to", target, "--plan")
    before = drkit(protected, *words)
    assert before.code == 0, before.err
    assert "not measured yet" in facts(before.out)["takes"]
    info = drkit(protected, "info", NAME)
    assert "\nrto 1 min 00 s: a restore to the newest moment: how long" in info.out

    repository = protected.repository()
    planned = json.loads(drkit(protected, *words, "--output", "json").out)["plan"]
    assert planned["forecast"] is None
    _record_like(repository, planned, count=4)

    after = drkit(protected, *words)
    assert facts(after.out)["takes"].startswith("about 1 min 20 s ± 20.0 s until")
    planned = json.loads(drkit(protected, *words, "--output", "json").out)["plan"]
    assert planned["forecast"] == {"seconds": 80.0, "error": 20.0, "runs": 4}
    info = drkit(protected, "info", NAME)
    assert info.code == 0
    assert "\nAT RISK: rto 1 min 00 s: a restore to the newest moment: " in info.out
    (shown,) = json.loads(drkit(protected, "info", "--output", "json").out)["policies"]
    assert shown["rto_seconds"] == 60.0
    assert shown["forecast"]["runs"] == 4
    assert abs(shown["forecast"]["seconds"] - 80.0) < 20.0


def _record_like(repository: Repository, plan: dict[str, Any], count: int) -> None:
    """Append drills of just this restore."""
    opened = repository.log.state.opened or repository.log.read().opened
    assert opened is not None
    restored = replace(
        RESTORED,
        bytes=plan["write_bytes"],
        fetched_bytes=plan["fetch_bytes"],
        wal_segments=plan["wal"]["segments"],
    )
    drill = replace(
        record(cluster=NAME),
        restored=restored,
        system_identifier=opened.system_identifier,
        finished=record().started + timedelta(seconds=80),
    )
    for _ in range(count):
        append(repository, partial(timed, of=drill))
