"""A database user against the row that drkit writes into a production database."""

from __future__ import annotations

import contextlib
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from drkit.errors import PostgresRefused
from drkit.operations.backup_heartbeat import beat_for_backup
from drkit.postgres import heartbeat
from drkit.postgres.connection import connect
from tests.attacks.hostile import before_each, code_that_ran, mallory_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from drkit.postgres.connection import Connection
    from tests.attacks.hostile import Mallory
    from tests.conftest import MakeCluster
    from tests.pg import Cluster

    Use = Callable[[Connection], object]

COLUMNS = """
    id smallint PRIMARY KEY CHECK (id = 1), written_at timestamptz NOT NULL,
    lsn pg_lsn NOT NULL, host text NOT NULL, nonce text NOT NULL
"""
TRAP = """
    CREATE FUNCTION m.trap() RETURNS trigger LANGUAGE plpgsql
        AS 'BEGIN PERFORM m.sprung(); RETURN NEW; END'
"""
TRIGGER = """
    CREATE TRIGGER trap BEFORE INSERT OR UPDATE ON drkit.heartbeat
        FOR EACH ROW EXECUTE FUNCTION m.trap()
"""
USES: dict[str, Use] = {
    "create": heartbeat.create,
    "write": lambda connection: heartbeat.write(connection, "host-a"),
    "read": heartbeat.read,
}


@pytest.fixture
def cluster(pg_version: int, make_cluster: MakeCluster) -> Cluster:
    return make_cluster(pg_version)


@pytest.fixture
def mallory(cluster: Cluster) -> Mallory:
    made = mallory_in(cluster)
    made.does(TRAP)
    return made


@pytest.fixture
def connection(cluster: Cluster) -> Iterator[Connection]:
    with closing(connect(cluster.url, None, "heartbeat")) as made:
        yield made


def use(connection: Connection, *names: str) -> None:
    """Use the heartbeat in each way; what is refused is refused."""
    for name in names:
        with contextlib.suppress(PostgresRefused):
            USES[name](connection)


def test_a_schema_of_his_is_refused(
    cluster: Cluster, mallory: Mallory, connection: Connection
) -> None:
    mallory.does("CREATE SCHEMA drkit")
    with pytest.raises(PostgresRefused, match="belongs to mallory") as refusal:
        heartbeat.create(connection)
    assert 'OWNER TO "postgres"' in str(refusal.value.hint)
    assert cluster.sql("SELECT to_regclass('drkit.heartbeat')") is None
    cluster.rows(f"CREATE TABLE drkit.heartbeat ({COLUMNS})")  # a superuser's
    with pytest.raises(PostgresRefused, match="belongs to mallory"):
        heartbeat.write(connection, "host-a")
    error = beat_for_backup(cluster.url, None, None, "host-a")
    assert "belongs to mallory" in str(error)


def test_a_table_of_his_is_refused(
    cluster: Cluster, mallory: Mallory, connection: Connection
) -> None:
    cluster.rows("CREATE SCHEMA drkit; GRANT CREATE, USAGE ON SCHEMA drkit TO mallory")
    mallory.does(f"CREATE TABLE drkit.heartbeat ({COLUMNS}); {TRIGGER}")
    use(connection, "create", "write", "read", "write")
    assert code_that_ran(cluster) == []


@pytest.mark.parametrize("text", ["INSERT INTO drkit.heartbeat", "FROM drkit.heart"])
def test_he_swaps_nothing_between_look_and_use(
    cluster: Cluster,
    mallory: Mallory,
    connection: Connection,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
) -> None:
    """His is the schema, and the table, when drkit looks, a superuser's."""
    mallory.does("CREATE SCHEMA drkit")
    cluster.rows(f"CREATE TABLE drkit.heartbeat ({COLUMNS})")
    change = f"""
        ALTER SCHEMA drkit RENAME TO was; CREATE SCHEMA drkit;
        CREATE TABLE drkit.heartbeat ({COLUMNS}); {TRIGGER};
        CREATE INDEX i ON drkit.heartbeat ((m.spring(1)))
    """
    with before_each(monkeypatch, text, lambda: mallory.tries(change)):
        use(connection, "write", "read", "write")
    assert code_that_ran(cluster) == []


