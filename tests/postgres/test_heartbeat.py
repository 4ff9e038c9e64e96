"""The heartbeat's table: made once, written in place, refused where it is not safe."""

from __future__ import annotations

from contextlib import closing
from datetime import timedelta
from typing import TYPE_CHECKING

import psycopg
import pytest

from drkit.errors import PostgresRefused
from drkit.postgres import heartbeat
from drkit.postgres.connection import connect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from drkit.postgres.connection import Connection
    from tests.pg import Cluster, ClusterFactory

    Connect = Callable[..., Connection]

VERSIONS = (15, 18)


@pytest.fixture(scope="module", params=VERSIONS, ids=lambda major: f"pg{major}")
def server(
    request: pytest.FixtureRequest, cluster_factory: ClusterFactory
) -> Iterator[Cluster]:
    cluster = cluster_factory.make(request.param)
    yield cluster
    cluster.close()


@pytest.fixture
def cluster(server: Cluster) -> Iterator[Cluster]:
    """A server whose database has no heartbeat."""
    yield server
    server.rows("DROP SCHEMA IF EXISTS drkit CASCADE")
    server.rows("DROP ROLE IF EXISTS mira")


@pytest.fixture
def session(cluster: Cluster) -> Iterator[Connect]:
    opened: list[Connection] = []

    def open_(user: str = "postgres") -> Connection:
        url = cluster.url.replace("postgres@", f"{user}@", 1)
        opened.append(connect(url, None, "test"))
        return opened[-1]

    yield open_
    for connection in opened:
        connection.close()


def test_what_was_written_is_read_back(cluster: Cluster, session: Connect) -> None:
    connection = session()
    assert heartbeat.read(connection) is None
    assert heartbeat.create(connection) is True
    assert heartbeat.read(connection) is None  # a table alone is no heartbeat
    before = cluster.sql("SELECT clock_timestamp()")
    first = heartbeat.write(connection, "host-a")
    assert heartbeat.read(session()) == first
    second = heartbeat.write(connection, "host-b")
    assert heartbeat.read(session()) == second
    assert before < first.written_at < second.written_at
    assert second.written_at.utcoffset() == timedelta(0)
    assert first.lsn < second.lsn
    assert first.nonce != second.nonce
    assert (first.host, second.host) == ("host-a", "host-b")
    assert cluster.sql("SELECT count(*) FROM drkit.heartbeat") == 1


def test_making_it_again_keeps_what_is_there(session: Connect) -> None:
    connection = session()
    heartbeat.create(connection)
    written = heartbeat.write(connection, "host-a")
    assert heartbeat.create(connection) is False
    assert heartbeat.read(connection) == written


@pytest.mark.parametrize("count", [500, pytest.param(10_000, marks=pytest.mark.long)])
def test_however_many_writes_stay_on_one_page(
    cluster: Cluster, session: Connect, count: int
) -> None:
    connection = session()
    heartbeat.create(connection)
    for _ in range(count):
        heartbeat.write(connection, "host-a")
    sizes = cluster.rows(
        "SELECT pg_relation_size('drkit.heartbeat'), "
        "pg_relation_size('drkit.heartbeat_pkey')"
    )
    assert sizes == [(8192, 16384)]
    connection.close()  # a session tells its numbers when it ends
    told = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables"
    for _ in range(100):
        [(updated, hot)] = cluster.rows(told)
        if updated >= count - 1:
            break
        cluster.sql("SELECT pg_sleep(0.05)")
    assert updated == hot == count - 1


def test_a_row_that_is_gone_is_written_anew(cluster: Cluster, session: Connect) -> None:
    connection = session()
    heartbeat.create(connection)
    heartbeat.write(connection, "host-a")
    cluster.rows("TRUNCATE drkit.heartbeat")
    assert heartbeat.read(connection) is None
    written = heartbeat.write(connection, "host-a")
    assert heartbeat.read(connection) == written


def test_without_a_table_it_says_how_to_make_one(session: Connect) -> None:
    with pytest.raises(PostgresRefused, match=r"no table drkit\.heartbeat") as refusal:
        heartbeat.write(session(), "host-a")
    assert "--create" in str(refusal.value.hint)


def test_a_role_without_rights_is_told_what_it_needs(
    cluster: Cluster, session: Connect
) -> None:
    cluster.rows("CREATE ROLE mira LOGIN")
    with pytest.raises(PostgresRefused, match="permission denied") as refusal:
        heartbeat.create(session("mira"))
    statements = str(refusal.value.hint).partition("postgres: ")[2]
    statements = statements.removesuffix(" then run this again")
    assert 'ALTER SCHEMA drkit OWNER TO "mira";' in statements
    cluster.rows(statements)
    mira = session("mira")
    assert heartbeat.create(mira) is True
    assert heartbeat.read(session("mira")) is None
    written = heartbeat.write(mira, "host-a")
    assert heartbeat.read(session()) == written


