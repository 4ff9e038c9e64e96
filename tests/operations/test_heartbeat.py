"""Heartbeats: written by commands and backups, read back from what is restored."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drkit import wiring
from drkit.errors import NotProven, PostgresRefused
from drkit.model.evidence import CheckState
from drkit.model.finding import State
from drkit.model.lsn import Lsn
from drkit.operations.backup_heartbeat import beat_for_backup
from drkit.operations.check import check
from drkit.operations.heartbeat import read_beat
from drkit.operations.rpo import allowed_age, check_beat, measure_rpo
from drkit.postgres.connection import connect
from drkit.postgres.heartbeat import Beat
from drkit.sites.check import check_subject
from tests.operations.backup_tools import Listener
from tests.operations.scene import backup, drkit, rehearsing, restore
from tests.operations.test_backup_standby import make_pair, point_at
from tests.protect import NAME

if TYPE_CHECKING:
    from tests.operations.scene import Scene
    from tests.pg import Cluster
    from tests.protect import Protected

MINUTE = timedelta(minutes=1)
NOON = datetime(2026, 1, 15, 12, tzinfo=UTC)


def written(ago: timedelta) -> Beat:
    """A heartbeat so long before a disaster at noon."""
    return Beat(NOON - ago, Lsn(1), "host-a", "nonce")


# What its age says.


def test_the_figure_is_the_age_of_what_came_back() -> None:
    found = measure_rpo(written(42 * timedelta(seconds=1)), NOON, NOON, 60.0, MINUTE)
    assert (found.target, found.measured, found.missed) == (60.0, 42.0, False)
    assert "2026-01-15 11:59:18+00:00 by the server's clock" in found.meaning
    assert "writer" not in found.meaning
    check = check_beat(written(42 * timedelta(seconds=1)), NOON, MINUTE)
    assert check.state is CheckState.PASSED
    assert "one is due every 1 minute" in check.detail


def test_a_writer_that_had_stopped_is_told_by_later_commits() -> None:
    stale, commit = written(10 * MINUTE), NOON - MINUTE
    found = measure_rpo(stale, commit, NOON, 300.0, MINUTE)
    assert (found.measured, found.missed) == (600.0, True)
    assert "its writer had stopped" in found.meaning
    assert "no figure of what recovery lost" in found.meaning
    check = check_beat(stale, NOON, MINUTE, commit)
    assert check.state is CheckState.FAILED
    assert "11:59:00" in check.detail
    assert check_beat(stale, NOON, MINUTE).state is CheckState.FAILED


def test_what_archiving_had_not_stored_is_no_fault_of_the_writer() -> None:
    newest = written(10 * MINUTE)
    commit = newest.written_at + timedelta(seconds=30)
    found = measure_rpo(newest, commit, NOON, 300.0, MINUTE)
    assert (found.measured, found.missed) == (600.0, True)
    assert "it was up to date where recovery ended" in found.meaning
    assert check_beat(newest, NOON, MINUTE, commit).state is CheckState.PASSED


def test_where_nothing_else_was_committed_neither_can_be_told() -> None:
    newest = written(10 * MINUTE)
    commit = newest.written_at + timedelta(milliseconds=2)
    found = measure_rpo(newest, commit, NOON, None, MINUTE)
    assert "at most that old" in found.meaning
    check = check_beat(newest, NOON, MINUTE, commit)
    assert check.state is CheckState.NOT_DONE
    assert "at most that old" in check.detail


def test_without_a_heartbeat_the_last_commit_tells_and_says_what_it_means() -> None:
    found = measure_rpo(None, NOON - MINUTE, NOON, 300.0, MINUTE)
    assert found.measured == 60.0
    assert "an idle cluster makes this look worse than it is" in found.meaning
    check = check_beat(None, NOON, MINUTE, NOON - MINUTE)
    assert check.state is CheckState.NOT_DONE
    assert "--create" in check.detail


def test_without_either_nothing_is_measured_and_an_objective_is_missed() -> None:
    found = measure_rpo(None, None, NOON, 300.0, MINUTE)
    assert (found.measured, found.missed) == (None, True)
    assert "neither a heartbeat nor any commit" in found.meaning


@pytest.mark.parametrize("what", ["heartbeat", "commit"])
def test_one_from_after_the_disaster_measures_nothing(what: str) -> None:
    later = written(-MINUTE)
    newest = later if what == "heartbeat" else None
    found = measure_rpo(newest, later.written_at, NOON, None, MINUTE)
    assert found.measured is None
    assert f"{what} that came back is 1 minute later than the disaster" in found.meaning
    if newest is not None:
        assert check_beat(newest, NOON, MINUTE).state is CheckState.FAILED


def test_without_a_schedule_none_is_stale() -> None:
    assert check_beat(written(99 * MINUTE), NOON, None).state is CheckState.PASSED
    assert check_beat(written(-MINUTE), NOON, None).state is CheckState.FAILED


seconds = st.integers(0, 10**6).map(lambda count: timedelta(seconds=count))


@given(seconds, st.none() | seconds, seconds.filter(bool))
def test_the_figure_never_flatters(
    age: timedelta, commit: timedelta | None, every: timedelta
) -> None:
    newest = written(age)
    last = None if commit is None else newest.written_at + min(commit, age)
    found = measure_rpo(newest, last, NOON, None, every)
    assert found.measured == age.total_seconds()
    check = check_beat(newest, NOON, every, last)
    if age <= allowed_age(every):
        assert check.state is CheckState.PASSED
    elif last is None or last - newest.written_at > allowed_age(every):
        assert check.state is CheckState.FAILED
    assert (check.state is CheckState.FAILED) == (
        "had stopped, and" in found.meaning
    ) or (last is None)


# Commands and backups, on real servers.


MAJORS = [pytest.param(15, marks=pytest.mark.long), 18]


@pytest.fixture(scope="module", params=MAJORS, ids=lambda major: f"pg{major}")
def protected(request: pytest.FixtureRequest, scene: Scene) -> Protected:
    return scene.protect(request.param)


@pytest.fixture(autouse=True)
def tidy(request: pytest.FixtureRequest) -> None:
    if "protected" in request.fixturenames:
        found: Protected = request.getfixturevalue("protected")
        found.cluster.rows("DROP SCHEMA IF EXISTS drkit CASCADE")


def newest(cluster: Cluster, dbname: str = "postgres") -> Beat | None:
    url = cluster.url.replace("/postgres?", f"/{dbname}?")
    with connect(url, None, "test") as connection:
        return read_beat(connection)


def finding(protected: Protected) -> tuple[State, str, str | None]:
    subject = check_subject(protected.policy(), wiring.Secrets({}), MINUTE / 60)
    found = {one.name: one for one in check(subject, Listener())}["heartbeat"]
    return found.state, found.detail, found.hint


def test_the_command_makes_and_writes_it(protected: Protected) -> None:
    refused = drkit(protected, "heartbeat", NAME, "--log-format", "json")
    assert refused.code == PostgresRefused.exit_code
    assert "--create" in refused.error["hint"]
    made = drkit(protected, "heartbeat", NAME, "--create")
    assert made.code == 0, made.err
    assert "made the table drkit.heartbeat in database postgres\n" in made.out
    said = drkit(protected, "heartbeat", NAME, "--create", "--output", "json")
    shape = json.loads(said.out)
    found = newest(protected.cluster)
    assert found is not None
    assert shape["created"] is False
    assert shape["written_at"] == found.written_at.isoformat()
    assert (shape["lsn"], shape["host"]) == (str(found.lsn), wiring.host_name())


def test_it_may_be_in_another_database(protected: Protected) -> None:
    cluster = protected.cluster
    cluster.rows("CREATE DATABASE beating")
    before = protected.policy_path.read_text()
    try:
        protected.change_policy(
            lambda policy: policy.update(heartbeat={"database": "beating"})
        )
        made = drkit(protected, "heartbeat", NAME, "--create", "--output", "json")
        assert json.loads(made.out)["database"] == "beating"
        assert newest(cluster) is None
        first = newest(cluster, "beating")
        backup(protected)
        second = newest(cluster, "beating")
        assert first is not None
        assert second is not None
        assert first.lsn < second.lsn
        assert finding(protected)[0] is State.OK
    finally:
        protected.policy_path.write_text(before)
        cluster.rows("DROP DATABASE beating")


def test_every_backup_holds_one(protected: Protected, scene: Scene) -> None:
    drkit(protected, "heartbeat", NAME, "--create")
    first = newest(protected.cluster)
    backup(protected)
    second = newest(protected.cluster)
    assert first is not None
    assert second is not None
    assert first.written_at < second.written_at
    drkit(protected, "heartbeat", NAME)  # not in what is restored
    target = scene.target()
    restore(protected, target, "--target-immediate", "--target-action", "promote")
    restored = scene.start(target, protected.cluster.binaries.major)
    assert newest(restored) == second
    restored.stop()


def test_a_backup_makes_no_table(protected: Protected) -> None:
    backup(protected)
    assert newest(protected.cluster) is None


def test_a_backup_goes_on_without_it(protected: Protected) -> None:
    drkit(protected, "heartbeat", NAME, "--create")
    protected.cluster.rows("ALTER TABLE drkit.heartbeat DROP COLUMN nonce")
    said = drkit(protected, "backup", NAME, "--output", "json")
    assert said.code == 0, said.err
    assert "no heartbeat was written for the backup" in said.err


def test_check_tells_absent_fresh_and_stale_ones(protected: Protected) -> None:
    before = protected.policy_path.read_text()
    assert finding(protected)[0] is State.SKIPPED
    protected.change_policy(lambda policy: policy.update(objectives={"rpo": "1 hour"}))
    state, _, hint = finding(protected)
    assert state is State.WARNING
    assert "--create" in str(hint)
    drkit(protected, "heartbeat", NAME, "--create")
    assert finding(protected)[0] is State.OK
    protected.cluster.rows(
        "UPDATE drkit.heartbeat SET written_at = written_at - interval '10 minutes'"
    )
    state, detail, _ = finding(protected)
    assert state is State.WARNING
    assert detail.startswith("the newest is 10 minutes")
    assert "one is due every 1 minute" in detail
    protected.change_policy(lambda policy: policy.update(heartbeat={"every": "1 hour"}))
    assert finding(protected)[0] is State.OK
    protected.policy_path.write_text(before)


def test_a_standby_can_be_read_from_only(scene: Scene) -> None:
    pair = make_pair(scene, 18)
    point_at(pair.protected, pair.primary)
    drkit(pair.protected, "heartbeat", NAME, "--create")
    pair.catch_up()
    point_at(pair.protected, pair.standby)
    for options in ([], ["--create"]):
        said = drkit(
            pair.protected, "heartbeat", NAME, *options, "--log-format", "json"
        )
        assert said.code == PostgresRefused.exit_code
        assert "is a standby" in said.error["message"]
    assert newest(pair.standby) == newest(pair.primary)
    assert finding(pair.protected)[0] is State.OK
    assert beat_for_backup(pair.standby.url, None, None, "host-a") is None
    pair.standby.stop()
    pair.primary.stop()


# What a drill makes of them.


def drilled(protected: Protected) -> tuple[int, dict[str, Any], dict[str, Any]]:
    """Drill the loss of the host; return the exit code, the RPO and the check."""
    protected.archive_now()
    words = ("drill", "run", NAME, "--scenario", "host-loss", "--output", "json")
    said = drkit(protected, *words)
    assert said.out, said.err
    record = json.loads(said.out)["record"]
    (check,) = [one for one in record["checks"] if one["name"] == "heartbeat"]
    return said.code, record["rpo"], check


def test_a_drill_tells_fresh_stopped_and_absent_heartbeats(scene: Scene) -> None:
    protected = rehearsing(scene.protect(18))
    cluster, place = protected.cluster, str(scene.directory())
    rules = {"directory": place, "checks": ["write", "heartbeat"], "fingerprint": "off"}
    protected.change_policy(lambda policy: policy.update(verification=rules))
    cluster.rows("CREATE TABLE t (i int)")
    drkit(protected, "heartbeat", NAME, "--create")
    backup(protected)
    code, rpo, check = drilled(protected)
    assert (code, check["state"]) == (0, "passed")
    assert 0 < rpo["measured"] < 60
    assert "newest heartbeat that came back" in rpo["meaning"]

    cluster.rows(
        "UPDATE drkit.heartbeat SET written_at = written_at - interval '1 hour';"
        "INSERT INTO t VALUES (1)"
    )
    code, rpo, check = drilled(protected)
    assert (code, check["state"]) == (NotProven.exit_code, "failed")
    assert rpo["measured"] > 3600
    assert "its writer had stopped" in rpo["meaning"]

    cluster.rows("DROP SCHEMA drkit CASCADE")
    code, rpo, check = drilled(protected)
    assert (code, check["state"]) == (0, "not done")
    assert 0 < rpo["measured"] < 60
    assert "an idle cluster makes this look worse" in rpo["meaning"]
