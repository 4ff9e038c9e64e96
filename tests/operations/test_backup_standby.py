"""Backups from a standby, whose primary archives: taken, restored, or refused."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from drkit.errors import AttemptFenced, PostgresRefused, WalMissing
from drkit.model.finding import State
from drkit.model.label import BackupKind
from drkit.model.lsn import Lsn
from drkit.operations.check import check
from drkit.sites.check import check_subject
from drkit.wiring import Secrets
from tests.operations.backup_tools import (
    Listener,
    assert_not_in_backup,
    assert_tidy,
    content,
    restored,
    site,
)
from tests.protect import NAME

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.operations.scene import Scene
    from tests.pg import Cluster
    from tests.protect import Protected

PAIRS = [
    pytest.param(15, "stream", id="pg15-stream"),
    pytest.param(18, "local", id="pg18-local"),
    pytest.param(15, "local", id="pg15-local", marks=pytest.mark.long),
    pytest.param(18, "stream", id="pg18-stream", marks=pytest.mark.long),
]


@dataclass
class Pair:
    """A primary that archives, and a standby that the policy's URL points at."""

    protected: Protected
    standby: Cluster
    primary: Cluster

    def catch_up(self) -> None:
        """Wait until the standby has replayed what the primary has written."""
        lsn = self.primary.sql("SELECT pg_current_wal_lsn()")
        while self.standby.sql(f"SELECT pg_last_wal_replay_lsn() < '{lsn}'"):
            threading.Event().wait(0.02)


def make_pair(scene: Scene, major: int, source: str = "local", **settings: str) -> Pair:
    settings["wal_keep_size"] = "64MB"
    protected = scene.protect(major, settings, source=source)
    primary = protected.cluster
    primary.rows(
        "CREATE TABLE accounts AS SELECT g AS id, 100 AS balance, repeat('x', 200) AS b"
        " FROM generate_series(1, 5000) AS g; CREATE INDEX ON accounts (id);"
        "CREATE TABLE journal (n int)"
    )
    pair = Pair(protected, clone(scene, primary), primary)
    pair.catch_up()
    point_at(protected, pair.standby)
    return pair


def clone(scene: Scene, upstream: Cluster) -> Cluster:
    """Make a standby that streams from a server, and start it."""
    copy = scene.directory() / "standby"
    where = f"-h{upstream.directory}"
    upstream.run_tool("pg_basebackup", where, "-Upostgres", "-R", "-cfast", f"-D{copy}")
    standby = scene.factory.adopt(upstream.binaries.major, str(copy))
    scene.clusters.append(standby)
    standby.start()
    return standby


def point_at(protected: Protected, server: Cluster) -> None:
    """Let the policy name another server of the cluster."""
    where = {"url": server.url, "data_directory": server.data_directory}
    protected.change_policy(lambda policy: policy["cluster"].update(where))


@dataclass
class Writer:
    """Moves money about on the primary, and now and then ends a WAL segment."""

    cluster: Cluster
    stopped: threading.Event = field(default_factory=threading.Event)

    def __call__(self) -> None:
        with self.cluster.connect() as connection:
            number = 0
            while not self.stopped.is_set():
                number += 1
                one, other = number * 7 % 5000 + 1, number * 13 % 5000 + 1
                connection.execute(
                    f"BEGIN; UPDATE accounts SET balance = balance - (id = {one})::int"
                    f" + (id = {other})::int WHERE id IN ({one}, {other});"
                    f"INSERT INTO journal VALUES ({number}); COMMIT"
                )
                if number % 200 == 0:
                    connection.execute("SELECT pg_switch_wal()")
                self.stopped.wait(0.002)


@contextmanager
def writing(cluster: Cluster) -> Iterator[None]:
    writer = Writer(cluster)
    thread = threading.Thread(target=writer)
    thread.start()
    try:
        yield
    finally:
        writer.stopped.set()
        thread.join()


def books(cluster: Cluster) -> tuple[int, int, int]:
    """Return the sum of all balances, which never changes, and what was journalled."""
    rows = cluster.rows(
        "SELECT (SELECT sum(balance) FROM accounts)::int, count(*), max(n) FROM journal"
    )
    total, count, last = rows[0]
    return total, count, last


