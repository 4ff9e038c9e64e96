"""What the tests of fingerprints share: a cluster with a bit of everything."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, NamedTuple

from drkit.operations.fingerprints.taking import take, take_again
from drkit.postgres.connection import connector
from drkit.wiring import SystemClock

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

    from drkit.model.fingerprint import Fingerprint, Mode
    from drkit.operations.fingerprints.taking import Limits
    from tests.pg import Cluster

EVERYTHING = """
    CREATE ROLE reader; CREATE ROLE writer LOGIN PASSWORD 'never shown';
    CREATE ROLE boss; GRANT reader TO boss;
    CREATE SCHEMA shop AUTHORIZATION boss;
    CREATE TYPE shop.state AS ENUM ('open', 'paid');
    CREATE DOMAIN shop.price AS numeric CHECK (VALUE >= 0);
    CREATE COLLATION shop.german FROM "C";
    CREATE SEQUENCE shop.numbers INCREMENT 3 CACHE 5;
    CREATE TABLE shop.orders (id int PRIMARY KEY, content text DEFAULT 'new',
        price shop.price, state shop.state, at timestamptz DEFAULT now(), doc json,
        raw bytea, amount float8, twice int GENERATED ALWAYS AS (id * 2) STORED,
        gone int, for_whom oidvector);
    ALTER TABLE shop.orders DROP COLUMN gone;
    INSERT INTO shop.orders SELECT n, 'order ' || n, n, 'open', now(), '{"a":1}',
        decode('00ff', 'hex'), n / 3.0 FROM generate_series(1, 10000) n;
    INSERT INTO shop.orders (id, content) VALUES (-1, NULL), (-2, ''),
        (-3, (SELECT string_agg(md5(n::text), '') FROM generate_series(1, 999) n));
    CREATE INDEX by_content ON shop.orders (left(content, 20));
    CREATE TABLE shop."odd ""näme""
        of two lines" (a int CHECK (a > 0), "drkit row" text, ctid_ text);
    INSERT INTO shop."odd ""näme""
        of two lines" VALUES (1, 'x'), (2, NULL);
    CREATE TABLE parts (id int, k int) PARTITION BY LIST (k);
    CREATE TABLE parts_1 PARTITION OF parts FOR VALUES IN (1);
    CREATE TABLE parts_2 PARTITION OF parts FOR VALUES IN (2);
    INSERT INTO parts SELECT n, n % 2 + 1 FROM generate_series(1, 100) n;
    CREATE TABLE nothing (); INSERT INTO nothing DEFAULT VALUES;
    CREATE TABLE guarded (a int); ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
    CREATE POLICY own ON guarded USING (a > 0); INSERT INTO guarded VALUES (1), (-1);
    CREATE UNLOGGED TABLE scratch AS SELECT 1 AS n;
    CREATE MATERIALIZED VIEW summary AS SELECT count(*) FROM shop.orders;
    CREATE MATERIALIZED VIEW later AS SELECT 1 AS n WITH NO DATA;
    CREATE VIEW cheap AS SELECT id FROM shop.orders WHERE price < 10;
    CREATE FUNCTION f(int) RETURNS int LANGUAGE sql AS 'SELECT $1';
    CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql
        AS 'BEGIN RETURN NEW; END';
    CREATE TRIGGER note BEFORE INSERT ON parts_1
        FOR EACH ROW EXECUTE FUNCTION noted();
    CREATE FOREIGN DATA WRAPPER nowhere; CREATE SERVER other FOREIGN DATA WRAPPER
        nowhere;
    CREATE FOREIGN TABLE far (n int) SERVER other;
    GRANT SELECT ON shop.orders TO reader; GRANT USAGE ON SCHEMA shop TO reader;
    ALTER DEFAULT PRIVILEGES IN SCHEMA shop GRANT SELECT ON TABLES TO reader;
    COMMENT ON TABLE guarded IS 'by a policy';
    ALTER ROLE writer SET work_mem = '8MB';
    SELECT nextval('shop.numbers'), nextval('shop.numbers');
    SELECT lo_from_bytea(0, 'a large object');
    CREATE PUBLICATION published FOR TABLE nothing;
