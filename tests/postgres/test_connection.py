"""Sessions for backups: settings, refusals, facts, and secrets that stay secret."""

from __future__ import annotations

import os
import resource
import socket
import struct
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from drkit.errors import PostgresRefused, PostgresUnreachable, UsageError
from drkit.model.lsn import Lsn
from drkit.postgres.connection import (
    connect,
    replication_connect,
)
from drkit.postgres.control import read_control
from drkit.postgres.facts import Tablespace, read_facts
from drkit.postgres.session import BackupSession

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from drkit.postgres.connection import Connection
    from tests.conftest import MakeCluster
    from tests.pg import Cluster

SECRET = "s3cr3t-Pass"  # no URL character in it


def begin(connection: Connection, label: str) -> BackupSession:
    session = BackupSession(connection)
    session.begin(label)
    return session


def whole(error: BaseException) -> str:
    """Everything a traceback would print of an error and of what it came from."""
    texts, current = [], error
    while current is not None:
        texts += [str(current), repr(current), str(getattr(current, "hint", ""))]
        current = current.__cause__ or (
            None if current.__suppress_context__ else current.__context__
        )
    return "\n".join(texts)


def test_session_lasts_whatever_the_server_says(
    pg_version: int, make_cluster: MakeCluster
) -> None:
    cluster = make_cluster(pg_version)
    cluster.sql(
        "ALTER ROLE postgres SET statement_timeout = 1000;"
        "ALTER ROLE postgres SET lock_timeout = 1000;"
        "ALTER ROLE postgres SET idle_session_timeout = 1000;"
        "ALTER ROLE postgres SET idle_in_transaction_session_timeout = 1000;"
        "ALTER ROLE postgres SET search_path = evil, pg_catalog;"
        "ALTER ROLE postgres SET client_encoding = 'LATIN1'"
    )
    if pg_version >= 17:
        cluster.sql("ALTER ROLE postgres SET transaction_timeout = 1000")

    with connect(cluster.url, None, "backup") as connection:
        timeouts = connection.query(
            "SELECT name, setting FROM pg_settings WHERE name IN ('lock_timeout', "
            "'statement_timeout') OR name LIKE '%\\_timeout' AND context = 'user' "
            "AND category = 'Client Connection Defaults / Statement Behavior'",
        )
        assert {value for _, value in timeouts} == {"0"}
        assert ("transaction_timeout" in dict(timeouts)) == (pg_version >= 17)
        assert connection.query("SHOW search_path") == [("pg_catalog",)]
        assert connection.query("SHOW application_name") == [("drkit backup",)]
        assert connection.query("SHOW client_encoding") == [("UTF8",)]
        assert connection.autocommit


def test_facts_are_what_the_server_shows(
    pg_version: int, make_cluster: MakeCluster, make_directory: Callable[[], Path]
) -> None:
    cluster = make_cluster(
        pg_version,
        {"archive_command": "cp %p '/archive/%f'"},
        wal_segment_size=4 << 20,
        data_checksums=False,
        group_access=True,
    )
    outside = make_directory()
    with cluster.connect() as session:
        session.execute(f"CREATE TABLESPACE \"with ' quote\" LOCATION '{outside}'")
        session.execute("SET allow_in_place_tablespaces = on")
        session.execute("CREATE TABLESPACE inside LOCATION ''")

    with connect(cluster.url, None, "check") as connection:
        facts = read_facts(connection)

    control, _ = read_control(f"{cluster.data_directory}/global/pg_control")
    assert facts.major_version == pg_version
    assert facts.system_identifier == control.system_identifier
    assert facts.wal_segment_size == 4 << 20
    assert facts.block_size == 8192
    assert facts.data_checksums is False
    assert facts.data_directory == cluster.data_directory
    assert facts.data_directory_mode == 0o750
    assert facts.in_recovery is False
    assert facts.timeline == 1
    assert control.redo <= facts.current_lsn <= facts.insert_lsn
    assert facts.archive_mode == "off"
    assert facts.archive_command == "cp %p '/archive/%f'"
    assert facts.archive_library == ""
    assert facts.wal_level == "replica"
    assert facts.config_file == f"{cluster.data_directory}/postgresql.conf"
    assert facts.hba_file == f"{cluster.data_directory}/pg_hba.conf"
    assert facts.ident_file == f"{cluster.data_directory}/pg_ident.conf"
    assert facts.server_encoding == "UTF8"
    first, second = facts.tablespaces
    assert first == Tablespace(first.oid, "with ' quote", str(outside))
    assert second == Tablespace(second.oid, "inside", f"pg_tblspc/{second.oid}")


