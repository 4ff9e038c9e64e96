"""Proofs of real servers: a sound one passes, and each fault fails at its check."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from drkit.model.evidence import Check, CheckState
from drkit.model.fingerprint import Mode
from drkit.model.verification import (
    Assertion,
    CheckName,
    Comparison,
    VerificationRules,
    kind_of,
)
from tests.operations.fingerprints import taken
from tests.operations.proofs import (
    ODD,
    RULES,
    Stopped,
    change_page,
    clear_page,
    failures,
    fill,
    fill_odd,
    hide_from_index,
    proof_of,
    relation_path,
    states,
    subject_of,
)
from tests.pg import copy_tree, versions_under_test

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import MakeCluster
    from tests.pg import Cluster, ClusterFactory

ORDERS = Assertion("orders", "SELECT count(*) FROM orders", Comparison.EQUALS, "20000")
WITH_AMCHECK = 15  # Debian's; the wheels have no extensions
ORDER = ["identity", "pages", "rows", "amcheck"]


def only(*names: CheckName) -> VerificationRules:
    return replace(RULES, checks=frozenset(names))


def sound(major: int, make_cluster: MakeCluster, **options: object) -> Cluster:
    cluster = make_cluster(major, {"autovacuum": "off"}, **options)
    fill(cluster)
    return cluster


@pytest.fixture(scope="module")
def calm(cluster_factory: ClusterFactory, newest_version: int) -> Iterator[Cluster]:
    """A sound cluster that no test of this module changes."""
    with cluster_factory.make(newest_version, {"autovacuum": "off"}) as cluster:
        fill(cluster)
        yield cluster


@pytest.mark.parametrize("major", [15, 18])
def test_a_sound_cluster_passes_every_check(
    major: int, make_cluster: MakeCluster
) -> None:
    cluster = sound(major, make_cluster)
    fill_odd(cluster)
    expected = taken(cluster, Mode.EXACT)
    rules = replace(RULES, assertions=(ORDERS,))
    proof = proof_of(cluster, rules, expected)
    assert failures(proof) == {}
    assert proof.passed
    names = [one.name for one in proof.checks]
    assert names[:4] == ORDER
    assert names[-2:] == ["assertion: orders", "write"]
    assert "fingerprint: tables" in names
    made = {one.name: one for one in proof.checks}
    assert made["pages"].compared > 1000
    assert made["rows"].compared > 20000
    assert "in 3 databases" in made["rows"].detail
    assert made["write"].compared == 1000
    if major == WITH_AMCHECK:
        assert made["amcheck"].state is CheckState.PASSED
        assert made["amcheck"].compared > 400
    else:
        assert made["amcheck"].state is CheckState.NOT_DONE
        why = "amcheck was not done: the extension amcheck is not installed"
        assert any(one.startswith(why) for one in proof.deviations)
    rules = replace(rules, checks=frozenset({CheckName.FINGERPRINT}))
    again = proof_of(cluster, rules, expected)
    assert failures(again) == {}, "a proof leaves nothing behind"


def test_what_cannot_be_done_fails_unless_the_policy_allows_it(calm: Cluster) -> None:
    rules = only(CheckName.AMCHECK, CheckName.FINGERPRINT)
    assert proof_of(calm, rules, "none was taken").passed
    for needed in ("amcheck", "fingerprint"):
        allowed = rules.allow_missing - {CheckName(needed)}
        strict = replace(rules, allow_missing=allowed)
        proof = proof_of(calm, strict, "none was taken")
        assert not proof.passed
        assert failures(proof) == {}
        assert states(proof)[needed] is CheckState.NOT_DONE
    assert "fingerprint was not done: none was taken" in proof.deviations


def test_what_the_policy_does_not_ask_for_is_told(calm: Cluster) -> None:
    proof = proof_of(calm, only(CheckName.WRITE))
    assert list(states(proof)) == ["identity", "write"]
    (told,) = proof.deviations
    assert told.endswith(
        "not ask for these checks: pages, rows, amcheck, fingerprint, assertions, "
        "heartbeat"
    )
    assert proof.passed


# Who answers.


def test_another_server_is_never_touched(
    newest_version: int, make_cluster: MakeCluster
) -> None:
    ours, other = make_cluster(newest_version), make_cluster(newest_version)
    subject = replace(subject_of(ours), connect=subject_of(other).connect)
    before = other.rows("SELECT pg_current_wal_insert_lsn()")
    proof = proof_of(subject, replace(RULES, assertions=(ORDERS,)), "none")
    assert list(failures(proof)) == ["identity"]
    assert not proof.passed
    detail = failures(proof)["identity"]
    assert f"the data directory {other.data_directory} answers" in detail
    assert f"process {other.pid} answers, and {ours.pid} was started" in detail
    others = [one for one in proof.checks if one.name != "identity"]
    assert {one.state for one in others} == {CheckState.NOT_DONE}
    assert {one.name for one in others} >= {"pages", "assertion: orders", "write"}
    assert other.rows("SELECT pg_current_wal_insert_lsn()") == before


def test_a_copy_of_the_cluster_is_told_from_it(
    newest_version: int,
    make_cluster: MakeCluster,
    adopt_cluster: MakeCluster,
    make_directory: Callable[[], Path],
) -> None:
    ours = make_cluster(newest_version)
    ours.stop()
    copied = make_directory() / "data"
    copy_tree(ours.data_directory, copied)
    ours.start()
    other = adopt_cluster(newest_version, str(copied))
    other.start()
    subject = replace(subject_of(ours), connect=subject_of(other).connect)
    assert "the data directory" in failures(proof_of(subject, only()))["identity"]
    # the right process, and the right identity, but a directory that it does not read
    moved = replace(subject_of(ours), data_directory=str(copied))
    found = failures(proof_of(moved, only()))["identity"]
    assert f"is process {other.pid}'s, not {ours.pid}'s" in found


def test_a_directory_that_the_server_does_not_read(
    newest_version: int, make_cluster: MakeCluster
) -> None:
    cluster = make_cluster(newest_version)
    ours = Path(cluster.data_directory)
    ours.rename(ours.with_name("moved"))  # a running server goes with it
    copy_tree(ours.with_name("moved"), ours)
    detail = failures(proof_of(cluster, only(CheckName.WRITE)))["identity"]
    assert detail == f"the server does not read the files in {ours}"
    assert list(ours.glob("drkit*")) == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"system_identifier": "7"}, "and 7 was restored"),
        ({"timeline": 9}, "timeline 1 answers, and recovery ended on 9"),
    ],
)
def test_another_identity_or_timeline(
    changes: dict[str, object],
    says: str,
    calm: Cluster,
) -> None:
    subject = replace(subject_of(calm), **changes)
    assert says in failures(proof_of(subject, only()))["identity"]


def test_a_server_that_is_not_promoted(
    newest_version: int, make_cluster: MakeCluster
) -> None:
    cluster = make_cluster(newest_version)
    subject = subject_of(cluster)
    with Stopped(cluster):
        Path(cluster.data_directory, "standby.signal").touch()
    proof = proof_of(subject, only(CheckName.WRITE))
    assert "still in recovery" in failures(proof)["identity"]


def test_a_server_that_is_gone(newest_version: int, make_cluster: MakeCluster) -> None:
    cluster = make_cluster(newest_version)
    subject = subject_of(cluster)
    cluster.stop()
    proof = proof_of(subject, only(CheckName.WRITE))
    assert "cannot connect" in failures(proof)["identity"]
    assert states(proof)["write"] is CheckState.NOT_DONE


# Pages.


@pytest.mark.parametrize("major", [pytest.param(15, marks=pytest.mark.long), 18])
def test_a_page_that_rotted(major: int, make_cluster: MakeCluster) -> None:
    cluster = sound(major, make_cluster)
    path = relation_path(cluster, "orders_pkey")
    with Stopped(cluster):
        change_page(path, 7, 5000, b"rot", seal=False)
    proof = proof_of(cluster)
    found = failures(proof)
    assert found["pages"] == f"base/{path.parent.name}/{path.name} block 7 is damaged"
    # pg_dump has no use for an index; amcheck has
    assert set(found) == {"pages"} | ({"amcheck"} if major == WITH_AMCHECK else set())
    assert not proof.passed


@pytest.mark.parametrize(
    "checksums", [pytest.param(True, marks=pytest.mark.long), False]
)
def test_a_header_that_no_server_writes(
    checksums: bool, newest_version: int, make_cluster: MakeCluster
) -> None:
    cluster = sound(newest_version, make_cluster, data_checksums=checksums)
    rules = only(CheckName.PAGES)
    before = proof_of(cluster, rules)
    assert before.passed
    assert ("headers only" in before.checks[1].detail) is not checksums
    path = relation_path(cluster, "orders")
    with Stopped(cluster):
        change_page(path, 3, 12, b"\xff\x1f\x00\x10", seal=checksums)
    assert "block 3 is damaged" in failures(proof_of(cluster, rules))["pages"]


def test_files_that_end_within_a_page(
    newest_version: int, make_cluster: MakeCluster
) -> None:
    cluster = sound(newest_version, make_cluster)
    path = relation_path(cluster, "orders")
    blocks = path.stat().st_size // 8192
    with Stopped(cluster), path.open("ab") as file:
        file.write(b"\0" * 100)
    found = failures(proof_of(cluster, only(CheckName.PAGES)))
    assert f"{path.name} ends within block {blocks}" in found["pages"]


@pytest.mark.long
def test_many_damaged_pages_are_counted(
    newest_version: int, make_cluster: MakeCluster
) -> None:
    cluster = sound(newest_version, make_cluster)
    path = relation_path(cluster, "orders")
    with Stopped(cluster):
        for block in range(20):
            change_page(path, block, 6000, b"rotten", seal=False)
    assert (
        "; and 15 more" in failures(proof_of(cluster, only(CheckName.PAGES)))["pages"]
    )


def test_checksums_that_are_off_where_they_were_on(
    newest_version: int, make_cluster: MakeCluster
) -> None:
    cluster = make_cluster(newest_version, data_checksums=False)
    subject = replace(subject_of(cluster), checksums=True)
    found = failures(proof_of(subject, only(CheckName.PAGES)))
    assert "checksums are off" in found["pages"]


# Rows.


@pytest.mark.parametrize(
    "database", [pytest.param("postgres", marks=pytest.mark.long), ODD]
)
def test_a_table_whose_file_is_gone(
    database: str, newest_version: int, make_cluster: MakeCluster
) -> None:
    cluster = sound(newest_version, make_cluster)
    fill_odd(cluster)
    table = "small" if database == "postgres" else "t"
    path = cluster.sql(f"SELECT pg_relation_filepath('{table}')", database)
    with Stopped(cluster):
        Path(cluster.data_directory, path).unlink()
    found = failures(proof_of(cluster))
    assert list(found) == ["rows"]
    assert f'could not open file "{path}"' in found["rows"]


def test_values_whose_toast_is_gone(
    newest_version: int, make_cluster: MakeCluster
) -> None:
    cluster = sound(newest_version, make_cluster)
    toast = "(SELECT reltoastrelid FROM pg_class WHERE relname = 'long')"
    path = cluster.sql(f"SELECT pg_relation_filepath({toast})")
    with Stopped(cluster):
        os.truncate(f"{cluster.data_directory}/{path}", 0)
    found = failures(proof_of(cluster))
    assert list(found) == ["rows"]
    assert "pg_dump failed" in found["rows"]
    assert path in found["rows"]


def test_a_database_that_lets_nobody_in_is_told(
    newest_version: int, make_cluster: MakeCluster
) -> None:
    cluster = sound(newest_version, make_cluster)
    cluster.rows("CREATE DATABASE closed ALLOW_CONNECTIONS false")
    proof = proof_of(cluster, only(CheckName.ROWS))
    assert proof.passed
    told = "database closed allows no connections, so its rows were not read"
    assert told in proof.deviations


def test_missing_libraries_and_extensions_are_told(
    newest_version: int, make_cluster: MakeCluster
) -> None:
    cluster = sound(newest_version, make_cluster)
    cluster.rows(
        "SET check_function_bodies = off; SET allow_system_table_mods = on;"
        "CREATE FUNCTION lost() RETURNS int LANGUAGE c AS '$libdir/plpgsql',"
        " 'plpgsql_call_handler';"
        "UPDATE pg_proc SET probin = '$libdir/lost' WHERE proname = 'lost';"
        "UPDATE pg_extension SET extname = 'vanished' WHERE extname = 'plpgsql'"
    )
    proof = proof_of(cluster, only(CheckName.ROWS))
    lost = [one for one in proof.deviations if "database postgres" in one]
    extension, library = lost
    assert "extension vanished 1.0 is used, and is not installed on" in extension
    assert "library $libdir/lost is used by functions, and is not on" in library


# Structure.


def test_a_row_that_an_index_lacks(make_cluster: MakeCluster) -> None:
    assert WITH_AMCHECK in versions_under_test()
    cluster = sound(WITH_AMCHECK, make_cluster)
    hide_from_index(cluster, "(-1, 'hidden', 1)")
    found = failures(proof_of(cluster))
    assert list(found) == ["amcheck"]
    assert "orders_pkey" in found["amcheck"]
    assert "lacks matching index tuple" in found["amcheck"]


def test_amcheck_looks_into_every_database(make_cluster: MakeCluster) -> None:
    cluster = sound(WITH_AMCHECK, make_cluster)
    fill_odd(cluster)
    cluster.rows("CREATE INDEX at ON t (n)", ODD)
    path = cluster.sql("SELECT pg_relation_filepath('at')", ODD)
    cluster.rows("CHECKPOINT")
    with Stopped(cluster):
        clear_page(Path(cluster.data_directory, path), 1)
    found = failures(proof_of(cluster))
    assert list(found) == ["amcheck"]
    assert f"database {ODD}: " in found["amcheck"]
    assert cluster.sql("SELECT count(*) FROM pg_extension", ODD) == 1


def test_what_notes_down_changes_does_not_see_amcheck(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster(WITH_AMCHECK)
    cluster.rows(
        "CREATE TABLE noted (tag text);"
        "CREATE FUNCTION note() RETURNS event_trigger LANGUAGE plpgsql AS"
        " $$ BEGIN INSERT INTO public.noted VALUES (tg_tag); END $$;"
        "CREATE EVENT TRIGGER noting ON ddl_command_end EXECUTE FUNCTION note();"
        "CREATE SEQUENCE seen"
    )
    cluster.rows("ALTER DATABASE postgres SET default_transaction_read_only = on")
    expected = taken(cluster, Mode.EXACT)
    proof = proof_of(cluster, RULES, expected)
    assert failures(proof) == {}
    assert states(proof)["amcheck"] is CheckState.PASSED


def test_an_extension_that_was_there_stays(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(WITH_AMCHECK)
    cluster.rows("CREATE EXTENSION amcheck")
    assert proof_of(cluster, only(CheckName.AMCHECK)).passed
    names = [name for (name,) in cluster.rows("SELECT extname FROM pg_extension")]
    assert sorted(names) == ["amcheck", "plpgsql"]


# Content: each of these leaves every other check as it was.


def one_row(cluster: Cluster) -> None:
    cluster.rows("UPDATE orders SET content = 'ordex 777' WHERE id = 777")


def dropped(cluster: Cluster) -> None:
    cluster.rows("DROP TABLE small")


def zeroed(cluster: Cluster) -> None:
    path = relation_path(cluster, "orders")
    with Stopped(cluster):
        clear_page(path, 5)


def granted(cluster: Cluster) -> None:
    cluster.rows("GRANT writer TO reader")


def lagging(cluster: Cluster) -> None:
    cluster.rows("SELECT setval('numbers', 900)")


@pytest.mark.parametrize(
    ("fault", "check", "says"),
    [
        (one_row, "tables", "public.orders in database postgres has 20000 rows as"),
        pytest.param(dropped, "tables", "public.small in database postgres is missing",
                     marks=pytest.mark.long),
        (zeroed, "tables", "public.orders in database postgres has 1"),
        pytest.param(granted, "memberships", "reader in writer",
                     marks=pytest.mark.long),
        pytest.param(lagging, "sequences", "numbers in database postgres lags: its",
                     marks=pytest.mark.long),
    ],
)  # fmt: skip
def test_content_that_differs_from_the_fingerprint(
    fault: Callable[[Cluster], None],
    check: str,
    says: str,
    newest_version: int,
    make_cluster: MakeCluster,
) -> None:
    cluster = sound(newest_version, make_cluster)
    expected = taken(cluster, Mode.EXACT)
    fault(cluster)
    proof = proof_of(cluster, RULES, expected)
    found = failures(proof)
    assert says in found[f"fingerprint: {check}"]
    others = {"relations", "columns", "types"} if fault is dropped else set()
    assert set(found) <= {f"fingerprint: {name}" for name in {check, *others}}
    assert not proof.passed


@pytest.mark.long
def test_one_row_of_a_million(newest_version: int, make_cluster: MakeCluster) -> None:
    cluster = make_cluster(newest_version)
    cluster.rows(
        "CREATE TABLE big AS SELECT n, 'row ' || n AS t"
        " FROM generate_series(1, 1000000) n"
    )
    expected = taken(cluster, Mode.EXACT)
    assert proof_of(cluster, RULES, expected).passed
    cluster.rows("UPDATE big SET t = 'row 65432l' WHERE n = 654321")
    found = failures(proof_of(cluster, RULES, expected))
    assert list(found) == ["fingerprint: tables"]
    assert "public.big in database postgres has 1000000 rows" in str(found)


def test_at_another_moment_only_what_is_gone_is_told(
    newest_version: int, make_cluster: MakeCluster
) -> None:
    cluster = sound(newest_version, make_cluster)
    expected = taken(cluster, Mode.EXACT)
    one_row(cluster)
    dropped(cluster)
    lagging(cluster)
    proof = proof_of(cluster, RULES, expected, at_fingerprint=False)
    made = {one.name: one for one in proof.checks}["fingerprint"]
    assert made.state is CheckState.NOT_DONE
    assert f"the fingerprint's moment, {expected.lsn}" in made.detail
    (told,) = [one for one in proof.deviations if one.startswith("since the finger")]
    assert "public.small in database postgres is missing" in told
    assert "public.numbers in database postgres lags" in told
    assert "orders" not in told
    assert proof.passed


# A write.


def test_a_cluster_that_refuses_writes(make_cluster: MakeCluster) -> None:
    cluster = sound(15, make_cluster)  # from 17 on no event trigger is called
    cluster.rows(
        "CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE 'nothing is made here'; END $$;"
        "CREATE EVENT TRIGGER refusing ON ddl_command_start"
        " WHEN TAG IN ('CREATE SCHEMA') EXECUTE FUNCTION refuse()"
    )
    proof = proof_of(cluster)
    assert list(failures(proof)) == ["write"]
    assert "nothing is made here" in failures(proof)["write"]


def test_a_write_needs_no_default_that_lets_it(
    newest_version: int, make_cluster: MakeCluster
) -> None:
    cluster = make_cluster(newest_version)
    cluster.rows("ALTER DATABASE postgres SET default_transaction_read_only = on")
    assert proof_of(cluster, only(CheckName.WRITE)).passed
    leftover = "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'drkit%'"
    assert cluster.sql(leftover) == 0


# Time.


def test_without_time_nothing_is_done_and_nothing_passes(calm: Cluster) -> None:
    proof = proof_of(calm, replace(RULES, assertions=(ORDERS,)), seconds=0)
    assert set(states(proof).values()) == {CheckState.NOT_DONE}
    assert {one.detail for one in proof.checks} == {"the time limit was reached"}
    assert not proof.passed


def test_the_time_limit_ends_a_statement(calm: Cluster) -> None:
    slow = Assertion("slow", "SELECT 1 FROM pg_sleep(60)", Comparison.EQUALS, "1")
    rules = replace(only(CheckName.ASSERTIONS, CheckName.WRITE), assertions=(slow,))
    proof = proof_of(calm, rules, seconds=1)
    assert [one.state for one in proof.checks] == [
        CheckState.PASSED, CheckState.NOT_DONE, CheckState.NOT_DONE,
    ]  # fmt: skip
    assert proof.checks[1].seconds < 10


# What counts as a proof.


def check(name: str, state: CheckState) -> Check:
    return Check(name, state, "", 0.0)


GOOD = [
    check(name, CheckState.PASSED)
    for name in ("identity", "pages", "rows", "fingerprint: tables", "write")
]


def test_a_check_that_is_left_out_without_a_word_is_no_proof() -> None:
    assert RULES.accepts(GOOD)
    for one in GOOD:
        rest = [other for other in GOOD if other is not one]
        assert RULES.accepts(rest) is one.name.startswith("fingerprint")
    needing = replace(RULES, assertions=(ORDERS,))
    assert not needing.accepts(GOOD)
    assert needing.accepts([*GOOD, check("assertion: orders", CheckState.PASSED)])


@pytest.mark.parametrize("state", [CheckState.FAILED, CheckState.NOT_DONE])
def test_every_check_can_spoil_a_proof(state: CheckState) -> None:
    allowed = {CheckName.AMCHECK, CheckName.FINGERPRINT, CheckName.HEARTBEAT}
    for name in (*CheckName, "identity", "wal cut", "fingerprint: roles"):
        rest = [one for one in GOOD if one.name != name]
        excused = state is CheckState.NOT_DONE and kind_of(name) in allowed
        assert RULES.accepts([*rest, check(name, state)]) is excused, name
