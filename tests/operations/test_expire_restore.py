"""After an expiry every backup that is left still restores, to all it could before."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.operations.backup_tools import assert_tidy, restored, site
from tests.operations.scene import backup, drkit, refused
from tests.protect import NAME, Protected

if TYPE_CHECKING:
    from tests.operations.scene import Scene


def grow(protected: Protected, rows: int) -> str:
    """Commit rows in several segments; return the position behind them."""
    cluster = protected.cluster
    for _ in range(3):
        cluster.rows(f"INSERT INTO t SELECT generate_series(1, {rows})")
        protected.archive_now()
    position: str = cluster.sql("SELECT pg_current_wal_lsn()::text")
    return position


@pytest.mark.long  # the next one restores what is left as well
def test_every_backup_that_is_left_restores(scene: Scene, newest_version: int) -> None:
    protected = scene.protect(newest_version)
    protected.cluster.rows("CREATE TABLE t (n int)")
    labels, counts = [], []
    for number in range(4):
        grow(protected, 100)
        labels.append(backup(protected, "stream" if number % 2 else "local"))
        counts.append(300 * (number + 1))
    between = grow(protected, 1)
    protected.archive_now()

    said = drkit(protected, "expire", NAME, "--output", "json")
    assert said.code == 0, said.err
    done = json.loads(said.out)["result"]
    assert done["deleted"] == labels[:2]
    assert done["wal"]["files"] > 6
    assert protected.labels() == labels[2:]
    assert_tidy(site(protected))

    for label, count in zip(labels[2:], counts[2:], strict=True):
        with restored(scene, protected, label, "--target-immediate") as found:
            assert found.sql("SELECT count(*) FROM t") == count
    with restored(scene, protected, labels[2], "--target-lsn", between) as found:
        assert found.sql("SELECT count(*) FROM t") == counts[-1] + 3
    gone = refused(protected, scene.target(), labels[0])
    assert gone["error"] == "NotFound"
    assert drkit(protected, "check", NAME).code == 0
    later = backup(protected)
    assert protected.labels() == [*labels[2:], later]


def test_incrementals_go_with_their_full_backup(
    scene: Scene, newest_version: int
) -> None:
    protected = scene.protect(newest_version)
    protected.cluster.rows("CREATE TABLE t (n int)")
    labels, counts = [], []
    for number in range(6):
        grow(protected, 100)
        kind = "incremental" if number % 3 else "full"
        words = ("backup", NAME, "--type", kind, "--output", "json")
        said = drkit(protected, *words)
        assert said.code == 0, said.err
        labels.append(json.loads(said.out)["backup"]["label"])
        counts.append(300 * (number + 1))
    assert [label[16:] for label in labels] == ["full", "incr", "incr"] * 2
    pin = ("pin", NAME, labels[1], "--reason", "audit")
    assert drkit(protected, *pin).code == 0
    protected.change_policy(lambda policy: policy.update(retention={"full": 1}))

    said = drkit(protected, "expire", NAME, "--output", "json")
    assert said.code == 0, said.err
    assert json.loads(said.out)["result"]["deleted"] == [labels[2]]
    left = [place for place in range(6) if place != 2]
    assert protected.labels() == [labels[place] for place in left]
    assert_tidy(site(protected))
    for place in left:
        with restored(scene, protected, labels[place], "--target-immediate") as found:
            assert found.sql("SELECT count(*) FROM t") == counts[place]
    assert drkit(protected, "unpin", NAME, labels[1]).code == 0
    said = drkit(protected, "expire", NAME, "--output", "json")
    assert json.loads(said.out)["result"]["deleted"] == [labels[1], labels[0]]
    assert_tidy(site(protected))
