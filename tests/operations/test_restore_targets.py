"""Restoring to every recovery target that PostgreSQL has, proven by content."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from drkit.operations.choice import ArchivedWal
from tests.operations.scene import Scene, backup, refused, restore
from tests.pg import versions_under_test

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.pg import Cluster
    from tests.protect import Protected

NEWEST = max(versions_under_test())
INDIA = timezone(timedelta(hours=5, minutes=30))


@dataclass
class Story:
    """A cluster into which a number a transaction was written, and backed up twice.

    1, backup `early`, 2, restore point `between`, 3, backup `late`, 4, restore point
    `after`, 5, a transaction that was rolled back, 6: all archived.
    """

    scene: Scene
    major: int
    protected: Protected
    early: str = ""
    late: str = ""
    xid: dict[int, int] = field(default_factory=dict)
    time: dict[int, datetime] = field(default_factory=dict)
    lsn: dict[int, str] = field(default_factory=dict)

    @property
    def cluster(self) -> Cluster:
        return self.protected.cluster

    def write(self, number: int) -> None:
        """Write a number, and note its transaction and the time of its commit."""
        with self.cluster.connect() as connection:
            query = "INSERT INTO story VALUES (%s) RETURNING pg_current_xact_id()::text"
            row = connection.execute(query, [number]).fetchone()
            assert row is not None
            self.xid[number] = int(row[0])
        asked = f"SELECT pg_xact_commit_timestamp('{self.xid[number]}'::xid)"
        self.time[number] = self.cluster.sql(asked)

    def note_positions(self) -> None:
        """Note where each transaction's commit record begins."""
        repository = self.protected.repository()
        archived = ArchivedWal(repository)
        by_xid = {xid: number for number, xid in self.xid.items()}
        size = repository.backups()[0].backup.wal_segment_size
        for event in archived.events(tuple(sorted(archived.segments(size))), size):
            if event.xid in by_xid:
                self.lsn[by_xid[event.xid]] = str(event.lsn)

    def restored(self, *options: str) -> tuple[str, Path]:
        """Restore; return the backup that was chosen, and the directory."""
        target = self.scene.target()
        said = restore(self.protected, target, *options)
        chosen = [label for label in (self.early, self.late) if label in said.out]
        assert len(chosen) == 1, said.out
        return chosen[0], target

    def numbers(self, cluster: Cluster) -> list[int]:
        return [row[0] for row in cluster.rows("SELECT n FROM story ORDER BY n")]


def tell(scene: Scene, major: int) -> Story:
    settings = {"track_commit_timestamp": "on"}
    story = Story(scene, major, scene.protect(major, settings))
    story.cluster.rows("CREATE TABLE story (n int)")
    story.write(1)
    story.early = backup(story.protected, "local")
    story.write(2)
    story.cluster.rows("SELECT pg_create_restore_point('between')")
    story.write(3)
    story.late = backup(story.protected, "stream")
    story.write(4)
    story.cluster.rows("SELECT pg_create_restore_point('after')")
    story.write(5)
    story.cluster.rows("BEGIN; INSERT INTO story VALUES (0); ROLLBACK")
    story.write(6)
    story.protected.archive_now()
    story.note_positions()
    story.cluster.kill()
    return story


@pytest.fixture(scope="module", params=versions_under_test(), ids=lambda v: f"pg{v}")
def any_story(
    scene: Scene, told: dict[int, Story], request: pytest.FixtureRequest
) -> Story:
    """A story on each PostgreSQL."""
    if request.param not in told:
        told[request.param] = tell(scene, request.param)
    return told[request.param]


@pytest.fixture(scope="module")
def story(scene: Scene, told: dict[int, Story]) -> Story:
    """A story on the newest PostgreSQL, for what does not vary with the version."""
    if NEWEST not in told:
        told[NEWEST] = tell(scene, NEWEST)
    return told[NEWEST]


@pytest.fixture(scope="module")
def told() -> dict[int, Story]:
    """The stories so far, by version."""
    return {}