@pytest.mark.parametrize(("major", "source"), PAIRS)
def test_a_full_while_the_primary_writes(scene: Scene, major: int, source: str) -> None:
    pair = make_pair(scene, major, source)
    protected = pair.protected
    site_ = site(protected)
    with writing(pair.primary):
        summary = site_.take()
    protected.archive_now()

    assert summary.timeline == 1
    assert summary.source == source
    assert summary.stop_lsn >= summary.start_lsn
    head = site_.manifest(summary.label).head
    assert "BACKUP FROM: standby\n" in head.backup_label
    assert_not_in_backup(pair.standby)
    assert_tidy(site_)
    with restored(scene, protected, summary.label) as found:
        assert content(found) == content(pair.primary)
        assert found.sql("SELECT pg_is_in_recovery()") is False
    with restored(scene, protected, summary.label, "--target-immediate") as found:
        total, count, last = books(found)
        assert total == 500_000
        assert count == last  # every transaction as a whole, none left out
        assert last <= books(pair.primary)[2]
        found.rows("REINDEX TABLE accounts")


@pytest.mark.parametrize(("major", "source"), PAIRS)
def test_promotion_in_mid_backup(scene: Scene, major: int, source: str) -> None:
    pair = make_pair(scene, major, source)
    site_ = site(pair.protected)
    # files that take the server a while, so that the stream is not over too soon
    pair.primary.rows(
        "CREATE TABLE large AS SELECT repeat('x', 1000) FROM generate_series(1, 60000)"
    )
    pair.catch_up()

    with pytest.raises(PostgresRefused, match="promoted during online backup") as why:
        site_.take(Listener(at={"copy": pair.standby.promote}))

    assert "REPLICATION" not in str(why.value.hint)
    assert pair.protected.labels() == []
    assert_not_in_backup(pair.standby)
    assert_tidy(site_)


def begin_a_segment(pair: Pair) -> None:
    """Let the standby's files be of a moment in the midst of a segment."""
    pair.protected.archive_now()
    pair.primary.rows("INSERT INTO journal VALUES (0); CHECKPOINT")
    pair.catch_up()
    pair.standby.rows("CHECKPOINT")


class Prompted(Listener):
    """Ends the primary's segment when it is asked to."""

    def __init__(self, primary: Cluster) -> None:
        super().__init__()
        self.primary = primary

    def warning(self, message: str, **fields: object) -> None:
        super().warning(message, **fields)
        if "pg_switch_wal()" in message:
            self.primary.switch_wal()


@pytest.mark.parametrize("major", [pytest.param(15, marks=pytest.mark.long), 18])
def test_a_quiet_primary_has_to_end_its_segment(scene: Scene, major: int) -> None:
    """Nobody writes, and the last segment that is needed is not full."""
    pair = make_pair(scene, major)
    begin_a_segment(pair)
    listener = Prompted(pair.primary)

    summary = site(pair.protected).take(listener)

    texts = [text for text, _ in listener.warnings]
    assert len(texts) == 1
    assert "still waiting for 00000001" in texts[0]
    assert "on the primary" in texts[0]
    with restored(scene, pair.protected, summary.label, "--target-immediate") as found:
        assert content(found) == content(pair.primary)


def test_a_primary_that_never_ends_its_segment(scene: Scene) -> None:
    pair = make_pair(scene, 18)
    begin_a_segment(pair)
    site_ = site(pair.protected, wal_timeout=timedelta(seconds=1))

    with pytest.raises(
        WalMissing, match="the primary has not ended or not archived it"
    ) as caught:
        site_.take()

    assert "archive_timeout" in str(caught.value.hint)
    assert pair.protected.labels() == []
    assert_tidy(site_)