def test_he_may_make_triggers_and_none_is_called(
    cluster: Cluster,
    mallory: Mallory,
    connection: Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    heartbeat.create(connection)
    cluster.rows("GRANT USAGE ON SCHEMA drkit TO mallory")
    cluster.rows("GRANT TRIGGER ON drkit.heartbeat TO mallory")
    made = []

    def act() -> None:
        made.append(mallory.tries(TRIGGER))

    with before_each(monkeypatch, "INSERT INTO drkit.heartbeat", act):
        use(connection, "write")
    assert made == [False]  # the table was locked
    mallory.does(TRIGGER)
    with pytest.raises(PostgresRefused, match="trigger trap") as refusal:
        heartbeat.write(connection, "host-a")
    assert "take that away" in str(refusal.value.hint)
    assert code_that_ran(cluster) == []


SURPLUS = {
    "a rule": """CREATE RULE trap AS ON INSERT TO drkit.heartbeat
        DO ALSO SELECT m.sprung()""",
    "a default": "ALTER TABLE drkit.heartbeat ALTER host SET DEFAULT m.sprung()::text",
    "a column": "ALTER TABLE drkit.heartbeat ADD more int DEFAULT m.sprung()",
    "a generated column": """ALTER TABLE drkit.heartbeat
        ADD more int GENERATED ALWAYS AS (m.spring(id)) STORED""",
    "a constraint": """ALTER TABLE drkit.heartbeat
        ADD CHECK (m.spring(id) = 1) NOT VALID""",
    "a foreign key": """CREATE TABLE m.k (id int2 PRIMARY KEY);
        ALTER TABLE drkit.heartbeat ADD FOREIGN KEY (id) REFERENCES m.k NOT VALID""",
    "an index": "CREATE INDEX i ON drkit.heartbeat ((m.spring(1)))",
    "a predicate": "CREATE INDEX i ON drkit.heartbeat (id) WHERE m.spring(id) = 1",
    "statistics": "CREATE STATISTICS m.x ON (m.spring(1)), id FROM drkit.heartbeat",
    "a policy": """ALTER TABLE drkit.heartbeat ENABLE ROW LEVEL SECURITY;
        CREATE POLICY p ON drkit.heartbeat USING (m.sprung() = 1)""",
    "a child": "CREATE TABLE m.child () INHERITS (drkit.heartbeat)",
    "a parent": """CREATE TABLE m.parent (host text NOT NULL);
        ALTER TABLE drkit.heartbeat INHERIT m.parent""",
}


@pytest.mark.parametrize("surplus", SURPLUS.values(), ids=SURPLUS)
def test_what_drkit_has_not_made_is_refused(
    cluster: Cluster, mallory: Mallory, connection: Connection, surplus: str
) -> None:
    heartbeat.create(connection)
    heartbeat.write(connection, "host-a")
    cluster.rows(surplus)
    before = len(code_that_ran(cluster))  # what the statement itself has run
    for name in ("write", "read"):
        with pytest.raises(PostgresRefused, match="is not as drkit has made it"):
            USES[name](connection)
    assert len(code_that_ran(cluster)) == before


def test_a_superuser_reads_what_belongs_to_drkits_role(
    cluster: Cluster, mallory: Mallory, connection: Connection
) -> None:
    cluster.rows("CREATE ROLE drkit LOGIN; CREATE SCHEMA drkit AUTHORIZATION drkit")
    with closing(
        connect(cluster.url.replace("postgres@", "drkit@"), None, "heartbeat")
    ) as own:
        heartbeat.create(own)
        written = heartbeat.write(own, "host-a")
        assert heartbeat.read(own) == written
    assert heartbeat.read(connection) == written
    with pytest.raises(PostgresRefused, match="belongs to drkit"):
        heartbeat.write(connection, "host-a")


def test_event_triggers_do_not_see_it_made(
    cluster: Cluster, mallory: Mallory, connection: Connection
) -> None:
    cluster.rows(
        "CREATE FUNCTION noted() RETURNS event_trigger LANGUAGE plpgsql AS "
        "'BEGIN PERFORM m.sprung(); END';"
        "CREATE EVENT TRIGGER noted ON ddl_command_end EXECUTE FUNCTION noted()"
    )
    heartbeat.create(connection)
    heartbeat.write(connection, "host-a")
    assert code_that_ran(cluster) == []
