"""The history of a running server's timeline, from its files and over the wire."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from drkit.errors import Corrupt, PostgresRefused, PostgresUnreachable, SourceUnreadable
from drkit.model.timeline import TimelineHistory
from drkit.postgres.connection import replication_connect
from drkit.postgres.timelines import ask_history, read_history

if TYPE_CHECKING:
    from tests.conftest import MakeCluster
    from tests.pg import Cluster


class _Finishing:
    """Closes a libpq connection as others are closed."""

    def __init__(self, cluster: Cluster) -> None:
        self.connection = replication_connect(cluster.url, None, "test")

    def close(self) -> None:
        self.connection.finish()


def promoted(cluster: Cluster, times: int = 1) -> Cluster:
    for _ in range(times):
        cluster.stop()
        Path(cluster.data_directory, "standby.signal").touch()
        cluster.start()
        cluster.promote()
    return cluster


def test_the_first_timeline_has_no_history(
    newest_version: int, make_cluster: MakeCluster
) -> None:
    cluster = make_cluster(newest_version)
    with closing(_Finishing(cluster)) as wire:
        assert ask_history(wire.connection, 1) == TimelineHistory(1)
    assert read_history(cluster.data_directory, 1) == TimelineHistory(1)


def test_both_ways_tell_the_same(pg_version: int, make_cluster: MakeCluster) -> None:
    cluster = promoted(make_cluster(pg_version), times=2)
    found = read_history(cluster.data_directory, 3)
    assert [one.timeline for one in found.switches] == [1, 2]
    assert found.switches[0].end < found.switches[1].end
    with closing(_Finishing(cluster)) as wire:
        assert ask_history(wire.connection, 3) == found
        assert ask_history(wire.connection, 2).switches == found.switches[:1]


def test_a_history_that_is_not_there(
    newest_version: int, make_cluster: MakeCluster
) -> None:
    cluster = promoted(make_cluster(newest_version))
    Path(cluster.data_directory, "pg_wal/00000002.history").unlink()
    with pytest.raises(SourceUnreadable, match=r"timeline 2, .*00000002\.history"):
        read_history(cluster.data_directory, 2)
    with closing(_Finishing(cluster)) as wire:
        with pytest.raises(PostgresRefused, match=r"timeline 2 .*00000002\.history"):
            ask_history(wire.connection, 2)
        assert ask_history(wire.connection, 1) == TimelineHistory(1)  # still of use


def test_a_damaged_history(newest_version: int, make_cluster: MakeCluster) -> None:
    cluster = promoted(make_cluster(newest_version))
    path = Path(cluster.data_directory, "pg_wal/00000002.history")
    path.write_text("1\tnonsense\n")
    with pytest.raises(Corrupt, match=r"00000002\.history is damaged"):
        read_history(cluster.data_directory, 2)
    with (
        closing(_Finishing(cluster)) as wire,
        pytest.raises(Corrupt, match=r"00000002\.history of the server"),
    ):
        ask_history(wire.connection, 2)


def test_a_lost_connection(newest_version: int, make_cluster: MakeCluster) -> None:
    cluster = promoted(make_cluster(newest_version))
    with closing(_Finishing(cluster)) as wire:
        cluster.stop("immediate")
        with pytest.raises(PostgresUnreachable, match="timeline 2"):
            ask_history(wire.connection, 2)