def test_an_incremental_by_the_standbys_own_summaries(scene: Scene) -> None:
    pair = make_pair(scene, 18, summarize_wal="on")
    site_ = site(pair.protected)
    pair.primary.rows(
        "CREATE TABLE large AS SELECT g AS id, repeat('x', 1000) AS b"
        " FROM generate_series(1, 4000) AS g; CHECKPOINT"
    )
    pair.catch_up()
    with writing(pair.primary):
        full = site_.take()
    pair.primary.rows("UPDATE large SET b = 'y' WHERE id % 200 = 1; CHECKPOINT")
    pair.protected.archive_now()
    pair.catch_up()
    listener = Listener()

    with writing(pair.primary):
        summary = site_.take(listener, BackupKind.INCREMENTAL)
    pair.protected.archive_now()

    assert summary.kind is BackupKind.INCREMENTAL, listener.warnings
    assert summary.stored_bytes < full.stored_bytes / 3
    with restored(scene, pair.protected, summary.label) as found:
        assert content(found) == content(pair.primary)


def test_one_that_lags_behind_what_has_expired(scene: Scene) -> None:
    """Its backup would begin before WAL that is gone, and could never be restored."""
    pair = make_pair(scene, 18)
    site(pair.protected).take()
    pair.standby.sql("SELECT pg_wal_replay_pause()")
    point_at(pair.protected, pair.primary)
    pair.protected.change_policy(lambda policy: policy.update(retention={"full": 1}))
    for number in range(2):
        pair.primary.rows(f"INSERT INTO journal VALUES ({number})")
        pair.protected.archive_now()
        last = pair.protected.backup()
    pair.protected.drkit("expire", NAME)
    bounds = pair.protected.repository().log.read().wal_bounds
    replayed = Lsn.parse(pair.standby.sql("SELECT pg_last_wal_replay_lsn()::text"))
    assert replayed < bounds[1]
    point_at(pair.protected, pair.standby)
    site_ = site(pair.protected)

    with pytest.raises(AttemptFenced, match="has expired") as caught:
        site_.take()

    assert f"once it has replayed {bounds[1]}" in str(caught.value.hint)
    assert pair.protected.labels() == [last]
    assert_tidy(site_)
    assert_not_in_backup(pair.standby)

    pair.standby.sql("SELECT pg_wal_replay_resume()")
    pair.catch_up()
    with writing(pair.primary):
        summary = site_.take()
    pair.protected.archive_now()
    with restored(scene, pair.protected, summary.label) as found:
        assert content(found) == content(pair.primary)


def findings(pair: Pair) -> dict[str, tuple[State, str]]:
    subject = check_subject(pair.protected.policy(), Secrets({}), timedelta(seconds=1))
    return {one.name: (one.state, one.detail) for one in check(subject, Listener())}


def test_check_judges_archiving_by_what_arrives(scene: Scene) -> None:
    pair = make_pair(scene, 18)
    pair.protected.archive_now()
    pair.catch_up()

    found = findings(pair)
    assert found["server"] == (State.OK, "PostgreSQL 18, a standby on timeline 1")
    assert "archive_command" not in found
    state, detail = found["archiving"]
    assert state is State.OK
    assert "is archived" in detail
    failed = [name for name, (state, _) in found.items() if state is State.FAILED]
    assert failed == []

    pair.primary.rows("ALTER SYSTEM SET archive_command = 'false'")
    pair.primary.rows("SELECT pg_reload_conf()")
    pair.primary.switch_wal()
    pair.catch_up()
    assert findings(pair)["archiving"][0] is State.WARNING
    for _ in range(9):
        pair.primary.switch_wal()
    pair.catch_up()
    state, detail = findings(pair)["archiving"]
    assert state is State.FAILED
    assert "neither that nor the segments before it" in detail


def test_a_standby_that_followed_a_failover(scene: Scene) -> None:
    """One standby becomes the primary, another goes with it to the new timeline."""
    pair = make_pair(scene, 18)
    primary = pair.standby
    other = clone(scene, primary)
    primary.promote()
    primary.rows("CHECKPOINT")  # as the hint of a refusal says
    after = Pair(pair.protected, other, primary)
    after.catch_up()
    point_at(pair.protected, other)

    with writing(primary):
        summary = site(pair.protected).take()

    assert summary.timeline == 2
    with restored(scene, pair.protected, summary.label) as found:
        assert books(found)[0] == 500_000
        assert found.sql("SELECT timeline_id FROM pg_control_checkpoint()") == 3
