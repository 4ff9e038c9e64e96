"""Fingerprints of real clusters: what differs is found, and what does not is not."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from drkit.errors import PostgresRefused
from drkit.model.evidence import CheckState
from drkit.model.fingerprint import Content, Mode
from drkit.model.fingerprint_json import dump, load
from drkit.operations.fingerprints.taking import (
    Limits,
    checks,
    compare,
    deviations,
    take,
)
from drkit.postgres.connection import connector
from drkit.wiring import SystemClock
from tests.operations.fingerprints import PLANTED, fill, taken, taken_again, writers
from tests.operations.scene import restore
from tests.protect import SETTINGS

if TYPE_CHECKING:
    from drkit.model.fingerprint import Fingerprint
    from tests.conftest import MakeCluster
    from tests.operations.scene import Scene
    from tests.pg import Cluster

ORDERS = "shop.orders"


def failed(expected: Fingerprint, found: Fingerprint) -> dict[str, str]:
    """Return the failed checks' details by what they check."""
    return {
        check.name.removeprefix("fingerprint: "): check.detail
        for check in checks(expected, found)
        if check.state is CheckState.FAILED
    }


def test_every_planted_fault_is_found_at_its_check(
    pg_version: int, make_cluster: MakeCluster
) -> None:
    cluster = make_cluster(pg_version, {"max_locks_per_transaction": "128"})
    fill(cluster)
    expected = load(dump(taken(cluster, Mode.EXACT)))
    assert compare(expected, taken_again(cluster, expected)) == []
    for fault in PLANTED:
        cluster.rows(fault.statement)
    cluster.rows("SELECT pg_reload_conf()")
    threading.Event().wait(0.2)
    differences = compare(expected, taken_again(cluster, expected))
    for fault in PLANTED:
        texts = [one.text for one in differences if one.check == fault.check]
        assert any(fault.says in text for text in texts), (fault, texts)


@pytest.mark.long
def test_every_planted_fault_is_found_alone(
    pg_version: int, make_cluster: MakeCluster
) -> None:
    cluster = make_cluster(pg_version, {"max_locks_per_transaction": "128"})
    fill(cluster)
    for fault in PLANTED:
        expected = taken(cluster, Mode.EXACT)
        cluster.rows(fault.statement)
        cluster.rows("SELECT pg_reload_conf()")
        threading.Event().wait(0.1)
        differences = compare(expected, taken_again(cluster, expected))
        assert any(
            one.check == fault.check and fault.says in one.text for one in differences
        ), (fault, differences)


def test_a_backup_restored_to_the_moment_equals_it(
    newest_version: int, scene: Scene
) -> None:
    _restore_and_compare(newest_version, newest_version, scene)


@pytest.mark.long
def test_a_backup_of_any_major_equals_it_though_many_wrote(
    pg_version: int, newest_version: int, scene: Scene
) -> None:
    _restore_and_compare(pg_version, newest_version, scene)


def _restore_and_compare(pg_version: int, newest_version: int, scene: Scene) -> None:
    protected = scene.protect(pg_version)
    cluster = protected.cluster
    fill(cluster)
    label = protected.backup()
    with writers(cluster) as done:
        sample = taken(cluster, Mode.SAMPLED, "sampled")
        exact = taken(cluster, Mode.EXACT, "exact", Limits(fall_back=False))
        assert min(done) > 0
    assert exact.held_seconds < 2
    assert exact.databases[0].tables[ORDERS].rows == 10003
    protected.archive_now()
    for expected in (sample, exact) if pg_version == newest_version else (exact,):
        target = scene.target()
        assert expected.restore_point is not None
        restore(protected, target, label, "--target-name", expected.restore_point)
        restored = scene.start(target, pg_version, autovacuum="off")
        found = taken_again(restored, expected)
        assert failed(expected, found) == {}
        restored.rows("UPDATE shop.orders SET content = content || '!'")
        assert "tables" in failed(expected, taken_again(restored, expected))
        restored.close()


def test_one_row_of_a_million_is_found(
    newest_version: int, make_cluster: MakeCluster
) -> None:
    cluster = make_cluster(newest_version)
    cluster.rows(
        "CREATE TABLE big AS SELECT n, 'row ' || n AS t FROM "
        "generate_series(1, 1000000) n"
    )
    expected = taken(cluster, Mode.EXACT)
    assert expected.databases[0].tables["public.big"].rows == 1000000
    cluster.rows("UPDATE big SET t = 'row 65432l' WHERE n = 654321")
    found = failed(expected, taken_again(cluster, expected))
    assert set(found) == {"tables"}
    assert "1000000 rows as it had, but with other content" in found["tables"]
    cluster.rows("UPDATE big SET t = 'row 654321' WHERE n = 654321")
    assert failed(expected, taken_again(cluster, expected)) == {}