def test_facts_of_a_standby_and_of_its_promotion(
    pg_version: int, make_cluster: MakeCluster
) -> None:
    cluster = make_cluster(pg_version)
    cluster.stop()
    Path(cluster.data_directory, "standby.signal").touch()
    cluster.start()
    with connect(cluster.url, None, "check") as connection:
        facts = read_facts(connection)
        assert facts.in_recovery is True
        assert facts.timeline == 1
        assert facts.current_lsn == facts.insert_lsn > 0
        cluster.promote()
        assert read_facts(connection).timeline == 2  # no checkpoint was needed


def test_backup_session_gives_what_the_server_would_write(
    pg_version: int, make_cluster: MakeCluster, make_directory: Callable[[], Path]
) -> None:
    cluster = make_cluster(pg_version)
    directory = make_directory()
    cluster.sql(f"CREATE TABLESPACE ts LOCATION '{directory}'")

    with connect(cluster.url, None, "backup") as connection:
        session = begin(connection, "nightly é")
        start = session.start()
        assert session.alive()
        assert session.timeline == 1
        stop = session.stop()

    label = stop.backup_label.decode()
    assert label.startswith(f"START WAL LOCATION: {start} (file 00000001")
    assert "LABEL: nightly é\n" in label
    assert stop.lsn > start
    oid = cluster.sql("SELECT oid FROM pg_tablespace WHERE spcname = 'ts'")
    assert stop.tablespace_map == f"{oid} {directory}\n".encode()


def test_a_start_is_told_as_it_was_when_the_server_began(
    pg_version: int, make_cluster: MakeCluster
) -> None:
    """However late the answer is fetched."""
    cluster = make_cluster(pg_version)
    with connect(cluster.url, None, "backup") as connection:
        session = begin(connection, "early")
        time.sleep(1)
        later = cluster.sql("SELECT clock_timestamp()")
        session.start()
    assert session.time is not None
    assert later - session.time > timedelta(seconds=0.3)


def test_labels_in_the_servers_own_encoding(
    newest_version: int, make_cluster: MakeCluster
) -> None:
    cluster = make_cluster(newest_version, encoding="LATIN1")
    with connect(cluster.url, None, "backup") as connection:
        session = begin(connection, "é")
        session.start()
        stop = session.stop()
    assert b"LABEL: \xe9\n" in stop.backup_label
    assert stop.tablespace_map == b""


def test_lost_backup_session_is_noticed(
    pg_version: int, make_cluster: MakeCluster
) -> None:
    cluster = make_cluster(pg_version)
    with connect(cluster.url, None, "backup") as connection:
        session = begin(connection, "cut short")
        session.start()
        pid = connection.info.backend_pid
        cluster.sql(f"SELECT pg_terminate_backend({pid}, 5000)")

        assert not session.alive()
        with pytest.raises(PostgresUnreachable, match="was lost"):
            session.stop()


def test_immediate_shutdown_ends_the_session(
    newest_version: int, make_cluster: MakeCluster
) -> None:
    cluster = make_cluster(newest_version)
    with connect(cluster.url, None, "backup") as connection:
        session = begin(connection, "cut short")
        session.start()
        cluster.stop("immediate")
        assert not session.alive()
    with pytest.raises(PostgresUnreachable, match="cannot connect"):
        connect(cluster.url, None, "backup")


def test_promotion_in_mid_backup_is_refused(
    pg_version: int, make_cluster: MakeCluster
) -> None:
    cluster = make_cluster(pg_version)
    cluster.stop()
    Path(cluster.data_directory, "standby.signal").touch()
    cluster.start()
    with connect(cluster.url, None, "backup") as connection:
        session = begin(connection, "from a standby")
        session.start()
        cluster.promote()
        with pytest.raises(PostgresRefused, match="promoted during online backup"):
            session.stop()


def test_an_answer_is_waited_for_apart_from_its_question(
    newest_version: int, make_cluster: MakeCluster
) -> None:
    cluster = make_cluster(newest_version)
    with connect(cluster.url, None, "check") as connection:
        begun = time.monotonic()
        connection.send("SELECT pg_sleep(0.5) || $1", ("é",))
        assert time.monotonic() - begun < 0.4
        assert connection.received() == "é"
        assert time.monotonic() - begun >= 0.5

        connection.send("SELECT $1::int / 0", ("1",))
        with pytest.raises(PostgresRefused, match="division by zero"):
            connection.received()
        assert connection.query("SELECT 1") == [(1,)]  # the session goes on


