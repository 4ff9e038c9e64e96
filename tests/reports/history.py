"""Three years of a cluster's evidence, as drills and verifications would leave it.

evidence = history()                    # `production`, 2023-Q2 to 2026-Q1
evidence = history("billing", seed=2)   # another one, with other figures

The last quarter has a failed drill, a missed objective, a verification that could not
measure, a gap of weeks, an action that is overdue and one that is done. The same
arguments give the same records.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from drkit.model.backup import BackupSummary
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
from drkit.model.label import BackupKind
from drkit.model.lsn import Lsn
from drkit.model.objectives import Objectives
from drkit.model.quarter import Quarter
from drkit.model.retention import Retention
from drkit.model.schedule import Schedule
from drkit.model.standing import ChainState, ClusterEvidence, Rules, Standing

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

LAST = Quarter(2026, 1)
QUARTERS = 12
SCENARIOS = ("host-loss", "operator-error", "corruption", "repository-loss-partial")
RTO, RPO = 900.0, 300.0
SYSTEM = "7412345678901234567"
POLICY_DIGEST = hashlib.sha256(b"policy").hexdigest()
_GIB = 1 << 30
_SHARES = (
    ("detect", 0.01),
    ("decide", 0.01),
    ("plan", 0.01),
    ("fetch", 0.53),
    ("start", 0.02),
    ("replay", 0.3),
    ("promote", 0.02),
    ("checks", 0.09),
    ("ready", 0.01),
)


def phases(rto: float) -> tuple[Phase, ...]:
    """The phases of a restore that took `rto` seconds, one after another."""
    found, begin = [], 0.0
    for name, share in _SHARES:
        found.append(Phase(name, round(begin, 3), round(rto * share, 3)))
        begin += rto * share
    return tuple(found)


def checks(failed: str = "") -> tuple[Check, ...]:
    """What is checked of a restored cluster; `failed` names one that fails."""
    details = {
        "pages": ("1,310,720 pages have the right checksum", 1_310_720),
        "rows": ("every row of 212 tables was read", 212),
        "fingerprint: tables": ("212 tables are as they were backed up", 212),
        "fingerprint: roles": ("17 roles are as they were backed up", 17),
        "assertions": ("4 of the policy's assertions hold", 4),
    }
    found = [
        Check(name, CheckState.PASSED, detail, 2.5, compared)
        for name, (detail, compared) in details.items()
    ]
    found.append(Check("amcheck", CheckState.NOT_DONE, "pg_amcheck is not there", 0.0))
    lost = "3 rows of public.orders are missing"
    return tuple(
        replace(one, state=CheckState.FAILED, detail=lost)
        if one.name == failed
        else one
        for one in found
    )


def restored(label: str, size: int, at: datetime) -> Restored:
    """What was restored of a backup of so many bytes."""
    return Restored(
        label=label,
        chain=(label,),
        manifests=(hashlib.sha256(label.encode()).hexdigest(),),
        key_ids=("ab" * 16, "cd" * 16),
        start_lsn="16/2000028",
        stop_lsn="16/2B374D8",
        target=f"time {at.isoformat(sep=' ')}",
        reached_lsn="16/B374D848",
        reached_time=at,
        timeline=3,
        wal_segments=118,
        bytes=size,
        fetched_bytes=size // 4,
    )


ACTOR = Actor("0.1.0", "3.11.7", "18.1", "drill-1", "Linux 6.12 x86_64", POLICY_DIGEST)
CLEANUP = Cleanup("/var/tmp/drkit-scratch", 12 * _GIB, proven=True)


@dataclass
class Writer:
    """Puts records into a chain, in order."""

    cluster: str
    chance: random.Random
    records: list[Record] = field(default_factory=list)

    def add(self, record: Record) -> int:
        """Give a record its place; return its sequence."""
        sequence = len(self.records)
        before = repr(self.records[-1]).encode() if self.records else b""
        previous = hashlib.sha256(before).hexdigest() if before else "0" * 64
        self.records.append(replace(record, sequence=sequence, previous=previous))
        return sequence

    def exercise(self, at: datetime, size: int, scenario: str = "") -> Record:
        """A restore that went well."""
        rto = round((60 + size / _GIB * 9) * self.chance.uniform(0.92, 1.12), 3)
        rpo = round(self.chance.uniform(4, 55), 3)
        label = f"{at - timedelta(hours=8):%Y%m%d-%H%M%S}-full"
        return Record(
            kind=RecordKind.DRILL if scenario else RecordKind.VERIFICATION,
            sequence=0,
            previous="",
            cluster=self.cluster,
            system_identifier=SYSTEM,
            started=at,
            finished=at + timedelta(seconds=rto + 30),
            outcome=Outcome.MET,
            scenario=scenario,
            chosen="newest backup, newest moment" if scenario else "random backup",
            restored=restored(label, size, at - timedelta(seconds=rpo)),
            actor=ACTOR,
            phases=phases(rto),
            rto=Measure(RTO, rto, "from the start of the plan to the first answer"),
            rpo=Measure(RPO, rpo, "age of the newest heartbeat row that came back"),
            checks=checks(),
            deviations=("shared_preload_libraries was left out: pg_cron",),
            forecast=Forecast(rto * 0.96, rto * 0.1),
            cleanup=CLEANUP,
        )

    def action(self, at: datetime, action: Action) -> None:
        """Record a corrective action, or what became of it."""
        self.add(
            Record(
                kind=RecordKind.ACTION,
                sequence=0,
                previous="",
                cluster=self.cluster,
                system_identifier=SYSTEM,
                started=at,
                finished=at,
                outcome=Outcome.MET,
                action=action,
            )
        )


def history(
    cluster: str = "production",
    *,
    seed: int = 1,
    troubled: bool = True,
    as_of: datetime = datetime(2026, 4, 2, 9, 0, tzinfo=UTC),
    verification: str | None = "sunday at 04:00",
) -> ClusterEvidence:
    """A cluster's evidence up to the end of 2026-Q1.

    Args:
        cluster: its name.
        seed: of the figures.
        troubled: whether the last quarter has failures, misses and gaps.
        as_of: when it is looked at.
        verification: the schedule in force.
    """
    writer = Writer(cluster, random.Random(seed))
    for number in range(QUARTERS - 1):
        _calm(writer, LAST.back(QUARTERS - 1 - number), number)
    if troubled:
        _troubled(writer)
    else:
        _calm(writer, LAST, QUARTERS - 1)
    found = standing(cluster, as_of, tuple(writer.records), verification)
    return evidence_of(found, writer.records)


def evidence_of(standing: Standing, records: Sequence[Record] = ()) -> ClusterEvidence:
    """A cluster's evidence; digests are of the records' looks."""
    digests = {
        one.sequence: hashlib.sha256(repr(one).encode()).hexdigest() for one in records
    }
    return ClusterEvidence(standing, tuple(records), digests)


def _size(number: float) -> int:
    return int((12 + 5.5 * number) * _GIB)


def _sundays(quarter: Quarter) -> Iterator[datetime]:
    day = quarter.begin + timedelta(days=(6 - quarter.begin.weekday()) % 7, hours=4)
    while day < quarter.end:
        yield day
        day += timedelta(days=7)


def _calm(writer: Writer, quarter: Quarter, number: int) -> None:
    """A quarter in which all goes well; the third of all has no exercise."""
    if number == 2:
        return
    for week, sunday in enumerate(_sundays(quarter)):
        size = _size(number + week / 13)
        writer.add(writer.exercise(sunday, size))
        if week == 8:
            scenario = SCENARIOS[number % len(SCENARIOS)]
            writer.add(writer.exercise(sunday + timedelta(days=3), size, scenario))
    if number == QUARTERS - 2:
        last = len(writer.records) - 1
        at = quarter.end - timedelta(days=9)
        text = "Fetch with 4 workers: the network was idle"
        opened = Action(1, text, "Mira Okafor", "2026-02-15", "open", last)
        writer.action(at, opened)
        text = "Write the runbook for a lost region"
        writer.action(at, Action(2, text, "Jan Kowalski", "2026-03-01", "open", last))


def _troubled(writer: Writer) -> None:
    """The last quarter: failures, a miss, a gap, actions."""
    size = _size(QUARTERS - 1)
    for week, sunday in enumerate(_sundays(LAST)):
        record = writer.exercise(sunday, size + week * _GIB // 4)
        if week == 2:
            measure = Measure(RPO, None, "production's heartbeat had stopped")
            record = replace(record, rpo=measure, outcome=Outcome.MISSED)
        if week not in (5, 6, 7):  # the scratch host was away
            writer.add(record)
        if week == 3:
            _failed_drill(writer, sunday + timedelta(days=2), size)
        if week == 9:
            _slow_drill(writer, sunday + timedelta(days=3, hours=6), size)
    at = LAST.begin + timedelta(days=40)
    text = "Fetch with 4 workers: the network was idle"
    done = Action(1, text, "Mira Okafor", "2026-02-15", "done", None, "backup.jobs: 4")
    writer.action(at, done)


def _failed_drill(writer: Writer, at: datetime, size: int) -> None:
    record = writer.exercise(at, size, "operator-error")
    follows = writer.add(
        replace(
            record,
            outcome=Outcome.FAILED,
            checks=checks(failed="fingerprint: tables"),
            failure="the restored cluster is not what was backed up",
        )
    )
    text = "Find out why 3 orders were missing; repeat the drill"
    action = Action(3, text, "Mira Okafor", "2026-02-20", "open", follows)
    writer.action(at + timedelta(hours=5), action)
    done = replace(action, state="done", note="a replica lag alarm was missing")
    writer.action(at + timedelta(days=12), done)


def _slow_drill(writer: Writer, at: datetime, size: int) -> None:
    record = writer.exercise(at, size, "host-loss")
    rto = 1103.4
    writer.add(
        replace(
            record,
            outcome=Outcome.MISSED,
            finished=at + timedelta(seconds=rto + 30),
            phases=phases(rto),
            rto=replace(record.rto, measured=rto),  # type: ignore[type-var]
        )
    )


def standing(
    cluster: str,
    as_of: datetime,
    records: tuple[Record, ...] = (),
    verification: str | None = "sunday at 04:00",
) -> Standing:
    """A cluster's rules and backups."""
    backups = tuple(_backup(as_of - timedelta(days=7 * age)) for age in (3, 2, 1))
    rules = Rules(
        objectives=Objectives(timedelta(seconds=RTO), timedelta(seconds=RPO)),
        retention=Retention(full=4, window=timedelta(days=30), monthly=12),
        backups={
            "full": Schedule.parse("sunday at 02:00"),
            "incremental": Schedule.parse("hourly"),
        },
        verification=None if verification is None else Schedule.parse(verification),
        timezone="UTC",
        configuration=POLICY_DIGEST,
        trusted=("ed25519:" + "0123456789abcdef" * 4,),
    )
    return Standing(
        cluster=cluster,
        system_identifier=SYSTEM,
        repository="s3://example-backups/drkit",
        as_of=as_of,
        rules=rules,
        backups=backups,
        proven={backups[0].label: backups[0].stop_time},
        pinned=frozenset({backups[1].label}),
        chain=ChainState(
            len(records),
            hashlib.sha256(repr(records).encode()).hexdigest(),
            ("ed25519:" + "0123456789abcdef" * 4,) if records else (),
        ),
    )


def _backup(at: datetime) -> BackupSummary:
    return BackupSummary(
        label=f"{at:%Y%m%d-%H%M%S}-full",
        kind=BackupKind.FULL,
        source="local",
        start_lsn=Lsn(0x2000028),
        stop_lsn=Lsn(0x2000128),
        timeline=1,
        start_time=at,
        stop_time=at + timedelta(minutes=4),
        system_identifier=SYSTEM,
        server_version=180001,
        wal_segment_size=16 << 20,
        files=1500,
        bytes=70 * _GIB,
        stored_bytes=18 * _GIB,
        damaged_pages=0,
        warnings=0,
    )
