"""When there is nothing to build on that can be trusted: a full backup, and the reason.

Each time the next incremental builds on that full one again.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from drkit import wiring
from drkit.postgres.server import ClusterOptions
from tests.incremental.links import Taken, backup, prove, remember
from tests.incremental.workload import SETTINGS
from tests.operations.scene import SMALL_SEGMENTS, drkit, restore
from tests.pg import copy_tree, versions_under_test
from tests.protect import NAME, Protected

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.operations.scene import Scene
    from tests.pg import Cluster

NEWEST = max(versions_under_test())
OLDEST = min(versions_under_test())
SUMMARIES = {"summarize_wal": "on"}
_FILL = """
    CREATE TABLE t (n int PRIMARY KEY, filler text);
    INSERT INTO t SELECT g, md5(g::text) FROM generate_series(1, 2000) AS g;
"""
_CHANGE = "UPDATE t SET filler = reverse(filler) WHERE n % 100 = 7"


def begun(
    scene: Scene, major: int, settings: Mapping[str, str] | None = None, **options: bool
) -> tuple[Protected, Taken]:
    """Make a cluster with a full backup, and change it since."""
    protected = scene.protect(major, SETTINGS | dict(settings or {}), **options)
    protected.cluster.psql(_FILL)
    full = backup(protected, "full")
    protected.cluster.rows(_CHANGE)
    return protected, full


def reason_for_full(protected: Protected) -> str:
    """Ask for an incremental, get a full; the next one builds on that."""
    taken = backup(protected)
    assert (taken.kind, taken.parent) == ("full", None), taken
    protected.cluster.rows(_CHANGE)
    following = backup(protected)
    assert (following.kind, following.parent) == ("incr", taken.label), following
    return taken.reason


def change_settings(cluster: Cluster, **settings: str) -> None:
    cluster.stop()
    cluster.configure(settings)
    cluster.start()


def forget_wal(protected: Protected) -> None:
    """Let the server remove the WAL that it has archived."""
    cluster = protected.cluster
    first = protected.archive_now()
    for _ in range(8):
        protected.archive_now()
        cluster.rows("CHECKPOINT")
    assert not cluster.wal_path(first).exists()


def summaries(cluster: Cluster) -> list[Path]:
    return list(Path(cluster.data_directory, "pg_wal/summaries").iterdir())


# -- what changed can't be told


def test_summaries_that_are_gone(scene: Scene) -> None:
    protected, _ = begun(scene, NEWEST, SUMMARIES)
    forget_wal(protected)
    for path in summaries(protected.cluster):
        path.unlink()
    reason = reason_for_full(protected)
    assert "is not summarized without a gap: nothing tells what changed at" in reason


@pytest.mark.long
def test_a_damaged_summary(scene: Scene) -> None:
    protected, _ = begun(scene, NEWEST, SUMMARIES)
    protected.archive_now()
    protected.cluster.rows("CHECKPOINT")
    damaged = max(summaries(protected.cluster), key=lambda one: one.name[8:])
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    assert "is damaged: its checksum is wrong" in reason_for_full(protected)


@pytest.mark.long
def test_a_time_without_summaries(scene: Scene) -> None:
    """While they are off, LSNs tell; switched on again they lack a stretch."""
    protected, full = begun(scene, NEWEST, SUMMARIES)
    cluster = protected.cluster
    change_settings(cluster, summarize_wal="off")
    by_lsn = backup(protected)
    assert (by_lsn.kind, by_lsn.parent) == ("incr", full.label)
    link = remember(scene, protected, by_lsn)
    cluster.rows(_CHANGE)
    forget_wal(protected)
    change_settings(cluster, summarize_wal="on")
    assert "is not summarized without a gap" in reason_for_full(protected)
    prove(scene, protected, link)


@pytest.mark.long
def test_a_streamed_parent_says_nothing_of_the_files(scene: Scene) -> None:
    protected, _ = begun(scene, OLDEST)
    protected.change_policy(lambda policy: policy["backup"].update(source="stream"))
    backup(protected, "full")
    protected.change_policy(lambda policy: policy["backup"].update(source="local"))
    assert "was streamed" in reason_for_full(protected)


# -- it is not the same cluster any more


@pytest.mark.parametrize(
    "at_first", [True, pytest.param(False, marks=pytest.mark.long)], ids=["off", "on"]
)
def test_checksums_switched(scene: Scene, at_first: bool) -> None:
    protected, _ = begun(scene, NEWEST, SUMMARIES, data_checksums=at_first)
    cluster = protected.cluster
    cluster.stop()
    switch = "--disable" if at_first else "--enable"
    cluster.run_tool("pg_checksums", switch, "-D", cluster.data_directory)
    cluster.start()
    state = "off" if at_first else "on"
    assert f"page checksums were switched {state}" in reason_for_full(protected)


def test_a_history_that_the_backup_is_not_on(scene: Scene) -> None:
    """A copy from before the backup is promoted in the cluster's place."""
    protected = scene.protect(OLDEST, SETTINGS)
    original = protected.cluster
    original.psql(_FILL)
    original.stop()
    copied = scene.directory() / "copied"
    copy_tree(original.data_directory, copied)
    original.start()
    original.rows(_CHANGE)
    backup(protected, "full")
    original.stop()
    promoted = _promoted(scene, protected, copied)
    promoted.cluster.rows(_CHANGE)
    reason = reason_for_full(promoted)
    assert "the server's timeline 2 does not come from there" in reason