def test_a_sample_says_what_it_holds_and_finds_what_it_promises(
    newest_version: int, make_cluster: MakeCluster
) -> None:
    cluster = make_cluster(newest_version)
    fill(cluster)
    expected = taken(cluster, Mode.SAMPLED, limits=Limits(blocks=20))
    held = expected.databases[0].tables
    assert held["public.parts_1"].whole
    assert 0 < held[ORDERS].percent < 50
    assert 0 < held[ORDERS].rows < 8000
    assert any("some 20 blocks each" in limit for limit in expected.limits)
    cluster.rows("UPDATE parts_1 SET id = 0 WHERE id = 2")
    cluster.rows("DELETE FROM shop.orders WHERE id > 8000")
    details = failed(expected, taken_again(cluster, expected))["tables"]
    assert "public.parts_1" in details
    assert f"{ORDERS} in database postgres has" in details
    assert "in the blocks that were compared" in details


def test_time_that_is_over_is_told(
    newest_version: int, make_cluster: MakeCluster
) -> None:
    cluster = make_cluster(newest_version)
    fill(cluster)
    expected = taken(cluster, Mode.SAMPLED, limits=Limits(seconds=1e-9))
    assert expected.databases[0].tables == {}
    told = "shop.orders in database postgres is not compared: the time for a sample"
    found = taken_again(cluster, expected)
    assert any(one.startswith(told) for one in deviations(expected, found))


def test_writers_that_do_not_end_make_it_a_sample_that_says_so(
    newest_version: int, make_cluster: MakeCluster
) -> None:
    cluster = make_cluster(newest_version)
    fill(cluster)
    limits = Limits(lock_seconds=0.2, lock_attempts=2)
    with cluster.connect(application_name="a long report") as writer:
        writer.execute("BEGIN; UPDATE shop.orders SET price = 1 WHERE id = 1")
        made = taken(cluster, Mode.EXACT, limits=limits)
        assert made.mode is Mode.SAMPLED
        assert "a long report" in made.limits[0]
        assert ORDERS in made.limits[0]
        with pytest.raises(PostgresRefused, match="2 attempts"):
            taken(cluster, Mode.EXACT, limits=Limits(2, 9, 0.1, 2, fall_back=False))
        writer.execute("ROLLBACK")
    assert taken(cluster, Mode.EXACT, limits=limits).mode is Mode.EXACT


def test_no_writer_is_ended_for_a_deadlock_with_the_locks(
    newest_version: int, make_cluster: MakeCluster
) -> None:
    """The writer has what the locks wait for, and then asks for what they have."""
    cluster = make_cluster(newest_version)
    cluster.rows("CREATE TABLE first AS SELECT 1 AS n; CREATE TABLE second (n int)")
    found: list[Fingerprint] = []

    def take_one() -> None:
        limits = Limits(lock_seconds=60, lock_attempts=1)
        found.append(taken(cluster, Mode.EXACT, limits=limits))

    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    thread = threading.Thread(target=take_one)
    with cluster.connect() as writer:
        writer.execute("BEGIN; INSERT INTO second VALUES (1)")
        thread.start()
        while not cluster.sql(waiting):
            threading.Event().wait(0.01)
        writer.execute("UPDATE first SET n = 2; COMMIT")
    thread.join()
    assert found[0].mode is Mode.SAMPLED


def test_a_prepared_transaction_is_named(
    newest_version: int, make_cluster: MakeCluster
) -> None:
    cluster = make_cluster(newest_version, {"max_prepared_transactions": "2"})
    fill(cluster)
    cluster.psql("BEGIN; INSERT INTO guarded VALUES (2); PREPARE TRANSACTION 'left';")
    limits = Limits(lock_seconds=0.1, lock_attempts=1)
    made = taken(cluster, Mode.EXACT, limits=limits)
    assert "a prepared transaction has a lock on public.guarded" in made.limits[0]
    assert compare(made, taken_again(cluster, made)) == []