"""


class Planted(NamedTuple):
    """A fault: how it is done, the check that finds it, and what that must say."""

    statement: str
    check: str
    says: str


PLANTED = (
    Planted("DROP TABLE parts_2", "tables", "public.parts_2"),
    Planted("UPDATE shop.orders SET price = 7 WHERE id = 777", "tables", "content"),
    Planted("DELETE FROM guarded WHERE a < 0", "tables", "1 rows, not 2"),
    Planted("INSERT INTO nothing DEFAULT VALUES", "tables", "2 rows, not 1"),
    Planted("UPDATE parts_1 SET id = NULL WHERE id = 2", "tables", "public.parts_1"),
    Planted("REFRESH MATERIALIZED VIEW later", "relations", "public.later"),
    Planted(
        "SELECT lo_put(oid, 0, 'b') FROM pg_largeobject_metadata",
        "tables",
        "pg_catalog.pg_largeobject ",
    ),
    Planted("SELECT setval('shop.numbers', 1)", "sequences", "shop.numbers"),
    Planted("ALTER SEQUENCE shop.numbers CACHE 6", "sequence definitions", "numbers"),
    Planted("GRANT writer TO reader", "memberships", "reader in writer"),
    Planted("REVOKE reader FROM boss", "memberships", "boss in reader"),
    Planted("ALTER ROLE writer SUPERUSER", "roles", "superuser true, not false"),
    Planted("ALTER ROLE boss PASSWORD 'x'", "roles", "password set true, not false"),
    Planted("ALTER ROLE writer SET work_mem = '9MB'", "role settings", "writer"),
    Planted("GRANT INSERT ON shop.orders TO reader", "relations", "reader=ar"),
    Planted("ALTER TABLE guarded OWNER TO boss", "relations", "owner boss"),
    Planted("ALTER TABLE shop.orders ADD more int", "columns", "shop.orders"),
    Planted(
        "ALTER TABLE shop.orders ALTER content SET DEFAULT 'old'", "defaults", "shop"
    ),
    Planted("DROP INDEX shop.by_content", "indexes", "shop.by_content"),
    Planted(
        "ALTER TABLE guarded ADD CONSTRAINT small CHECK (a < 9)", "constraints", "small"
    ),
    Planted(
        "CREATE OR REPLACE FUNCTION f(int) RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "functions",
        "public.f(",
    ),
    Planted(
        "CREATE OR REPLACE VIEW cheap AS SELECT id FROM shop.orders", "views", "cheap"
    ),
    Planted("ALTER TABLE parts_1 DISABLE TRIGGER note", "triggers", "note on"),
    Planted("ALTER POLICY own ON guarded USING (a > 1)", "policies", "own on"),
    Planted("ALTER TYPE shop.state ADD VALUE 'late'", "types", "shop.state"),
    Planted("ALTER SCHEMA shop OWNER TO writer", "schemas", "shop"),
    Planted("DROP EXTENSION plpgsql CASCADE", "extensions", "plpgsql"),
    Planted("DROP COLLATION shop.german", "collations", "shop.german"),
    Planted("REVOKE EXECUTE ON FUNCTION sin FROM PUBLIC", "system grants", "pg_proc"),
    Planted("ALTER SERVER other VERSION '2'", "foreign servers", "other"),
    Planted("COMMENT ON TABLE guarded IS 'free'", "comments", "pg_class"),
    Planted("DROP PUBLICATION published", "other objects", "pg_publication"),
    Planted("ALTER DATABASE side OWNER TO boss", "databases", "side has owner"),
    Planted("GRANT CREATE ON TABLESPACE pg_default TO boss", "tablespaces", "boss="),
    Planted("ALTER SYSTEM SET bytea_output = 'escape'", "settings", "bytea_output"),
)


def fill(cluster: Cluster) -> None:
    """Make two databases with a bit of everything."""
    cluster.rows(EVERYTHING)
    cluster.rows("CREATE DATABASE side")
    cluster.rows("CREATE TABLE t AS SELECT 1 AS n", "side")


def taken(
    cluster: Cluster,
    mode: Mode,
    restore_point: str = "fingerprint",
    limits: Limits | None = None,
) -> Fingerprint:
    connect = connector(cluster.url, None, "fingerprint")
    return take(connect, mode, restore_point, SystemClock(), limits)


def taken_again(cluster: Cluster, expected: Fingerprint) -> Fingerprint:
    connect = connector(cluster.url, None, "fingerprint")
    return take_again(connect, expected, SystemClock())


@contextlib.contextmanager
def writers(cluster: Cluster, count: int = 3) -> Iterator[list[int]]:
    """Write into the tables meanwhile; yields how many transactions each has done."""
    done = [0] * count
    stop = threading.Event()
    failures: list[BaseException] = []

    def write(number: int) -> None:
        try:
            with cluster.connect() as connection:
                while not stop.is_set():
                    _write(connection, number, done[number])
                    done[number] += 1
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield done
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures, failures


def _write(connection: psycopg.Connection, number: int, step: int) -> None:
    row = (step * 7919 + number * 10007) % 10000 + 1
    connection.execute(
        "WITH moved AS (UPDATE shop.orders SET price = price + 1 WHERE id = %s)"
        " INSERT INTO parts SELECT nextval('shop.numbers'), %s",
        (row, step % 2 + 1),
    )
    if step % 10 == number:
        connection.execute(f"CREATE OR REPLACE VIEW made_{number} AS SELECT {step} s")
