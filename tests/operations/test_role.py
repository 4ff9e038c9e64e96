"""The role that drkit needs: all of its work is done with these rights, and no more."""

from __future__ import annotations

import pwd
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from drkit.errors import PostgresRefused
from drkit.model.fingerprint import Mode
from drkit.postgres import heartbeat
from drkit.postgres.connection import connect
from drkit.postgres.fingerprint_rights import missing_grants
from drkit.postgres.readiness import OWN_ROLE, login_lines, making_a_role, read_role
from tests.protect import NAME

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import MakeCluster
    from tests.protect import Protected

    MakeProtected = Callable[..., Protected]

SMALL = 1 << 20


def own_url(url: str) -> str:
    return url.replace("postgres@", f"{OWN_ROLE}@", 1)


def let_log_in(protected: Protected, source: str) -> None:
    """Put the lines in front that are told, with this server's user."""
    user = pwd.getpwuid(protected.account.uid).pw_name
    for line in login_lines(OWN_ROLE, source):
        name, _, text = line.partition(": ")
        path = Path(protected.cluster.data_directory, name)
        text = text.replace(" postgres ", f" {user} ")
        path.write_text(f"{text}\n{path.read_text()}")
    protected.cluster.rows("SELECT pg_reload_conf()")


@pytest.mark.parametrize("source", ["local", "stream"])
def test_everything_is_done_as_a_role_without_more_rights(
    pg_version: int, make_protected: MakeProtected, source: str
) -> None:
    settings = {"summarize_wal": "on"} if pg_version >= 17 else {}
    protected = make_protected(
        pg_version, settings, source=source, wal_segment_size=SMALL
    )
    cluster = protected.cluster
    cluster.rows("CREATE TABLE hidden AS SELECT n FROM generate_series(1, 1000) n")
    for one in making_a_role(OWN_ROLE, pg_version * 10000, source):
        cluster.rows(one)
    let_log_in(protected, source)
    url = own_url(cluster.url)
    protected.change_policy(lambda policy: policy["cluster"].update(url=url))

    made = protected.json("heartbeat", NAME, "--create")
    assert made["created"] is True
    found = {one["name"]: one for one in protected.json("check", NAME)["checks"]}
    for name in ("rights", "fingerprint", "heartbeat", "WAL round trip"):
        assert found[name]["state"] == "ok", found[name]
    assert "superuser" not in found["rights"]["detail"]
    for kind in ("full", "incremental") if can(pg_version, source) else ("full",):
        cluster.rows("UPDATE hidden SET n = n + 1")
        made = protected.json("backup", NAME, "--type", kind)
        assert kind.startswith(made["backup"]["kind"]), made
        assert made["backup"]["warnings"] == 0, made
        assert made["fingerprint"]["taken"], made
        assert made["fingerprint"]["warnings"] == [], made
    assert cluster.sql("SELECT host FROM drkit.heartbeat") is not None
    assert protected.drkit("info", NAME).returncode == 0


def can(major: int, source: str) -> bool:
    """Whether there are incrementals: streamed ones from version 17 on."""
    return source == "local" or major >= 17


@pytest.mark.parametrize("source", ["local", "stream"])
def test_none_of_the_rights_can_be_left_out(
    newest_version: int, make_cluster: MakeCluster, source: str
) -> None:
    cluster = make_cluster(newest_version)
    statements = making_a_role(OWN_ROLE, newest_version * 10000, source)
    for one in statements:
        cluster.rows(one)

    def lacking() -> tuple[str, ...]:
        with closing(connect(own_url(cluster.url), None, "check")) as connection:
            return (
                *read_role(connection, source).statements,
                *missing_grants(connection, Mode.SAMPLED),
            )

    assert lacking() == ()
    for right in (
        *(one for one in statements if " EXECUTE " in one),
        "GRANT pg_monitor TO drkit;",
        "GRANT pg_read_all_data TO drkit;",
    ):
        cluster.rows(right.replace("GRANT", "REVOKE").replace(" TO ", " FROM "))
        said = lacking()
        assert len(said) == 1, right
        cluster.rows(said[0])
        assert lacking() == ()


def test_without_its_schema_the_heartbeat_says_what_makes_it(
    newest_version: int, make_cluster: MakeCluster
) -> None:
    cluster = make_cluster(newest_version)
    for one in making_a_role(OWN_ROLE, newest_version * 10000, "local"):
        cluster.rows(one)
    cluster.rows("DROP SCHEMA drkit")
    with closing(connect(own_url(cluster.url), None, "heartbeat")) as connection:
        with pytest.raises(PostgresRefused) as refusal:
            heartbeat.create(connection)
        told = str(refusal.value.hint).partition("postgres: ")[2]
        cluster.rows(told.removesuffix(" then run this again"))
        assert heartbeat.create(connection) is True