def test_a_session_that_is_lost_while_it_waits(
    newest_version: int, make_cluster: MakeCluster
) -> None:
    cluster = make_cluster(newest_version)
    with connect(cluster.url, None, "check") as connection:
        connection.send("SELECT pg_sleep(60)::text", ())
        pid = connection.info.backend_pid
        cluster.sql(f"SELECT pg_terminate_backend({pid}, 5000)")
        with pytest.raises(PostgresUnreachable, match="was lost"):
            connection.received()
        with pytest.raises(PostgresUnreachable, match="was lost"):
            connection.send("SELECT ''", ())


def test_an_answer_comes_on_a_descriptor_of_any_number(
    newest_version: int, make_cluster: MakeCluster
) -> None:
    cluster = make_cluster(newest_version)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
    with ExitStack() as opened:
        opened.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        for _ in range(1100):  # select.select takes none above 1023
            opened.callback(os.close, os.open(os.devnull, os.O_RDONLY))
        with connect(cluster.url, None, "check") as connection:
            assert connection.fileno() > 1023
            connection.send("SELECT pg_sleep(0.1) || $1", ("far",))
            assert connection.received() == "far"


def test_the_end_of_a_session_ends_what_it_waits_for(
    newest_version: int, make_cluster: MakeCluster
) -> None:
    cluster = make_cluster(newest_version)
    connection = connect(cluster.url, None, "check")
    pid = connection.info.backend_pid
    connection.send("SELECT pg_sleep(60)::text", ())
    connection.end()
    sessions = f"SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}"
    deadline = time.monotonic() + 30
    while cluster.sql(sessions):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    connection.end()  # is closed already


def test_errors_of_statements_say_what_the_server_said(
    newest_version: int, make_cluster: MakeCluster
) -> None:
    cluster = make_cluster(newest_version)
    cluster.sql("CREATE ROLE weak LOGIN")
    with connect(cluster.url, None, "check") as connection:
        with pytest.raises(PostgresRefused, match="division by zero"):
            connection.query("SELECT 1 / 0")
        assert connection.query("SELECT 1") == [(1,)]
        begin(connection, "a").start()
        with pytest.raises(PostgresRefused, match="already in progress"):
            begin(connection, "b").start()

    weak = cluster.url.replace("postgres@", "weak@")
    with connect(weak, None, "check") as connection:
        with pytest.raises(PostgresRefused, match="permission denied") as caught:
            begin(connection, "a").start()
        assert caught.value.hint is not None
        assert "pg_monitor" in caught.value.hint


def test_rights_that_the_hint_names_are_enough(
    pg_version: int, make_cluster: MakeCluster
) -> None:
    cluster = make_cluster(pg_version)
    cluster.sql(
        "CREATE ROLE backup LOGIN IN ROLE pg_monitor;"
        "GRANT EXECUTE ON FUNCTION pg_backup_start(text, boolean) TO backup;"
        "GRANT EXECUTE ON FUNCTION pg_backup_stop(boolean) TO backup"
    )
    url = cluster.url.replace("postgres@", "backup@")
    with connect(url, None, "backup") as connection:
        session = begin(connection, "by a lesser role")
        session.start()
        assert session.stop().lsn > 0


@pytest.fixture
def with_passwords(newest_version: int, make_cluster: MakeCluster) -> Cluster:
    cluster = make_cluster(newest_version)
    cluster.sql(f"CREATE ROLE app LOGIN REPLICATION PASSWORD '{SECRET}'")
    hba = Path(cluster.data_directory, "pg_hba.conf")
    rules = (
        "local all postgres trust\nlocal all app scram-sha-256\n"
        "local replication app scram-sha-256\n"
    )
    hba.write_text(rules)
    cluster.sql("SELECT pg_reload_conf()")
    return cluster


def test_password_beside_the_url(with_passwords: Cluster) -> None:
    url = with_passwords.url.replace("postgres@", "app@")
    with connect(url, SECRET, "check") as connection:
        assert connection.query("SELECT current_user") == [("app",)]
    connection = replication_connect(url, SECRET, "backup")
    connection.finish()