def test_more_tables_than_the_server_can_lock_are_sampled(
    newest_version: int, make_cluster: MakeCluster
) -> None:
    settings = {"max_locks_per_transaction": "10", "max_connections": "10"}
    cluster = make_cluster(newest_version, settings)
    cluster.psql(
        "SELECT format('CREATE TABLE t%s ()', n) FROM generate_series(1, 80) n \\gexec"
    )
    made = taken(cluster, Mode.EXACT)
    assert made.mode is Mode.SAMPLED
    assert "room for" in made.limits[0]


def test_writers_go_on_while_rows_are_read(
    newest_version: int, make_cluster: MakeCluster
) -> None:
    """The lock is gone before the first row is read."""
    cluster = make_cluster(newest_version)
    fill(cluster)
    with writers(cluster, 1) as done:
        made = taken(cluster, Mode.EXACT, limits=Limits(fall_back=False))
        assert done[0] > 0
    assert made.held_seconds < 1
    waiting = "SELECT count(*) FROM pg_locks WHERE mode = 'ShareLock' AND granted"
    assert cluster.sql(waiting + " AND locktype = 'relation'") == 0


def test_what_a_role_may_not_read_is_told(
    newest_version: int, make_cluster: MakeCluster
) -> None:
    cluster = make_cluster(newest_version)
    fill(cluster)
    cluster.rows("CREATE ROLE weak LOGIN; GRANT pg_monitor TO weak")
    url = cluster.url.replace("postgres@", "weak@")
    connect = connector(url, None, "fingerprint")
    with pytest.raises(PostgresRefused, match="permission denied"):
        take(connect, Mode.SAMPLED, "p", SystemClock())
    cluster.rows("GRANT EXECUTE ON FUNCTION pg_create_restore_point TO weak")
    made = take(connect, Mode.SAMPLED, "p", SystemClock())
    unread = made.databases[0].unread
    assert "pg_read_all_data" in unread[ORDERS]
    assert unread["shop.numbers"] == "the role may not read the sequence"
    assert "password set" not in made.facts["roles"]["weak"]


def test_no_secret_is_in_it(newest_version: int, make_cluster: MakeCluster) -> None:
    cluster = make_cluster(newest_version)
    fill(cluster)
    hashed = cluster.sql("SELECT rolpassword FROM pg_authid WHERE rolname = 'writer'")
    stored = dump(taken(cluster, Mode.EXACT)).decode()
    assert hashed not in stored
    assert "never shown" not in stored
    assert '"password set":"true"' in stored


def test_a_standby_is_sampled_at_an_lsn(
    newest_version: int, make_cluster: MakeCluster
) -> None:
    cluster = make_cluster(newest_version, SETTINGS | {"archive_command": "true"})
    fill(cluster)
    cluster.rows("CREATE ROLE drkit LOGIN; GRANT pg_read_all_data TO drkit")
    standby = _standby_of(cluster)
    url = standby.url.replace("postgres@", "drkit@")
    connect = connector(url, None, "fingerprint")
    made = take(connect, Mode.EXACT, "fingerprint", SystemClock())
    assert made.mode is Mode.SAMPLED
    assert made.restore_point is None
    assert "standby" in made.limits[0]
    assert made.databases[0].tables[ORDERS].rows > 0
    assert failed(made, taken_again(standby, made)) == {}


def _standby_of(cluster: Cluster) -> Cluster:
    """Let a cluster be a standby of nobody."""
    cluster.stop()
    Path(cluster.data_directory, "standby.signal").touch()
    cluster.start()
    return cluster


def test_digests_are_of_rows_as_a_cast_writes_them(
    pg_version: int, make_cluster: MakeCluster
) -> None:
    """So fingerprints that were taken by casts compare."""
    cluster = make_cluster(pg_version, {"max_locks_per_transaction": "128"})
    fill(cluster)
    exact = taken(cluster, Mode.EXACT).databases[0].tables
    for name in (ORDERS, 'shop."odd ""näme""\n        of two lines"', "public.nothing"):
        with cluster.connect() as session:
            session.execute("SET TimeZone = 'UTC'; SET extra_float_digits = 1")
            rows, *sums = session.execute(
                'SELECT count(*), sum(hashtextextended(t::text COLLATE "C", 0)),'
                ' sum(hashtextextended(t::text COLLATE "C", 6148914691236517205))'
                f" FROM (SELECT * FROM ONLY {name}) AS t"
            ).fetchall()[0]
        wanted = "".join(f"{int(one) % (1 << 64):016x}" for one in sums)
        assert exact[name] == Content(rows, wanted)
