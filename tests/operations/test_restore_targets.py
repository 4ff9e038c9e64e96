"""Restoring to every recovery target that PostgreSQL has."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.protect import Protected

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakeCluster

MakeProtected = Callable[..., Protected]


def test_latest_brings_back_everything_that_was_archived(
    pg_version: int,
    make_protected: MakeProtected,
    make_directory: Callable[[], Path],
    adopt_cluster: MakeCluster,
) -> None:
    protected = make_protected(pg_version)
    protected.cluster.rows("CREATE TABLE t AS SELECT generate_series(1, 1000) AS n")
    protected.backup()
    protected.cluster.rows("INSERT INTO t SELECT generate_series(1001, 2000)")
    protected.archive_now()
    protected.cluster.kill()

    target = make_directory() / "restored"
    done = protected.restore(target)
    assert done.returncode == 0, done.stderr.decode()

    restored = adopt_cluster(pg_version, str(target), {"archive_mode": "off"})
    restored.start()
    restored.wait_until_primary()
    assert restored.rows("SELECT count(*), sum(n) FROM t") == [(2000, 2001000)]
