"""Evidence that was dated back, cut short or signed by a stranger is not believed."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from drkit.crypto import dsse
from drkit.errors import Corrupt, KeyUnavailable
from drkit.model.evidence import Outcome
from drkit.model.quarter import Quarter
from drkit.operations.evidence import export_evidence, verify_files
from drkit.operations.reporting import gather_evidence
from drkit.operations.verifying.evidence import check_evidence
from drkit.repository.evidence import append, read_all, read_chain
from drkit.repository.report_attestation import (
    ClusterChain,
    ReportStatement,
    sign_report,
)
from tests.builders import (
    CLUSTER,
    EPOCH,
    SYSTEM,
    Keys,
    World,
    begin,
    commit_entry,
)
from tests.evidence import RESTORED, record
from tests.pg import run_drkit
from tests.reports.history import LAST, standing

if TYPE_CHECKING:
    from datetime import datetime

    from drkit.model.evidence import Record
    from drkit.operations.evidence import Verdicts

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
    damage, _ = check_evidence(world.repository())
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


# -- what was handed over


@pytest.fixture
def world() -> World:
    """Five drills; the newest ones failed."""
    world = World()
    for number in range(5):
        outcome = Outcome.FAILED if number > 2 else Outcome.MET
        dated(world, world.clock.now(), outcome=outcome)
        world.clock.jump(minutes=10)
    return world


def handed_over(world: World, directory: Path) -> list[str]:
    done = export_evidence(world.repository(), str(directory), None, every=True)
    return [one.path for one in done.files]


def report_of(world: World, directory: Path, keys: Keys | None = None) -> Path:
    """A report's only form, and beside it the signature."""
    chain = read_chain(world.repository())
    form = directory / "drill-report.md"
    form.write_text("all restores were proven")
    digest = hashlib.sha256(form.read_bytes()).hexdigest()
    chains = (ClusterChain(CLUSTER, SYSTEM, len(chain.records), chain.head),)
    statement = ReportStatement("2026-Q1", "0.1.0", {form.name: digest}, chains)
    path = directory / "drill-report.dsse.json"
    path.write_bytes(sign_report(statement, [(keys or world.keys).signer]))
    return path


def verdicts(world: World, paths: list[str], report: Path) -> Verdicts:
    return verify_files(paths, [world.keys.signer.public], (), str(report))


def test_all_that_the_report_was_made_of_is_there(world: World, tmp_path: Path) -> None:
    paths, report = handed_over(world, tmp_path), report_of(world, tmp_path)
    found = verdicts(world, paths, report)
    assert found.good
    assert found.report is not None
    assert found.report.checked == (str(tmp_path / "drill-report.md"),)
    dated(world, world.clock.now())  # later than the report
    assert verdicts(world, handed_over(world, tmp_path), report).good


@pytest.mark.parametrize("left", [slice(0, 3), slice(1, 5), slice(0, 0)])
def test_records_left_out_at_an_end_show(
    world: World, tmp_path: Path, left: slice
) -> None:
    """The failed newest ones, or the first: the rest is a chain without them."""
    paths, report = handed_over(world, tmp_path), report_of(world, tmp_path)
    assert verify_files(paths[left], [world.keys.signer.public]).good
    found = verdicts(world, paths[left], report)
    assert not found.good
    assert "the report counts 5 records" in found.problems[0]


def test_a_changed_report_shows(world: World, tmp_path: Path) -> None:
    paths, report = handed_over(world, tmp_path), report_of(world, tmp_path)
    (tmp_path / "drill-report.md").write_text("nothing ever failed")
    found = verdicts(world, paths, report)
    assert not found.good
    assert "was changed after the report was signed" in found.problems[0]


def test_a_report_of_a_stranger_is_not_believed(world: World, tmp_path: Path) -> None:
    paths = handed_over(world, tmp_path)
    report = report_of(world, tmp_path, keys=Keys())
    found = verdicts(world, paths[:2], report)
    assert not found.good
    assert found.report is not None
    assert "not signed by a key that is trusted" in found.report.problem
    for path in paths[0], report:
        forged = json.loads(Path(path).read_bytes())
        forged["payload"] = base64.b64encode(b"{}").decode()
        Path(path).write_text(json.dumps(forged))
    assert not verdicts(world, paths, report).good


def test_a_record_is_no_report(world: World, tmp_path: Path) -> None:
    paths = handed_over(world, tmp_path)
    found = verdicts(world, paths, Path(paths[0]))
    assert not found.good
    assert found.report is not None
    assert "no signature of a report" in found.report.problem


def test_a_chain_of_more_records_than_memory_holds(
    world: World, tmp_path: Path
) -> None:
    chains = (ClusterChain(CLUSTER, SYSTEM, 1 << 60, "ab" * 32),)
    statement = ReportStatement("2026-Q1", "0.1.0", {}, chains)
    path = tmp_path / "report.dsse.json"
    path.write_bytes(sign_report(statement, [world.keys.signer]))
    found = verdicts(world, handed_over(world, tmp_path), path)
    assert f"{(1 << 60) - 5} of them were not handed over" in found.problems[0]


def test_a_stranger_who_signed_anew_is_not_exit_0(world: World, tmp_path: Path) -> None:
    paths = handed_over(world, tmp_path)
    stranger = Keys().signer
    for path in paths:
        envelope = json.loads(Path(path).read_bytes())
        payload = base64.b64decode(envelope["payload"])
        Path(path).write_bytes(dsse.sign(envelope["payloadType"], payload, stranger))
    one = run_drkit("drill", "verify", paths[0])
    assert one.returncode == KeyUnavailable.exit_code
    assert b"Nobody vouched" in one.stdout