@pytest.mark.parametrize("place", ["beside", "within"])
@pytest.mark.parametrize("way", [connect, replication_connect])
def test_wrong_password_is_refused_and_not_repeated(
    way: Callable[..., object], place: str, with_passwords: Cluster
) -> None:
    wrong = "wrong-Pass"
    user = "app" if place == "beside" else f"app:{wrong}"
    url = with_passwords.url.replace("postgres@", f"{user}@")
    with pytest.raises(PostgresRefused, match="refused the login") as caught:
        way(url, wrong if place == "beside" else None, "check")
    assert wrong not in whole(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://app:{SECRET}@host:port/db?nonsense=1",
        f"postgresql://app:{SECRET}@[::1/db",
        f"host=x password={SECRET} broken",
        f"postgresql:/app:{SECRET}@host",
    ],
)
@pytest.mark.parametrize("way", [connect, replication_connect])
def test_malformed_urls_are_refused_and_not_repeated(
    way: Callable[..., object], url: str
) -> None:
    with pytest.raises((UsageError, PostgresUnreachable)) as caught:
        way(url, None, "check")
    assert SECRET not in whole(caught.value)


@pytest.mark.parametrize("way", [connect, replication_connect])
def test_nobody_listens(way: Callable[..., object], tmp_path: Path) -> None:
    url = f"postgresql://app:{SECRET}@/db?host={tmp_path}"
    with pytest.raises(PostgresUnreachable, match="cannot connect") as caught:
        way(url, None, "check")
    assert caught.value.hint is not None
    assert SECRET not in whole(caught.value)


@pytest.mark.parametrize("way", [connect, replication_connect])
def test_missing_database_or_role_is_a_refusal(
    way: Callable[..., object], newest_version: int, make_cluster: MakeCluster
) -> None:
    url = make_cluster(newest_version).url.replace("postgres@", "nobody_such@")
    with pytest.raises(PostgresRefused, match="nobody_such"):
        way(url, None, "check")


def test_replication_connection_speaks_the_protocol(
    pg_version: int, make_cluster: MakeCluster
) -> None:
    cluster = make_cluster(pg_version)
    connection = replication_connect(cluster.url, None, "backup")
    try:
        result = connection.exec_(b"IDENTIFY_SYSTEM")
        assert result.status == psycopg.pq.ExecStatus.TUPLES_OK
        assert result.get_value(0, 1) == b"1"
        lsn = result.get_value(0, 2)
        assert lsn is not None
        assert Lsn.parse(lsn.decode()) > 0
        shown = cluster.sql(
            "SELECT application_name FROM pg_stat_replication "
            "UNION SELECT application_name FROM pg_stat_activity "
            "WHERE backend_type = 'walsender'"
        )
        assert shown == "drkit backup"
    finally:
        connection.finish()


def relay_as_a_pooler(listener: socket.socket, server_path: str) -> None:
    """Pass one session on, with a process id of one's own as poolers make them up."""
    client, _ = listener.accept()
    server = socket.socket(socket.AF_UNIX)
    server.connect(server_path)

    def to_server() -> None:
        while data := client.recv(65536):
            server.sendall(data)
        server.shutdown(socket.SHUT_WR)

    upstream = threading.Thread(target=to_server)
    upstream.start()
    stream = server.makefile("rb")
    while kind := stream.read(1):
        length = stream.read(4)
        body = stream.read(struct.unpack("!I", length)[0] - 4)
        if kind == b"K":  # BackendKeyData
            body = struct.pack("!I", 4711) + body[4:]
        client.sendall(kind + length + body)
    client.close()
    upstream.join()
    stream.close()
    server.close()


@pytest.fixture
def pooler(newest_version: int, make_cluster: MakeCluster) -> Iterator[str]:
    cluster = make_cluster(newest_version)
    directory = Path(cluster.directory, "pool")
    directory.mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory / ".s.PGSQL.5432"))
        listener.listen()
        server_path = f"{cluster.directory}/.s.PGSQL.5432"
        thread = threading.Thread(
            target=relay_as_a_pooler, args=(listener, server_path)
        )
        thread.start()
        yield f"postgresql://postgres@/postgres?host={directory}"
        thread.join()


def test_poolers_are_refused(pooler: str) -> None:
    with pytest.raises(PostgresRefused, match="connection pooler"):
        connect(pooler, None, "backup")


def test_psycopg_prints_nothing_by_itself() -> None:
    script = """
import logging
import drkit.postgres.connection
logging.getLogger("psycopg").warning("error ignored in rollback")
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True
    )
    assert (done.stdout, done.stderr) == (b"", b"")