def test_a_role_without_rights_on_the_table_is_told_what_it_needs(
    cluster: Cluster, session: Connect
) -> None:
    cluster.rows("CREATE ROLE mira LOGIN")
    heartbeat.create(session())
    for use in (heartbeat.read, lambda mira: heartbeat.write(mira, "host-a")):
        with pytest.raises(PostgresRefused, match="permission denied") as refusal:
            use(session("mira"))
        assert "GRANT SELECT, INSERT, UPDATE" in str(refusal.value.hint)
    cluster.rows(str(refusal.value.hint).partition("postgres: ")[2])
    written = heartbeat.write(session("mira"), "host-a")
    assert heartbeat.read(session("mira")) == written


def test_another_role_s_triggers_do_not_run_with_our_rights(
    cluster: Cluster, session: Connect
) -> None:
    cluster.rows("CREATE ROLE mira LOGIN; CREATE SCHEMA drkit AUTHORIZATION mira")
    mira = session("mira")
    heartbeat.create(mira)
    mira.execute(
        "CREATE FUNCTION drkit.take() RETURNS trigger LANGUAGE plpgsql AS "
        "$$BEGIN ALTER ROLE mira SUPERUSER; RETURN NEW; END$$"
    )
    mira.execute(
        "CREATE TRIGGER take BEFORE INSERT ON drkit.heartbeat FOR EACH ROW "
        "EXECUTE FUNCTION drkit.take()"
    )
    with pytest.raises(PostgresRefused, match="belongs to mira") as refusal:
        heartbeat.write(session(), "host-a")
    assert 'OWNER TO "postgres"' in str(refusal.value.hint)
    assert cluster.sql("SELECT rolsuper FROM pg_roles WHERE rolname = 'mira'") is False


KNOWN = "id smallint, written_at timestamptz"
VIEW = (
    "CREATE VIEW drkit.heartbeat AS SELECT 1::int2 AS id, now() AS written_at, "
    "'0/1'::pg_lsn AS lsn, 'host'::text AS host, 'nonce'::text AS nonce"
)
FEWER = f"CREATE TABLE drkit.heartbeat ({KNOWN})"
OTHERS = f"CREATE TABLE drkit.heartbeat ({KNOWN}, lsn text, host text, nonce text)"


@pytest.mark.parametrize("other", [VIEW, FEWER, OTHERS], ids=["view", "fewer", "other"])
def test_something_else_of_that_name_is_left_alone(
    cluster: Cluster, session: Connect, other: str
) -> None:
    cluster.rows(f"CREATE SCHEMA drkit; {other}")
    connection = session()
    for use in (
        heartbeat.read,
        heartbeat.create,
        lambda connection: heartbeat.write(connection, "host-a"),
    ):
        with pytest.raises(PostgresRefused, match="is not drkit's table"):
            use(connection)


def test_an_unlogged_table_is_refused(cluster: Cluster, session: Connect) -> None:
    connection = session()
    heartbeat.create(connection)
    cluster.rows("ALTER TABLE drkit.heartbeat SET UNLOGGED")
    with pytest.raises(PostgresRefused, match="unlogged"):
        heartbeat.write(connection, "host-a")


def test_a_locked_table_holds_nobody_up_for_long(
    cluster: Cluster, session: Connect
) -> None:
    connection = session()
    heartbeat.create(connection)
    with closing(cluster.connect()) as other, other.transaction():
        other.execute("LOCK TABLE drkit.heartbeat")
        with pytest.raises(PostgresRefused, match="lock timeout") as refusal:
            heartbeat.write(connection, "host-a")
    assert "pg_locks" in str(refusal.value.hint)
    heartbeat.write(connection, "host-a")  # the session is as good as before
    assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
    assert connection.execute("SHOW lock_timeout").fetchall() == [("0",)]


def test_a_synchronous_standby_that_is_gone_stops_no_heartbeat(
    cluster: Cluster, session: Connect
) -> None:
    connection = session()
    heartbeat.create(connection)
    cluster.rows("ALTER SYSTEM SET synchronous_standby_names = 'gone'")
    cluster.rows("SELECT pg_reload_conf()")
    try:
        waiting = session()
        while waiting.execute("SHOW synchronous_standby_names").fetchall() != [
            ("gone",)
        ]:
            waiting = session()
        begun = cluster.sql("SELECT clock_timestamp()")
        heartbeat.write(waiting, "host-a")
        assert cluster.sql("SELECT clock_timestamp()") - begun < timedelta(seconds=5)
    finally:
        cluster.rows("ALTER SYSTEM RESET synchronous_standby_names")
        cluster.rows("SELECT pg_reload_conf()")


def test_a_read_only_server_is_refused(cluster: Cluster, session: Connect) -> None:
    heartbeat.create(session())
    cluster.rows("ALTER ROLE postgres SET default_transaction_read_only = on")
    try:
        for use in (
            heartbeat.create,
            lambda connection: heartbeat.write(connection, "host-a"),
        ):
            with pytest.raises(PostgresRefused, match="read-only"):
                use(session())
    finally:
        with cluster.connect(options="-c default_transaction_read_only=off") as other:
            other.execute("ALTER ROLE postgres RESET default_transaction_read_only")
