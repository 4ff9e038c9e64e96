"""Drills and verifications by restoring: played for real, recorded, never harmful."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from drkit.model.evidence import CheckState, Outcome, Record, RecordKind
from drkit.model.log import Proven
from drkit.operations.drills.registry import SCENARIOS, next_scenario
from drkit.repository.evidence import read_all
from tests import evidence
from tests.cli.test_json_output import agree
from tests.operations.scene import drkit, rehearsing, scratch_directory
from tests.protect import NAME

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.operations.scene import Said, Scene
    from tests.protect import Protected

RECOVERY = ["plan", "fetch", "start", "replay", "promote", "ready", "checks"]
BOUNDS = (pytest.param(15, marks=pytest.mark.long), 18)


class Kept(NamedTuple):
    """What must be as it was after a drill: names and sizes of what is stored."""

    stored: dict[str, int]
    data_files: set[str]

    @classmethod
    def of(cls, protected: Protected) -> Kept:
        root = protected.repository_root
        stored = {
            str(path.relative_to(root)): path.stat().st_size
            for path in root.rglob("*")
            if path.is_file() and not {"log", "evidence"} & set(path.parts)
        }
        data = Path(protected.cluster.data_directory)
        return cls(stored, {str(path.relative_to(data)) for path in data.glob("*")})


@pytest.fixture(scope="module", params=BOUNDS)
def protected(scene: Scene, request: pytest.FixtureRequest) -> Protected:
    """A cluster with two backups, a few commits behind each, and a heartbeat."""
    made = rehearsing(scene.protect(request.param))
    scene.directories.append(scratch_directory(made))
    cluster = made.cluster
    cluster.sql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS i")
    made.json("heartbeat", NAME, "--create")
    for _ in range(2):
        made.backup()
        for number in range(3):
            cluster.sql(f"INSERT INTO t VALUES ({number})")
            made.archive_now()
        made.json("heartbeat", NAME)
        made.archive_now()
    return made


def run(protected: Protected, *words: str, code: int = 0) -> Record:
    """Run a command that makes a record, and return the newest one."""
    said: Said = drkit(protected, *words, "--output", "json")
    assert said.code == code, said.err + said.out
    told = json.loads(said.out)
    if words[0] == "drill":
        agree("drill run", told)
    newest = read_all(protected.repository())[-1]
    assert told["record"]["sequence"] == newest.sequence
    assert not list(scratch_directory(protected).glob("*"))
    return newest


def newest_entry(protected: Protected) -> object:
    repository = protected.repository()
    repository.log.read()
    return repository.log.entries[-1].entry


def check_states(record: Record) -> dict[str, CheckState]:
    return {check.name: check.state for check in record.checks}


def phases(record: Record) -> list[str]:
    return [phase.name for phase in record.phases]


def assert_sound(record: Record) -> None:
    assert record.outcome is Outcome.MET, record
    assert record.failure == ""
    failed = [one for one in record.checks if one.state is CheckState.FAILED]
    assert failed == []
    assert record.cleanup is not None
    assert record.cleanup.proven
    assert record.restored is not None
    assert record.restored.reached_lsn is not None
    ends = [phase.begin + phase.seconds for phase in record.phases]
    begins = [phase.begin for phase in record.phases[1:]]
    assert all(begin >= end - 0.001 for end, begin in zip(ends, begins, strict=False))


def test_host_loss_brings_back_everything(protected: Protected) -> None:
    before = Kept.of(protected)
    record = run(protected, "drill", "run", NAME, "--scenario", "host-loss")
    assert_sound(record)
    assert phases(record) == ["detect", "decide", *RECOVERY]
    assert record.rto is not None
    spent = sum(one.seconds for one in record.phases if one.name != "checks")
    assert record.rto.measured == pytest.approx(spent)
    assert record.rpo is not None
    assert record.rpo.measured is not None
    assert "heartbeat" in record.rpo.meaning
    assert check_states(record)["wal"] is CheckState.PASSED
    assert Kept.of(protected) == before
    newest = newest_entry(protected)
    assert isinstance(newest, Proven)
    assert record.restored is not None
    assert newest.label == record.restored.label


def test_operator_error_stops_before_the_statement(protected: Protected) -> None:
    before = Kept.of(protected)
    record = run(protected, "drill", "run", NAME, "--scenario", "operator-error")
    assert_sound(record)
    states = check_states(record)
    assert states["undone"] is CheckState.PASSED
    assert states["kept"] is CheckState.PASSED
    assert record.restored is not None
    assert record.restored.target.endswith("(exclusive)")
    assert Kept.of(protected) == before


def test_corruption_falls_back(protected: Protected) -> None:
    before = Kept.of(protected)
    older, newest = protected.labels()
    record = run(protected, "drill", "run", NAME, "--scenario", "corruption")
    assert_sound(record)
    assert record.restored is not None
    assert record.restored.label == older
    assert any("was refused" in note for note in record.notes)
    assert Kept.of(protected) == before
    # the damage was seen by that run alone
    assert drkit(protected, "verify", NAME, newest).code == 0


def test_partial_loss_saves_what_is_left(protected: Protected) -> None:
    before = Kept.of(protected)
    scenario = "repository-loss-partial"
    record = run(protected, "drill", "run", NAME, "--scenario", scenario)
    assert_sound(record)
    assert record.restored is not None
    assert "lsn" in record.restored.target or "immediate" in record.restored.target
    assert any("are gone" in note for note in record.notes)
    assert Kept.of(protected) == before
    assert drkit(protected, "verify", NAME, "--depth", "objects").code == 0


def test_verifications_take_their_turns(protected: Protected) -> None:
    count = sum(
        one.kind is RecordKind.VERIFICATION for one in read_all(protected.repository())
    )
    assert count == 0, "the turns are counted from the first"
    chosen = []
    for _ in range(4):
        record = run(protected, "verify", NAME, "--depth", "restore")
        assert_sound(record)
        assert record.kind is RecordKind.VERIFICATION
        chosen.append(record.chosen)
    assert chosen == ["latest", "random backup", "random moment", "latest"]


def test_a_named_backup_is_verified_at_its_fingerprint(protected: Protected) -> None:
    label = protected.labels()[0]
    record = run(protected, "verify", NAME, label, "--depth", "restore")
    assert_sound(record)
    assert record.restored is not None
    assert record.restored.label == label
    states = check_states(record)
    assert states["fingerprint: tables"] is CheckState.PASSED


def test_a_missed_objective_is_told_by_its_code(protected: Protected) -> None:
    def impatient(policy: dict[str, Any]) -> None:
        policy["objectives"]["rpo"] = "1 second"

    before = protected.policy_path.read_text()
    protected.change_policy(impatient)
    time.sleep(1)  # so that the heartbeat is older, whatever ran before
    try:
        words = ("drill", "run", NAME, "--scenario", "host-loss")
        record = run(protected, *words, code=3)
    finally:
        protected.policy_path.write_text(before)
    assert record.outcome is Outcome.MISSED
    assert record.rpo is not None
    assert record.rpo.missed


def test_the_time_limit_ends_a_run_and_is_recorded(protected: Protected) -> None:
    def hasty(policy: dict[str, Any]) -> None:
        policy["verification"]["time_limit"] = "1 second"

    before = protected.policy_path.read_text()
    protected.change_policy(hasty)
    try:
        record = run_anywhere(
            protected, "verify", NAME, "--depth", "restore", code=None
        )
    finally:
        protected.policy_path.write_text(before)
    assert record.outcome is Outcome.FAILED
    told = " ".join([record.failure, *(one.detail for one in record.checks)])
    assert re.search("time limit|did not recover within", told)
    assert record.cleanup is not None
    assert record.cleanup.proven


def test_a_failed_assertion_fails_the_verification(protected: Protected) -> None:
    def wrong(policy: dict[str, Any]) -> None:
        policy["verification"]["assertions"] = [
            {"name": "many rows", "sql": "SELECT count(*) FROM t", "at_least": 10**9}
        ]

    before = protected.policy_path.read_text()
    protected.change_policy(wrong)
    try:
        label = protected.labels()[0]
        record = run(protected, "verify", NAME, label, "--depth", "restore", code=28)
    finally:
        protected.policy_path.write_text(before)
    assert record.outcome is Outcome.FAILED
    assert check_states(record)["assertion: many rows"] is CheckState.FAILED
    assert not isinstance(newest_entry(protected), Proven)


def test_every_scenario_gets_its_turn() -> None:
    records: list[Record] = []
    seen = []
    for sequence in range(len(SCENARIOS) * 2):
        name = next_scenario(records)
        seen.append(name)
        records.append(replace(evidence.record(sequence), scenario=name))
    assert seen == list(SCENARIOS) * 2


@pytest.mark.parametrize("words", [("drill", "run"), ("verify", "--depth", "restore")])
def test_without_a_backup_there_is_nothing_to_rehearse(
    make_protected: Callable[..., Protected], words: tuple[str, ...]
) -> None:
    protected = rehearsing(make_protected(18))
    said = drkit(protected, *words, NAME)
    assert said.code == 14
    assert "take one: drkit backup" in said.err


def test_a_lost_segment_is_found_at_its_check(
    make_protected: Callable[..., Protected],
) -> None:
    protected = rehearsing(make_protected(18))
    protected.backup()
    names = []
    for number in range(4):
        protected.cluster.sql(f"CREATE TABLE t{number} ()")
        names.append(protected.archive_now())
    (lost,) = (protected.repository_root / NAME / "wal").rglob(names[2])
    lost.unlink()
    record = run_anywhere(protected, "drill", "run", NAME, "--scenario", "host-loss")
    assert record.outcome is Outcome.FAILED
    states = check_states(record)
    assert states["wal"] is CheckState.FAILED
    failed = {name for name, state in states.items() if state is CheckState.FAILED}
    assert failed == {"wal"}


def test_one_damaged_backup_alone_can_not_be_fallen_back_from(
    make_protected: Callable[..., Protected],
) -> None:
    protected = rehearsing(make_protected(18))
    protected.backup()
    record = run_anywhere(
        protected, "drill", "run", NAME, "--scenario", "corruption", code=14
    )
    assert record.outcome is Outcome.FAILED
    assert "no backup is left" in record.failure
    assert record.cleanup is not None
    assert record.cleanup.proven


def run_anywhere(protected: Protected, *words: str, code: int | None = 28) -> Record:
    said = drkit(protected, *words, "--output", "json")
    assert said.code == code or (code is None and said.code), said.err + said.out
    return read_all(protected.repository())[-1]


def test_what_can_not_be_recorded_is_not_begun(
    make_protected: Callable[..., Protected],
) -> None:
    protected = rehearsing(make_protected(18))
    protected.backup()
    key = protected.home / "keys" / "signing.key"
    away = key.rename(key.with_suffix(".away"))
    said = drkit(protected, "drill", "run", NAME, "--scenario", "host-loss")
    assert said.code == 13
    assert "phase=fetch" not in said.err
    assert not list(scratch_directory(protected).glob("*"))
    away.rename(key)
    assert read_all(protected.repository()) == []


def test_there_is_no_such_scenario(
    make_protected: Callable[..., Protected],
) -> None:
    said = drkit(
        rehearsing(make_protected(18)), "drill", "run", NAME, "--scenario", "flood"
    )
    assert said.code == 2
    assert "host-loss" in said.err
