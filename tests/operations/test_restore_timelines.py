"""Timelines: restored copies that go on archiving beside the history they left."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from drkit.errors import TargetUnreachable
from drkit.model.wal import WalFileName
from tests.operations.scene import Scene, backup, drkit, refused, restore
from tests.pg import versions_under_test
from tests.protect import NAME, Protected

if TYPE_CHECKING:
    from pathlib import Path

    from tests.pg import Cluster

NEWEST = max(versions_under_test())


@dataclass
class Branches:
    """Two timelines: 1 has numbers 1, 2, 3; 2 left it behind 1 and has 1, 20, 30.

    On timeline 2 a second backup, `branched`, was taken behind 20.
    """

    scene: Scene
    protected: Protected
    first: str
    branched: str
    moment_on_first: str

    def numbers(self, target: Path) -> list[int]:
        restored = self.scene.start(target, NEWEST)
        return [row[0] for row in restored.rows("SELECT n FROM story ORDER BY n")]


def write(cluster: Cluster, number: int) -> str:
    """Write a number; return its transaction's id."""
    query = f"INSERT INTO story VALUES ({number}) RETURNING pg_current_xact_id()::text"
    return str(cluster.sql(query))


def go_on(scene: Scene, protected: Protected, target: Path) -> Protected:
    """Start a restored copy that archives into the same repository."""
    cluster = scene.start(target, NEWEST, archive_mode="on")
    return Protected(cluster, protected.home, protected.account)


@pytest.fixture(scope="module")
def branches(scene: Scene) -> Branches:
    protected = scene.protect(NEWEST)
    original = protected.cluster
    original.rows("CREATE TABLE story (n int)")
    write(original, 1)
    first = backup(protected)
    mistake = write(original, 2)
    protected.archive_now()

    target = scene.target()
    restore(protected, target, "--target-xid", mistake, "--exclusive")
    write(original, 3)
    moment = original.sql("SELECT clock_timestamp()").isoformat()
    write(original, 3)
    protected.archive_now()
    original.stop()

    copy = go_on(scene, protected, target)
    write(copy.cluster, 20)
    point_to(copy, copy.cluster)
    branched = backup(copy)
    write(copy.cluster, 30)
    copy.archive_now()
    copy.cluster.stop()
    return Branches(scene, protected, first, branched, moment)


def point_to(protected: Protected, cluster: Cluster) -> None:
    """Let the policy mean another copy of the cluster."""

    def change(policy: dict[str, dict[str, str]]) -> None:
        policy["cluster"]["url"] = cluster.url
        policy["cluster"]["data_directory"] = cluster.data_directory

    protected.change_policy(change)


def test_the_newest_branch_is_followed_and_said(branches: Branches) -> None:
    target = branches.scene.target()
    said = restore(branches.protected, target, branches.first)
    assert "following timeline 2, the newest of 1, 2 with WAL" in said.out
    settings = (target / "postgresql.auto.conf").read_text()
    assert "recovery_target_timeline = '2'" in settings
    assert branches.numbers(target) == [1, 20, 30]


@pytest.mark.parametrize("timeline", ["1", "current"])
def test_the_branch_that_was_left_can_be_followed(
    branches: Branches, timeline: str
) -> None:
    target = branches.scene.target()
    restore(branches.protected, target, branches.first, "--target-timeline", timeline)
    settings = (target / "postgresql.auto.conf").read_text()
    assert "recovery_target_timeline = '1'" in settings
    assert branches.numbers(target) == [1, 2, 3, 3]


def test_a_branch_without_a_label_takes_a_backup_that_leads_there(
    branches: Branches,
) -> None:
    target = branches.scene.target()
    said = restore(branches.protected, target, "--target-timeline", "1")
    assert branches.first in said.out
    assert branches.branched not in said.out


def test_a_backup_of_another_branch_is_refused(branches: Branches) -> None:
    target = branches.scene.target()
    options = (branches.branched, "--target-timeline", "1")
    error = refused(branches.protected, target, *options)
    assert error["exit_code"] == TargetUnreachable.exit_code
    assert "is not on timeline 1" in error["message"]
    assert "can be reached: 2" in error["hint"]


def test_a_moment_on_the_other_branch_is_found_with_its_timeline(
    branches: Branches,
) -> None:
    moment = ("--target-time", branches.moment_on_first)
    target = branches.scene.target()
    restore(branches.protected, target, *moment, "--target-timeline", "1")
    assert branches.numbers(target) == [1, 2, 3]


def test_a_target_that_only_the_other_branch_has_names_both(
    branches: Branches,
) -> None:
    listed = drkit(branches.protected, "wal", "status", NAME)
    assert listed.code == 0, listed.out
    options = (branches.first, "--target-time", "2100-01-01 00:00Z")
    error = refused(branches.protected, branches.scene.target(), *options)
    assert error["exit_code"] == TargetUnreachable.exit_code
    assert "the newest of 1, 2 with WAL of its own; another" in error["hint"]


def test_a_branch_whose_wal_never_came_is_not_mistaken_for_its_parent(
    branches: Branches,
) -> None:
    """Only the history of timeline 3 is archived: its server died at once."""
    scene, protected = branches.scene, branches.protected
    archive = protected.repository().wal
    history = archive.get(WalFileName.parse("00000002.history"))
    archive.push(WalFileName.parse("00000003.history"), history, datetime.now(UTC))
    planned = drkit(
        protected, "restore", NAME, branches.first, "--to", scene.target(), "--plan"
    )
    assert "following timeline 2, the newest of 1, 2, 3 with WAL" in planned.out

    target = scene.target()
    error = refused(protected, target, branches.first, "--target-timeline", "3")
    assert error["exit_code"] == TargetUnreachable.exit_code
    assert "first WAL of timeline 3 is not archived" in error["message"]
    hint = re.search(
        r"(--target-timeline 1 --target-lsn \S+ --exclusive)", error["hint"]
    )
    assert hint is not None
    restore(protected, target, branches.first, *hint[1].split())
    assert branches.numbers(target) == [1]


@pytest.mark.long
def test_timelines_past_nine_are_hexadecimal(scene: Scene) -> None:
    protected = scene.protect(NEWEST)
    protected.cluster.rows("CREATE TABLE story (n int)")
    backup(protected)
    protected.archive_now()
    protected.cluster.stop()
    for timeline in range(2, 13):
        target = scene.target()
        restore(protected, target)
        copy = go_on(scene, protected, target)
        write(copy.cluster, timeline)
        name = copy.archive_now()
        assert name.startswith(f"{timeline:08X}")
        copy.cluster.stop()
    target = scene.target()
    said = restore(protected, target)
    assert "following timeline 12" in said.out
    restored = scene.start(target, NEWEST)
    numbers = [row[0] for row in restored.rows("SELECT n FROM story ORDER BY n")]
    assert numbers == list(range(2, 13))
    target = scene.target()
    restore(protected, target, "--target-timeline", "10")
    restored = scene.start(target, NEWEST)
    numbers = [row[0] for row in restored.rows("SELECT n FROM story ORDER BY n")]
    assert numbers == list(range(2, 11))