def test_latest_brings_back_everything_that_was_archived(any_story: Story) -> None:
    label, target = any_story.restored()
    assert label == any_story.late
    restored = any_story.scene.start(target, any_story.major)
    assert any_story.numbers(restored) == [1, 2, 3, 4, 5, 6]
    settings = (target / "postgresql.auto.conf").read_text()
    assert "recovery_target_timeline = '1'" in settings


def test_a_moment_before_the_newest_backup_takes_the_older_one(
    any_story: Story,
) -> None:
    moment = any_story.time[2].astimezone(INDIA).isoformat(sep=" ")
    label, target = any_story.restored("--target-time", moment)
    assert label == any_story.early
    restored = any_story.scene.start(target, any_story.major)
    assert any_story.numbers(restored) == [1, 2]


def time_of(number: int) -> Callable[[Story], tuple[str, ...]]:
    return lambda story: ("--target-time", story.time[number].isoformat())


def lsn_of(number: int) -> Callable[[Story], tuple[str, ...]]:
    return lambda story: ("--target-lsn", story.lsn[number])


def xid_of(number: int) -> Callable[[Story], tuple[str, ...]]:
    return lambda story: ("--target-xid", str(story.xid[number]))


@pytest.mark.parametrize("exclusive", [False, True], ids=["inclusive", "exclusive"])
@pytest.mark.parametrize(
    "option",
    [time_of(4), lsn_of(4), xid_of(4)],
    ids=["time", "lsn", "xid"],
)
def test_a_target_is_kept_exactly(
    story: Story, option: Callable[[Story], tuple[str, ...]], exclusive: bool
) -> None:
    label, target = story.restored(*option(story), *(["--exclusive"] * exclusive))
    assert label == story.late
    restored = story.scene.start(target, story.major)
    assert story.numbers(restored) == ([1, 2, 3] if exclusive else [1, 2, 3, 4])


@pytest.mark.parametrize(
    ("name", "numbers"), [("between", [1, 2]), ("after", [1, 2, 3, 4])]
)
def test_a_restore_point_is_found_wherever_it_lies(
    story: Story, name: str, numbers: list[int]
) -> None:
    label, target = story.restored("--target-name", name)
    assert label == (story.early if name == "between" else story.late)
    restored = story.scene.start(target, story.major)
    assert story.numbers(restored) == numbers


def test_the_last_lsn_that_is_named_as_reachable_is_reached(story: Story) -> None:
    error = refused(story.protected, story.scene.target(), "--target-lsn", "FFFFFFFF/0")
    named = re.search(r"to ([0-9A-F]+/[0-9A-F]+)", error["hint"])
    assert named is not None
    _, target = story.restored("--target-lsn", named[1])
    restored = story.scene.start(target, story.major)
    assert story.numbers(restored) == [1, 2, 3, 4, 5, 6]


def test_immediate_stops_where_the_backup_ended(story: Story) -> None:
    label, target = story.restored(story.early, "--target-immediate")
    assert label == story.early
    restored = story.scene.start(target, story.major)
    assert story.numbers(restored) == [1]


def test_pause_waits_at_the_target_until_told_to_go_on(story: Story) -> None:
    _, target = story.restored(*xid_of(5)(story), "--target-action", "pause")
    restored = story.scene.serve(target, story.major)
    restored.start()
    ask = "SELECT pg_get_wal_replay_pause_state()"
    while restored.sql(ask) != "paused":
        assert restored.running
    assert restored.sql("SELECT pg_is_in_recovery()") is True
    assert story.numbers(restored) == [1, 2, 3, 4, 5]
    restored.rows("SELECT pg_wal_replay_resume()")
    restored.wait_until_primary()
    assert story.numbers(restored) == [1, 2, 3, 4, 5]


def test_shutdown_ends_the_server_at_the_target(story: Story) -> None:
    _, target = story.restored(*xid_of(5)(story), "--target-action", "shutdown")
    restored = story.scene.serve(target, story.major)
    restored.launch()
    assert restored.wait_until_stopped() == 0
    assert "shutdown at recovery target" in Path(restored.log_path).read_text()
    assert (target / "recovery.signal").exists()
