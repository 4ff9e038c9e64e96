"""`info`: what there is, what can be restored from it, and how fresh that is."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from drkit.errors import KeyUnavailable, RepositoryMissing
from drkit.model.objectives import Objectives
from drkit.model.wal import WalFileName, parse_segment
from drkit.operations.info import cluster_info
from drkit.repository.lease import LEASE_FOR, Holder, leases_of
from tests.builders import World, back_up, begin
from tests.protect import NAME

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from drkit.operations.info import ClusterInfo
    from tests.protect import Protected

    MakeProtected = Callable[..., Protected]

SMALL = 1 << 20
NOTHING = Objectives()


@pytest.fixture
def protected(make_protected: MakeProtected) -> Protected:
    return make_protected(15, wal_segment_size=SMALL)


def info(protected: Protected) -> ClusterInfo:
    return cluster_info(protected.repository(), NOTHING, "here")


def wal_object(protected: Protected, name: str) -> str:
    repository = protected.repository()
    system = protected.policy().cluster.system_identifier
    return repository.layout.wal_file(system, WalFileName.parse(name))


def commit(protected: Protected) -> datetime:
    """Commit something; return the time just before and archive it."""
    before: datetime = protected.cluster.sql("SELECT clock_timestamp()")
    protected.cluster.rows("CREATE TABLE IF NOT EXISTS t (); DROP TABLE t")
    return before


def test_without_the_key_of_the_wal_all_the_rest_is_shown(protected: Protected) -> None:
    protected.change_policy(lambda policy: policy.update(objectives={"rpo": "1 hour"}))
    label = protected.backup()
    key = protected.home / "keys" / "wal.key"
    key.rename(key.with_suffix(".away"))
    told = protected.drkit("info")
    assert told.returncode == KeyUnavailable.exit_code
    text = told.stdout.decode()
    assert "\nUNKNOWN what can be restored: " in text
    assert f": there is no file {key}\n" in text
    assert "\nUNKNOWN: rpo 1 h" in text
    assert f"\n{label} " in text
    assert "\nWAL of timeline 1: " in text
    asked = protected.drkit("info", NAME, "--output", "json")
    assert asked.returncode == KeyUnavailable.exit_code
    (found,) = json.loads(asked.stdout)["policies"]
    assert [one["label"] for one in found["backups"]] == [label]
    assert found["wal_error"]["error"] == "KeyUnavailable"
    assert (found["restorable"], found["newest_moment"]) == ([], None)
    assert found["rpo"]["met"] is False
    key.with_suffix(".away").rename(key)
    assert protected.json("info", NAME)["policies"][0]["wal_error"] is None


def test_what_can_be_restored_reaches_to_the_last_archived_commit(
    protected: Protected,
) -> None:
    first = protected.backup()
    commit(protected)
    protected.archive_now()
    second = protected.backup()
    before = commit(protected)
    after: datetime = protected.cluster.sql("SELECT clock_timestamp()")
    newest = protected.archive_now()
    commit(protected)  # stays in pg_wal
    protected.cluster.kill()  # the repository alone must do

    found = info(protected)

    assert [one.label for one in found.backups] == [first, second]
    assert found.running == ()
    assert found.restorable.unrestorable == ()
    (window,) = found.restorable.windows
    assert window.labels == (first, second)
    assert window.start_time == found.backups[0].stop_time
    assert window.start_lsn == found.backups[0].stop_lsn
    assert window.missing is None
    assert window.end_lsn == parse_segment(newest, SMALL).next().start(SMALL)
    assert window.end_time is not None
    assert before <= window.end_time <= after
    assert found.restorable.newest_moment == window.end_time
    (timeline,) = found.wal.timelines
    assert timeline.last.name(SMALL) == newest
    assert found.newest_backup_age == found.time - found.backups[-1].stop_time


def test_a_gap_ends_a_window_and_the_next_backup_begins_another(
    protected: Protected,
) -> None:
    first = protected.backup()
    commit(protected)
    kept = protected.archive_now()
    commit(protected)
    lost = protected.archive_now()
    commit(protected)
    protected.archive_now()
    second = protected.backup()
    protected.repository().storage.delete(wal_object(protected, lost))

    found = info(protected)

    before, after = found.restorable.windows
    assert (before.labels, after.labels) == ((first,), (second,))
    assert before.missing == lost
    assert before.end_lsn == parse_segment(kept, SMALL).next().start(SMALL)
    assert before.end_time is not None
    assert before.end_time < after.start_time
    (gap,) = found.wal.timelines[0].gaps
    assert gap.first.name(SMALL) == lost
    text = protected.drkit("info", NAME).stdout.decode()
    (hole,) = found.restorable.holes
    assert (hole.after_lsn, hole.after_time) == (before.end_lsn, before.end_time)
    assert (hole.until_lsn, hole.until_time) == (after.start_lsn, after.start_time)
    assert f"EXCEPT after {hole.after_time.isoformat(sep=' ')[:19]}" in text
    assert f"WAL segment {lost} is missing" in text
    assert f"GAP: {lost} missing" in text


def test_a_backup_without_its_own_wal_is_not_restorable(protected: Protected) -> None:
    label = protected.backup()
    start = info(protected).backups[0].start_lsn
    own = parse_segment("0" * 7 + "1" + "0" * 16, SMALL)._replace(number=start // SMALL)
    protected.repository().storage.delete(wal_object(protected, own.name(SMALL)))
    found = info(protected)
    assert found.restorable.windows == ()
    assert [(one.label, one.missing) for one in found.restorable.unrestorable] == [
        (label, own.name(SMALL))
    ]
    assert found.restorable.newest_moment is None
    assert "NOT RESTORABLE" in protected.drkit("info", NAME).stdout.decode()


def test_the_rpo_decides_the_exit_code(protected: Protected) -> None:
    def promise(rpo: str) -> None:
        def change(policy: dict[str, Any]) -> None:
            policy["objectives"] = {"rpo": rpo}

        protected.change_policy(change)

    promise("1 hour")
    nothing = protected.drkit("info", NAME)
    assert nothing.returncode == 3, nothing.stderr.decode()
    assert "nothing can be restored" in nothing.stdout.decode()

    label = protected.backup()
    commit(protected)
    protected.archive_now()
    met = protected.json("info", NAME)["policies"][0]
    assert met["rpo"]["met"] is True
    assert met["rpo"]["measured_seconds"] < 60
    assert met["restorable"][0]["labels"] == [label]
    assert met["newest_moment"] == met["restorable"][0]["end_time"]

    protected.cluster.sql("SELECT pg_sleep(1.1)")
    promise("1 second")
    missed = protected.drkit("info", NAME)
    assert missed.returncode == 3
    assert "MISSED: rpo 1.0 s" in missed.stdout.decode()


def test_a_new_timeline_is_followed(protected: Protected) -> None:
    protected.backup()
    commit(protected)
    protected.archive_now()
    cluster = protected.cluster
    cluster.stop()
    os.close(os.open(f"{cluster.data_directory}/standby.signal", os.O_CREAT))
    cluster.start()
    cluster.promote()
    before = commit(protected)
    protected.archive_now()
    found = info(protected)
    (window,) = found.restorable.windows
    assert window.timeline == 2
    assert window.end_time is not None
    assert window.end_time >= before
    assert [line.timeline for line in found.wal.timelines] == [1, 2]
    assert any("following timeline 2" in note for note in window.notes)


def test_running_attempts_with_the_state_of_their_leases() -> None:
    world = World()
    repository = world.repository(host="host-b")
    leases = leases_of(repository)
    held, lapsed, bare = begin(repository), begin(repository), begin(repository)
    finished = back_up(repository, {b"PG_VERSION": b"18\n"})
    leases.renew(lapsed.attempt, Holder("host-c", "another boot", 7), 0)
    world.clock.jump(seconds=LEASE_FOR.total_seconds() + 1)
    until = leases.renew(held.attempt, Holder("host-b", "another boot", 8), 0)

    found = cluster_info(world.repository(), NOTHING, "host-a")

    by_label = {one.label: one for one in found.running}
    assert set(by_label) == {held.label, lapsed.label, bare.label}
    assert finished.backup.label not in by_label
    assert by_label[held.label].lease == "held"
    assert by_label[held.label].until == until
    assert by_label[held.label].host == "host-b"
    assert by_label[held.label].holder == "host-b, process 8"
    assert by_label[lapsed.label].lease == "lapsed"
    assert by_label[bare.label].lease == "none"
    assert by_label[bare.label].since < world.clock.now()


def test_an_objective_without_anything_to_restore_is_missed() -> None:
    objectives = Objectives(rpo=timedelta(hours=1))
    found = cluster_info(World().repository(), objectives, "here")
    assert found.backups == ()
    assert found.rpo is not None
    assert found.rpo.measured is None
    assert not found.rpo.met
    assert found.newest_backup_age is None


def test_a_cluster_that_was_never_set_up_is_refused() -> None:
    with pytest.raises(RepositoryMissing, match="has no log"):
        cluster_info(World().repository(opened=False), NOTHING, "here")


def test_without_a_name_every_policy_is_shown(
    make_protected: MakeProtected, make_directory: Callable[[], Path]
) -> None:
    protected = make_protected(15, start=True, wal_segment_size=SMALL)
    label = protected.backup()
    other = protected.home / "other.yaml"
    text = protected.policy_path.read_text().replace(f"name: {NAME}", "name: other")
    other.write_text(text)  # the same repository, where nobody set `other` up

    done = protected.drkit("info", "--output", "json")

    assert done.returncode == RepositoryMissing.exit_code
    found = json.loads(done.stdout)
    assert [one["policy"] for one in found["policies"]] == [NAME]
    assert found["policies"][0]["backups"][0]["label"] == label
    assert "cluster other has no log" in found["errors"][0]
    assert datetime.fromisoformat(found["policies"][0]["time"]) <= datetime.now(UTC)