def _promoted(scene: Scene, protected: Protected, directory: Path) -> Protected:
    """Serve a directory in the cluster's place, on a timeline of its own."""
    (directory / "standby.signal").touch()
    cluster = scene.serve(
        directory, protected.cluster.binaries.major, archive_mode="on"
    )
    cluster.start()
    cluster.promote()
    return instead(protected, cluster)


def instead(protected: Protected, cluster: Cluster) -> Protected:
    """Let the policy mean another copy of the cluster."""

    def change(policy: dict[str, dict[str, str]]) -> None:
        policy["cluster"]["url"] = cluster.url
        policy["cluster"]["data_directory"] = cluster.data_directory

    protected.change_policy(change)
    return Protected(cluster, protected.home, protected.account)


@pytest.mark.parametrize(
    "major", [OLDEST, pytest.param(NEWEST, marks=pytest.mark.long)]
)
def test_an_older_backup_that_is_on_the_history(scene: Scene, major: int) -> None:
    """A recovery to before the newest backup goes on; the one before leads there.

    By summaries that needs those of the recovery itself, if the server made them.
    """
    settings = SUMMARIES if major == NEWEST else {}
    protected, full = begun(scene, major, settings)
    protected.cluster.rows("SELECT pg_create_restore_point('before')")
    protected.cluster.rows(_CHANGE)
    backup(protected)
    protected.archive_now()
    protected.cluster.stop()
    target = scene.target()
    restore(protected, target, full.label, "--target-name", "before")
    copy = instead(protected, scene.start(target, major, archive_mode="on"))
    copy.cluster.rows(_CHANGE)
    taken = backup(copy)
    if major == OLDEST or taken.kind == "incr":
        assert (taken.kind, taken.parent) == ("incr", full.label), taken
    else:
        assert "is not summarized without a gap" in taken.reason
    link = remember(scene, copy, taken)
    copy.archive_now()
    prove(scene, copy, link)


# -- WAL that is missing


def test_a_gap_in_the_archive(scene: Scene) -> None:
    protected, full = begun(scene, OLDEST)
    names = [protected.archive_now() for _ in range(3)]
    lost = [one for one in protected.repository_root.rglob(names[1]) if one.is_file()]
    assert len(lost) == 1
    lost[0].unlink()
    reason = reason_for_full(protected)
    expected = f"{names[1]} behind backup {full.label} is not in the repository"
    assert expected in reason


def without_wal_for_a_while(scene: Scene, major: int) -> Protected:
    """Make a cluster that ran at wal_level=minimal since its full backup."""
    settings = SUMMARIES if major == NEWEST else {}
    protected, _ = begun(scene, major, settings)
    protected.archive_now()
    cluster = protected.cluster
    less = {"wal_level": "minimal", "archive_mode": "off", "max_wal_senders": "0"}
    change_settings(cluster, **less, **dict.fromkeys(settings, "off"))
    cluster.rows("BEGIN; CREATE TABLE unseen AS TABLE t; TRUNCATE t; COMMIT")
    cluster.rows("BEGIN; TRUNCATE t; INSERT INTO t TABLE unseen LIMIT 900; COMMIT")
    for _ in range(3):
        cluster.switch_wal()
    more = {"wal_level": "replica", "archive_mode": "on", "max_wal_senders": "4"}
    change_settings(cluster, **more, **settings)
    return protected


def test_a_stretch_of_wal_that_was_never_archived(scene: Scene) -> None:
    protected = without_wal_for_a_while(scene, OLDEST)
    protected.archive_now()
    assert "is not in the repository" in reason_for_full(protected)


def test_a_stretch_that_was_never_summarized(scene: Scene) -> None:
    protected = without_wal_for_a_while(scene, NEWEST)
    assert "is not summarized without a gap" in reason_for_full(protected)


@pytest.mark.long
def test_a_stretch_whose_lack_does_not_show_yet(scene: Scene) -> None:
    """Nothing behind it is archived. What had no WAL is in new files, by PostgreSQL's
    rules for wal_level=minimal, and those are stored whole.
    """
    protected = without_wal_for_a_while(scene, OLDEST)
    link = remember(scene, protected, backup(protected))
    protected.archive_now()
    prove(scene, protected, link)


def test_another_cluster_in_the_same_place(scene: Scene) -> None:
    """Made anew by initdb: its LSNs are plausible, its identifier is another."""
    protected, full = begun(scene, OLDEST)
    protected.archive_now()
    protected.cluster.stop()
    anew = scene.serve(scene.target(), OLDEST, archive_mode="on")
    anew.initdb(ClusterOptions(wal_segment_size=SMALL_SEGMENTS))
    command = wiring.archive_command(str(protected.policy_path))
    anew.configure({"archive_command": command})
    anew.start()
    changed = instead(protected, anew)
    anew.psql(_FILL)
    said = drkit(changed, "backup", NAME, "--type", "incremental")
    assert said.code != 0
    assert "the server has system identifier" in said.err
    system = anew.sql("SELECT system_identifier::text FROM pg_control_system()")
    own = {"system_identifier": system}
    changed.change_policy(lambda policy: policy["cluster"].update(own))
    reason = reason_for_full(changed)
    assert f"backup {full.label} is of another cluster" in reason
