"""A database user against what a policy asserts about a restored copy of his tables."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from drkit.model.evidence import CheckState
from drkit.model.verification import Assertion, CheckName, Comparison
from tests.attacks.hostile import code_that_ran, mallory_in
from tests.operations.proofs import RULES, proof_of, subject_of

if TYPE_CHECKING:
    from pathlib import Path

    from drkit.model.evidence import Check
    from tests.attacks.hostile import Mallory
    from tests.conftest import MakeCluster
    from tests.pg import Cluster

ONLY = replace(RULES, checks=frozenset({CheckName.ASSERTIONS}))

# All that his function tries to get more rights, each of it caught.
ESCAPES = """
    CREATE FUNCTION m.escape() RETURNS int LANGUAGE plpgsql AS $$
    DECLARE attempt text;
    BEGIN
        PERFORM m.sprung();
        FOREACH attempt IN ARRAY ARRAY[
            'RESET ROLE', 'SET ROLE postgres', 'RESET SESSION AUTHORIZATION',
            'SET SESSION AUTHORIZATION postgres', 'SET transaction_read_only = off',
            'ALTER ROLE mallory SUPERUSER', 'GRANT postgres TO mallory',
            'INSERT INTO m.t VALUES (-1, NULL)', 'CREATE TABLE m.more ()',
            'COPY (SELECT 1) TO PROGRAM ''touch {proof}''',
            'SELECT pg_read_file(''PG_VERSION'')'] LOOP
            BEGIN
                EXECUTE attempt;
                IF attempt !~ '^RESET' THEN
                    RAISE LOG 'mallory ran as one who may %', attempt;
                END IF;
            EXCEPTION WHEN OTHERS THEN NULL;
            END;
        END LOOP;
        PERFORM m.sprung();
        RETURN 1;
    END $$;
"""
SWAPPED = """
    ALTER TABLE m.t RENAME TO was; CREATE VIEW m.t AS SELECT m.escape() AS a
"""
# What an assertion returns is compared by operators of its type.
COMPARED = """
    CREATE TYPE m.pair AS (n int);
    CREATE FUNCTION m.same(m.pair, m.pair) RETURNS bool LANGUAGE plpgsql
        AS 'BEGIN RETURN m.escape() = 1; END';
    CREATE OPERATOR m.= (LEFTARG = m.pair, RIGHTARG = m.pair, FUNCTION = m.same);
"""


@pytest.fixture
def cluster(pg_version: int, make_cluster: MakeCluster) -> Cluster:
    return make_cluster(pg_version)


@pytest.fixture
def proof(cluster: Cluster) -> Path:
    from pathlib import Path

    return Path(cluster.data_directory, "owned")


@pytest.fixture
def mallory(cluster: Cluster, proof: Path) -> Mallory:
    made = mallory_in(cluster)
    made.does(ESCAPES.replace("{proof}", str(proof)))
    return made


def asserted(cluster: Cluster, statement: str, expected: str) -> Check:
    """Judge one assertion of a cluster."""
    wanted = Assertion("it", statement, Comparison.EQUALS, expected)
    rules = replace(ONLY, assertions=(wanted,))
    return proof_of(subject_of(cluster), rules).checks[-1]


def assert_that_he_got_nothing(cluster: Cluster, proof: Path) -> None:
    ran = code_that_ran(cluster)
    assert ran, "his function was not called, so this proves nothing"
    assert all(who.startswith("drkit_reader_") for who in ran), ran
    assert not proof.exists()
    assert cluster.sql("SELECT rolsuper FROM pg_roles WHERE rolname = 'mallory'") is (
        False
    )
    assert cluster.sql("SELECT to_regclass('m.more')") is None
    assert cluster.sql("SELECT count(*) FROM pg_auth_members WHERE roleid = 10") == 0


def test_a_view_in_a_tables_place_gets_no_rights(
    cluster: Cluster, mallory: Mallory, proof: Path
) -> None:
    mallory.does(SWAPPED)
    asserted(cluster, "SELECT count(*) FROM m.t", "1")
    assert_that_he_got_nothing(cluster, proof)


def test_an_operator_of_his_gets_no_rights(
    cluster: Cluster, mallory: Mallory, proof: Path
) -> None:
    mallory.does(COMPARED)
    cluster.rows("ALTER DATABASE postgres SET search_path = m, pg_catalog")
    asserted(cluster, "SELECT row(1)::m.pair", "(1)")
    assert_that_he_got_nothing(cluster, proof)


def test_the_role_reads_all_and_is_gone_behind_it(
    cluster: Cluster, mallory: Mallory
) -> None:
    cluster.rows(
        "CREATE TABLE guarded AS SELECT 7 AS n;"
        "ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;"
        "CREATE VIEW seen AS SELECT n FROM guarded;"
        "CREATE SCHEMA hidden; CREATE TABLE hidden.t AS SELECT 7 AS n;"
        "REVOKE ALL ON SCHEMA hidden FROM PUBLIC;"
        "REVOKE CONNECT ON DATABASE postgres FROM PUBLIC;"
        "ALTER DATABASE postgres SET session_preload_libraries = 'plpgsql'"
    )
    for name in ("guarded", "seen", "hidden.t"):
        check = asserted(cluster, f"SELECT n FROM {name}", "7")
        assert check.state is CheckState.PASSED, check.detail
    check = asserted(cluster, "SELECT current_setting('is_superuser')", "off")
    assert check.state is CheckState.PASSED, check.detail
    left = "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'drkit%'"
    assert cluster.sql(left) == 0
    check = asserted(cluster, "SELECT no_such_thing", "1")
    assert check.state is CheckState.FAILED
    assert cluster.sql(left) == 0
