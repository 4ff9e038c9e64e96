"""Audits: what an incremental leaves to its parent, compared with it all the same."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from drkit.model.label import BackupKind
from tests.incremental.workload import SETTINGS
from tests.operations.backup_tools import Listener, Site, site_of
from tests.pg import versions_under_test

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.operations.scene import Scene
    from tests.pg import Cluster

NEWEST = max(versions_under_test())
OLDEST = min(versions_under_test())

_INDEXED = """
    CREATE TABLE t (n int, filler text, tags int[], place point);
    CREATE INDEX ON t (n);
    CREATE INDEX ON t USING hash (filler);
    CREATE INDEX ON t USING gin (tags);
    CREATE INDEX ON t USING gist (place);
    CREATE INDEX ON t USING spgist (filler);
    CREATE INDEX ON t USING brin (n) WITH (pages_per_range = 2);
    INSERT INTO t SELECT g, md5(g::text), ARRAY[g % 7, g % 11], point(g % 50, g)
        FROM generate_series(1, 3000) AS g;
"""
_CHANGES = (
    "SELECT count(*) FROM t; DELETE FROM t WHERE n % 3 = 1;",
    """
    INSERT INTO t SELECT g, md5(g::text), ARRAY[g], point(g, 1)
        FROM generate_series(3001, 3300) AS g;
    SET enable_seqscan = off; SELECT count(*) FROM t WHERE n < 2000;
    """,
    "VACUUM t;",
)


def audited(
    scene: Scene, major: int, settings: Mapping[str, str] | None = None
) -> tuple[Cluster, Site]:
    """Make a cluster without checksums, each backup of which audits everything."""
    chosen = SETTINGS | dict(settings or {})
    protected = scene.protect(major, chosen, data_checksums=False)
    policy = protected.policy()
    backup = replace(policy.backup, audit_every=timedelta(milliseconds=1))
    return protected.cluster, site_of(replace(policy, backup=backup))


def incremental(taking: Site) -> list[str]:
    """Take one; return what it warned of."""
    listener = Listener()
    taken = taking.take(listener, BackupKind.INCREMENTAL)
    assert taken.kind is BackupKind.INCREMENTAL
    return [message for message, _ in listener.warnings]


@pytest.mark.parametrize(
    ("major", "settings"),
    [
        pytest.param(OLDEST, {"wal_log_hints": "off"}, id="by LSN"),
        pytest.param(
            NEWEST, {"summarize_wal": "on"}, id="by summaries", marks=pytest.mark.long
        ),
    ],
)
def test_what_postgresql_writes_without_wal_is_no_alarm(
    scene: Scene, major: int, settings: dict[str, str]
) -> None:
    cluster, taking = audited(scene, major, settings)
    cluster.psql(_INDEXED)
    taking.take()
    for change in _CHANGES:
        cluster.psql(change)
        cluster.rows("CHECKPOINT")
        assert incremental(taking) == [], change


def test_a_change_behind_the_servers_back_is_told_and_stored(scene: Scene) -> None:
    cluster, taking = audited(scene, OLDEST)
    cluster.psql("CREATE TABLE quiet AS SELECT 'then' FROM generate_series(1, 900);")
    cluster.psql("VACUUM FREEZE quiet; CHECKPOINT;")
    path = cluster.sql("SELECT pg_relation_filepath('quiet')")
    taking.take()
    cluster.stop()
    with Path(cluster.data_directory, path).open("r+b") as file:
        file.seek(8192 - 4)
        file.write(b"here")
    cluster.start()
    told = incremental(taking)
    assert len(told) == 1
    assert f"{path} changed without a trace at page 0" in told[0]
    assert incremental(taking) == []
