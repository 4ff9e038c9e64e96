"""Records of evidence for tests, and a world that has some.

world = recorded(4)                    # a repository with four records
record(3, previous, label="…")         # one by itself, every field filled
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from drkit.model.evidence import (
    Action,
    Actor,
    Check,
    CheckState,
    Cleanup,
    Forecast,
    Measure,
    Outcome,
    Phase,
    Record,
    RecordKind,
    Restored,
)
from drkit.repository.evidence import append
from tests.builders import CLUSTER, EPOCH, SYSTEM, World

if TYPE_CHECKING:
    from drkit.protocols import Storage
    from drkit.repository.evidence import Place
    from drkit.repository.repository import Repository

NOTHING = "0" * 64
FULL, INCREMENTAL = "20260115-103000-full", "20260115-113000-incr"
RESTORED = Restored(
    label=INCREMENTAL,
    chain=(FULL, INCREMENTAL),
    manifests=("ab" * 32, "cd" * 32),
    key_ids=("12" * 16,),
    start_lsn="0/2000028",
    stop_lsn="0/2000128",
    target="time 2026-01-15 10:30:00+00",
    reached_lsn="0/3000060",
    reached_time=EPOCH,
    timeline=2,
    wal_segments=3,
    bytes=1 << 30,
    fetched_bytes=1 << 28,
)
ACTOR = Actor("0.1.0", "3.11.2", "18.1", "host-a", "Linux 6.18", "ef" * 32)
ACTION = Action(1, "more jobs", "Mira Okafor", "2026-02-15", "open", 0, "soon")


def record(
    sequence: int = 0,
    previous: str = NOTHING,
    *,
    kind: RecordKind = RecordKind.DRILL,
    outcome: Outcome = Outcome.MISSED,
    cluster: str = CLUSTER,
) -> Record:
    """A drill whose every field is filled, or a verification."""
    return Record(
        kind=kind,
        sequence=sequence,
        previous=previous,
        cluster=cluster,
        system_identifier=SYSTEM,
        started=EPOCH + timedelta(minutes=sequence),
        finished=EPOCH + timedelta(minutes=sequence, seconds=75.25),
        outcome=outcome,
        scenario="host-loss" if kind is RecordKind.DRILL else "",
        chosen="random backup, seed 7",
        restored=RESTORED,
        actor=ACTOR,
        phases=(Phase("fetch", 0.0, 12.5), Phase("replay", 12.5, 62.75)),
        rto=Measure(60.0, 75.25, "from detect to ready"),
        rpo=Measure(300.0, None, "there was no heartbeat"),
        checks=(Check("rows", CheckState.PASSED, "12 of 12", 1.5, 12),),
        deviations=("shared_preload_libraries is empty", "caf\udce9"),
        forecast=Forecast(70.0, 9.5),
        cleanup=Cleanup("/var/tmp/drkit", 1 << 30, True, "looked at it"),
        failure="the objective was missed",
        action=None,
        notes=("a note",),
    )


def bare(sequence: int, previous: str, failure: str = "no backup") -> Record:
    """A verification that came to nothing, so that most fields are empty."""
    return Record(
        kind=RecordKind.VERIFICATION,
        sequence=sequence,
        previous=previous,
        cluster=CLUSTER,
        system_identifier=SYSTEM,
        started=EPOCH,
        finished=EPOCH,
        outcome=Outcome.FAILED,
        failure=failure,
    )


def add(repository: Repository, count: int = 1) -> list[Place]:
    """Append drills."""
    return [append(repository, record) for _ in range(count)]


def recorded(count: int, storage: Storage | None = None) -> World:
    """A world with some records."""
    world = World() if storage is None else World(storage)
    add(world.repository(), count)
    return world


def name_of(sequence: int) -> str:
    """Return a record's object name."""
    return f"{CLUSTER}/evidence/{sequence:010d}"
