"""A database user against the fingerprint that a backup takes of his tables."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from drkit.model.fingerprint import Mode
from drkit.operations.fingerprints.taking import take
from drkit.postgres.connection import connect, connector
from drkit.postgres.fingerprint_guard import CODE, UNHELD
from drkit.wiring import SystemClock
from tests.attacks.hostile import before_each, code_that_ran, mallory_in
from tests.operations.fingerprints import taken, taken_again

if TYPE_CHECKING:
    from drkit.model.fingerprint import DatabaseFingerprint, Fingerprint
    from tests.attacks.hostile import Mallory
    from tests.conftest import MakeCluster
    from tests.pg import Cluster

MODES = list(Mode)
ROOM = {"max_locks_per_transaction": "128"}


@pytest.fixture
def cluster(pg_version: int, make_cluster: MakeCluster) -> Cluster:
    return make_cluster(pg_version, ROOM)


@pytest.fixture
def mallory(cluster: Cluster) -> Mallory:
    return mallory_in(cluster)


def held(fingerprint: Fingerprint, database: str = "postgres") -> DatabaseFingerprint:
    found = fingerprint.database(database)
    assert found is not None
    return found


@pytest.mark.parametrize("mode", MODES)
def test_a_cast_of_rows_is_not_used(
    cluster: Cluster, mallory: Mallory, mode: Mode
) -> None:
    mallory.does(
        "CREATE FUNCTION m.shown(m.t) RETURNS text LANGUAGE plpgsql AS "
        "$$BEGIN PERFORM m.sprung(); RETURN 'x'; END$$;"
        "CREATE CAST (m.t AS text) WITH FUNCTION m.shown(m.t) AS IMPLICIT"
    )
    made = taken(cluster, mode)
    assert made.mode is mode
    assert code_that_ran(cluster) == []
    assert held(made).tables["m.t"].rows == 300
    mallory.does("UPDATE m.t SET b = 'other' WHERE a = 7")
    again = taken_again(cluster, made)
    assert held(again).tables["m.t"] != held(made).tables["m.t"]


@pytest.mark.parametrize("column", ["drkit row", "seen", "content", "place", "r"])
def test_no_column_hides_the_others(
    newest_version: int, make_cluster: MakeCluster, column: str
) -> None:
    cluster = make_cluster(newest_version, ROOM)
    cluster.rows(f'CREATE TABLE t AS SELECT 1 AS a, 2 AS "{column}"')
    made = taken(cluster, Mode.SAMPLED)
    cluster.rows("UPDATE t SET a = 3")
    again = taken_again(cluster, made)
    assert held(again).tables["public.t"] != held(made).tables["public.t"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "trap",
    [
        "CREATE INDEX i ON m.t ((m.spring(1)))",
        "CREATE INDEX i ON m.t (a) WHERE m.spring(1) = 1",
        "CREATE STATISTICS m.x ON (m.spring(1)), a FROM m.t",
        """CREATE OPERATOR m.+ (RIGHTARG = int, FUNCTION = m.spring);
        CREATE INDEX i ON m.t ((OPERATOR(m.+) 1))""",
    ],
    ids=["expression", "predicate", "statistics", "operator"],
)
def test_planning_runs_nobodys_functions(
    cluster: Cluster, mallory: Mallory, trap: str, mode: Mode
) -> None:
    mallory.does(trap)
    made = taken(cluster, mode)
    assert code_that_ran(cluster) == []
    assert held(made).unread["m.t"] == CODE


def test_an_index_by_a_superusers_function_is_no_hindrance(
    cluster: Cluster, mallory: Mallory
) -> None:
    cluster.rows(
        "CREATE FUNCTION once(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1';"
        "CREATE INDEX i ON m.t (once(a)); CREATE INDEX j ON m.t (lower(b))"
    )
    assert held(taken(cluster, Mode.SAMPLED)).tables["m.t"].rows == 300


def test_the_settings_of_his_database_are_not_drkits(
    cluster: Cluster, mallory: Mallory
) -> None:
    """His functions come first, sessions become him, and text means other things."""
    cluster.rows("CREATE DATABASE d OWNER mallory")
    mallory.does(
        "CREATE SCHEMA evil;"
        "CREATE FUNCTION evil.pg_backend_pid() RETURNS int LANGUAGE plpgsql AS "
        "$$BEGIN RAISE LOG 'mallory ran as %', current_user; RETURN 1; END$$;"
        "ALTER DATABASE d SET search_path = evil, pg_catalog;"
        "ALTER DATABASE d SET role = mallory;"
        "ALTER DATABASE d SET standard_conforming_strings = off;"
        "ALTER DATABASE d SET default_transaction_isolation = serializable;"
        "ALTER DATABASE d SET row_security = on;"
        "ALTER DATABASE d SET lock_timeout = 1;"
        "ALTER DATABASE d SET DateStyle = 'SQL, DMY'",
        "d",
    )
    url = cluster.url.replace("/postgres?", "/d?")
    with connect(url, None, "backup") as connection:
        assert connection.query("SELECT session_user::text, current_user::text") == [
            ("postgres", "postgres")
        ]
        for name, value in (
            ("search_path", "pg_catalog"),
            ("standard_conforming_strings", "on"),
            ("transaction_isolation", "read committed"),
            ("row_security", "off"),
            ("lock_timeout", "0"),
            ("DateStyle", "ISO, YMD"),
            ("restrict_nonsystem_relation_kind", "view, foreign-table"),
        ):
            assert connection.query(f"SHOW {name}") == [(value,)]
    taken(cluster, Mode.SAMPLED)
    assert code_that_ran(cluster) == []


TRAPPED = "CREATE INDEX i ON {} ((m.spring(1)))"
SWAPPED = (
    "ALTER TABLE m.t RENAME TO was; CREATE VIEW m.t AS SELECT '(0,1)'::tid AS ctid, "
    "m.sprung() AS a, '' AS b"
)
OTHER_SCHEMA = (
    "CREATE SCHEMA n; CREATE TABLE n.t (a int, b text);"
    + TRAPPED.format("n.t")
    + "; ALTER SCHEMA m RENAME TO was; ALTER SCHEMA n RENAME TO m"
)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "change",
    [TRAPPED.format("m.t"), SWAPPED, OTHER_SCHEMA],
    ids=["an index", "a view", "a schema"],
)
def test_nothing_is_changed_between_look_and_use(
    cluster: Cluster,
    mallory: Mallory,
    monkeypatch: pytest.MonkeyPatch,
    change: str,
    mode: Mode,
) -> None:
    """He changes it just before each statement that reads it, if he can."""
    with before_each(
        monkeypatch, "FROM ONLY m.t", lambda: mallory.tries(change)
    ) as sent:
        taken(cluster, mode)
    assert sent
    assert code_that_ran(cluster) == []


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("change", [SWAPPED, TRAPPED.format("m.t")])
def test_what_is_committed_while_drkit_waits_is_looked_at(
    cluster: Cluster,
    mallory: Mallory,
    monkeypatch: pytest.MonkeyPatch,
    change: str,
    mode: Mode,
) -> None:
    """He has it locked by the time that drkit first comes to it, and then commits."""
    began: list[threading.Thread] = []

    def lock() -> None:
        if not began:
            locked = threading.Event()
            began.append(threading.Thread(target=work, args=(locked,)))
            began[0].start()
            locked.wait(10)

    def work(locked: threading.Event) -> None:
        with mallory.session() as session, session.transaction():
            session.execute(change)
            locked.set()
            time.sleep(0.5)

    with before_each(monkeypatch, "ONLY m.t", lock):
        made = taken(cluster, mode)
    for thread in began:
        thread.join()
    assert began
    assert code_that_ran(cluster) == []
    assert "m.t" not in held(made).tables


def test_a_sequence_is_no_view(
    cluster: Cluster, mallory: Mallory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """He puts a view into the place of a sequence just before its value is read."""
    change = """
        ALTER SEQUENCE {0} RENAME TO was;
        CREATE VIEW {0} AS SELECT m.sprung()::bigint AS last_value, true AS is_called
    """
    other = (
        "CREATE SCHEMA n; CREATE TABLE n.s AS SELECT 1::bigint AS last_value, true AS "
        "is_called; CREATE INDEX i ON n.s ((m.spring(1)));"
        "ALTER SCHEMA m RENAME TO was; ALTER SCHEMA n RENAME TO m"
    )

    def act() -> None:
        mallory.tries(change.format("m.s"))
        mallory.tries(change.format("m.used"))
        mallory.tries(other)

    with before_each(monkeypatch, "FROM m.", act):
        made = taken(cluster, Mode.SAMPLED)
    assert code_that_ran(cluster) == []
    assert held(made).sequences["m.s"].reached == 0
    assert held(made).sequences["m.used"].reached == 1


def test_sequences_that_were_set_are_read_as_they_are(
    cluster: Cluster, mallory: Mallory
) -> None:
    mallory.does("ALTER SEQUENCE m.s RESTART 100; SELECT setval('m.used', 7)")
    states = held(taken(cluster, Mode.SAMPLED)).sequences
    assert (states["m.s"].reached, states["m.used"].reached) == (99, 7)


def test_where_nobody_can_be_held_up_his_tables_are_left_out(
    cluster: Cluster, mallory: Mallory
) -> None:
    """A materialized view can't be locked; one of a superuser needs no lock."""
    mallory.does("CREATE MATERIALIZED VIEW m.v AS SELECT 1 AS a")
    cluster.rows("CREATE MATERIALIZED VIEW ours AS SELECT 1 AS a")
    made = held(taken(cluster, Mode.SAMPLED))
    assert made.unread["m.v"] == UNHELD
    assert made.tables["public.ours"].rows == 1
    assert made.tables["m.t"].rows == 300


@pytest.mark.parametrize("change", [TRAPPED.format("m.t"), SWAPPED])
def test_a_role_that_can_hold_nobody_looks_just_before(
    cluster: Cluster,
    mallory: Mallory,
    monkeypatch: pytest.MonkeyPatch,
    change: str,
) -> None:
    """He changes it behind drkit's list of tables, which is some time ago by then."""
    cluster.rows(
        "CREATE ROLE drkit LOGIN; GRANT pg_read_all_data, pg_monitor TO drkit;"
        "GRANT EXECUTE ON FUNCTION pg_create_restore_point TO drkit;"
        "CREATE MATERIALIZED VIEW m.v AS SELECT 1 AS a"
    )
    connect = connector(cluster.url.replace("postgres@", "drkit@"), None, "fingerprint")
    with before_each(
        monkeypatch, "LOCK TABLE ONLY m.t", lambda: mallory.tries(change)
    ) as sent:
        made = take(connect, Mode.SAMPLED, "p", SystemClock())
    assert sent
    assert code_that_ran(cluster) == []
    assert "m.t" not in held(made).tables
    assert held(made).tables["m.v"].rows == 1
