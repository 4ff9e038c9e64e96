"""Scratch instances: recovered to the target, cut off from the outside, then gone."""

from __future__ import annotations

import os
import socket
import time
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from drkit.errors import (
    NoSpace,
    PostgresRefused,
    TargetUnreachable,
    WalMissing,
)
from drkit.model.recovery import RecoveryTarget, TargetAction, TargetKind
from drkit.operations.scratch.instance import (
    ScratchOptions,
    scratch_instance,
)
from tests.operations.scene import backup, snapshot
from tests.operations.scratch_tools import CLOCK, MEMORY, recover, restored_scratch
from tests.pg import give_to, versions_under_test

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.operations.scene import Scene
    from tests.protect import Protected

NEWEST = max(versions_under_test())
ROOT = Path(__file__).parents[2]
BOSS = 'große "Chefin"'
QUOTED = '"große ""Chefin"""'
ROLE_SETTINGS = (
    "session_preload_libraries = not_there",
    "default_transaction_read_only = on",
    "zero_damaged_pages = on",
    "ignore_checksum_failure = on",
)
ENDLESS = "while :; do :; done"  # there is no sleep where the server runs
START = datetime(2000, 1, 1, tzinfo=UTC)
TIME = RecoveryTarget(TargetKind.TIME, time=datetime(2100, 1, 1, tzinfo=UTC))


@dataclass
class Production:
    """A cluster whose configuration and catalogs reach outside wherever they can.

    It is backed up with 1 in its table; 2 and 3 are in its WAL. Its configuration
    files were changed without a reload, so it lives on with what it started with.

    Attributes:
        outside: where its settings write to; nothing may come there.
        port: where its subscription and its standby settings connect to.
        between: when 2 was committed and 3 was not.
    """

    protected: Protected
    outside: Path
    peer: socket.socket
    between: datetime = START


def poison(outside: Path, port: int) -> str:
    wanted = {
        "archive_mode": "always",
        "archive_command": f"touch {outside}/archived",
        "external_pid_file": f"{outside}/pid",
        "primary_conninfo": f"host=127.0.0.1 port={port}",
        "primary_slot_name": "eaten",
        "shared_preload_libraries": "not_there, pg_cron, plpgsql",
        "session_preload_libraries": "not_there",
        "log_directory": f"{outside}",
        "logging_collector": "on",
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": f"{outside}",
        "ssl": "on",
        "max_logical_replication_workers": "4",
        "shared_buffers": "100GB",
        "timezone": "Asia/Kolkata",
        "lc_monetary": "xx_XX.nowhere",
        "datestyle": "German, DMY",
        "data_directory": f"{outside}/data",
        "no.such": "parameter",
    }
    return "".join(f"{name} = '{value}'\n" for name, value in wanted.items())


def make_production(scene: Scene, major: int) -> Production:
    protected = scene.protect(major, {"max_logical_replication_workers": "0"})
    outside = scene.directory()
    peer = socket.create_server(("127.0.0.1", 0))
    peer.setblocking(False)
    port = peer.getsockname()[1]
    production = Production(protected, outside, peer)
    cluster = protected.cluster
    cluster.rows("CREATE TABLE t AS SELECT 1 AS n; CREATE ROLE helper SUPERUSER LOGIN")
    protected.archive_now()  # so the archiver has read its command, and nothing later
    data = Path(cluster.data_directory)
    (data / "conf.d").mkdir()
    (data / "conf.d/evil.conf").write_text(poison(outside, port))
    with (data / "postgresql.conf").open("a") as conf:
        conf.write("include_dir = 'conf.d'\n")
    with (data / "postgresql.auto.conf").open("a") as conf:
        conf.write(f"archive_command = 'touch {outside}/system'\nport = 1\n")
        conf.write(
            "archive_cleanup_command = 'false'\nrecovery_end_command = 'false'\n"
        )
    (data / "pg_hba.conf").write_text("local all all reject\n")
    (data / "standby.signal").touch()
    give_to(protected.account, data / "conf.d")
    backup(protected)
    go_on(production, port)
    return production


def go_on(production: Production, port: int) -> None:
    """Write what only WAL brings to the copy."""
    cluster = production.protected.cluster
    cluster.rows("INSERT INTO t VALUES (2)")
    production.between = cluster.sql("SELECT clock_timestamp()")
    cluster.rows("INSERT INTO t VALUES (3)")
    cluster.rows(
        f"CREATE SUBSCRIPTION eater CONNECTION 'host=127.0.0.1 port={port} user=x "
        "dbname=x' PUBLICATION p WITH (connect = false, slot_name = 'eaten')"
    )
    cluster.rows("ALTER SUBSCRIPTION eater ENABLE")
    with psycopg.connect(host=cluster.directory, user="helper", dbname="postgres") as c:
        c.execute(f"ALTER ROLE postgres RENAME TO {QUOTED}".encode())
    with psycopg.connect(host=cluster.directory, user=BOSS, dbname="postgres") as c:
        c.execute("ALTER ROLE helper RENAME TO postgres")
    with closing(connect_plainly(production)) as c:
        c.execute("CREATE ROLE plain")
        for setting in ROLE_SETTINGS:
            c.execute(f"ALTER ROLE ALL SET {setting}".encode())
        c.execute(f"ALTER ROLE {QUOTED} SET role = plain".encode())
        if cluster.binaries.major >= 17:
            c.execute("ALTER ROLE ALL SET event_triggers = on")
            c.execute(
                "CREATE FUNCTION slam() RETURNS event_trigger LANGUAGE plpgsql "
                "AS $$ BEGIN RAISE 'nobody comes in'; END $$; "
                "CREATE EVENT TRIGGER slam ON login EXECUTE FUNCTION slam(); "
                "ALTER EVENT TRIGGER slam ENABLE ALWAYS"
            )
        c.execute("SELECT pg_logical_emit_message(false, 'test', 'end')")
        c.execute("SELECT pg_switch_wal()")
    wait_archived(production.protected)


def connect_plainly(production: Production) -> psycopg.Connection:
    """Connect without the library that every role now asks for."""
    return psycopg.connect(
        host=production.protected.cluster.directory,
        user=BOSS,
        dbname="postgres",
        options="-c session_preload_libraries=",
        autocommit=True,
    )


def wait_archived(protected: Protected) -> None:
    status = Path(protected.cluster.data_directory, "pg_wal/archive_status")
    deadline = time.monotonic() + 30
    while list(status.glob("*.ready")):
        assert time.monotonic() < deadline, protected.cluster.log_tail()
        time.sleep(0.02)


@pytest.fixture(scope="module", params=versions_under_test(), ids=lambda v: f"pg{v}")
def production(scene: Scene, request: pytest.FixtureRequest) -> Iterator[Production]:
    made = make_production(scene, request.param)
    yield made
    made.peer.close()


@pytest.fixture(scope="module")
def plain(scene: Scene) -> Protected:
    protected = scene.protect(NEWEST)
    protected.cluster.rows("CREATE TABLE t AS SELECT 1 AS n")
    backup(protected)
    protected.archive_now()
    return protected


def test_nothing_of_productions_reaches_outside(
    production: Production, scene: Scene
) -> None:
    before, directory = snapshot(production.outside), scene.directory() / "new"
    archived = production.protected.repository().wal.list()
    stored = {one.file.name for one in archived}
    began = datetime.now(UTC)
    with restored_scratch(production.protected, directory) as scratch:
        recovered = recover(scratch, production.protected)
        with closing(scratch.connect()) as connection:
            one = connection.execute("SELECT array_agg(n ORDER BY n) FROM public.t")
            assert one.fetchone() == ([1, 2, 3],)
            connection.execute("INSERT INTO public.t VALUES (4)")
            connection.execute("SELECT pg_switch_wal()")
            shown = connection.execute(
                "SELECT current_user::text, current_setting('archive_command'), "
                "(SELECT reset_val FROM pg_settings WHERE name = 'TimeZone'), "
                "(SELECT reset_val FROM pg_settings WHERE name = 'DateStyle'), "
                "current_setting('shared_preload_libraries'), "
                "current_setting('zero_damaged_pages'), inet_server_addr()"
            ).fetchone()
            assert shown == (
                *(BOSS, "(disabled)", "Asia/Kolkata", "German, DMY"),
                *("plpgsql", "off", None),
            )
        time.sleep(0.3)  # a subscription's worker would have started by now
        assert scratch.cleanup is None
        said = " ".join(scratch.deviations)
    for word in ("not_there", "pg_cron", "shared_buffers is 16384kB", "lc_monetary"):
        assert word in said
    with pytest.raises(BlockingIOError):
        production.peer.accept()
    assert snapshot(production.outside) == before
    assert {one.file.name for one in production.protected.repository().wal.list()} == (
        stored
    )
    assert scratch.cleanup is not None
    assert scratch.cleanup.proven, scratch.cleanup.detail
    assert scratch.cleanup.removed_bytes > 10 << 20
    assert os.listdir(directory) == []
    times = [
        recovered.started,
        recovered.replay_began,
        recovered.replay_ended,
        recovered.promoted,
        recovered.ready,
    ]
    told = [moment for moment in times if moment is not None]
    assert len(told) == 5
    assert told == sorted(told)
    assert began - timedelta(milliseconds=1) <= told[0]
    assert told[-1] <= datetime.now(UTC)
    assert recovered.timeline == 1
    assert recovered.wal_segments >= 2
    assert recovered.reached_lsn is not None
    assert recovered.reached_time is not None
    assert production.between < recovered.reached_time < began


def test_a_target_time_is_kept_and_paused_at_by_nobody(
    production: Production, scene: Scene
) -> None:
    target = RecoveryTarget(
        TargetKind.TIME, time=production.between, action=TargetAction.PAUSE
    )
    with restored_scratch(production.protected, scene.directory(), target) as scratch:
        recovered = recover(scratch, production.protected)
        with closing(scratch.connect("template1")) as connection:
            assert connection.info.dbname == "template1"
        with closing(scratch.connect()) as connection:
            one = connection.execute("SELECT array_agg(n ORDER BY n) FROM public.t")
            assert one.fetchone() == ([1, 2],)
    assert recovered.reached_time is not None
    assert recovered.reached_time < production.between


@pytest.mark.parametrize("major", sorted({min(versions_under_test()), NEWEST}))
def test_productions_tablespaces_are_not_touched(scene: Scene, major: int) -> None:
    protected = scene.protect(major)
    cluster, place, later = protected.cluster, scene.directory(), scene.directory()
    cluster.rows(f"CREATE TABLESPACE early LOCATION '{place}'")
    cluster.rows("CREATE TABLE t TABLESPACE early AS SELECT 1 AS n")
    backup(protected)
    cluster.rows("INSERT INTO t VALUES (2)")
    protected.archive_now()
    with restored_scratch(protected, scene.directory()) as scratch:
        recover(scratch, protected)
        with closing(scratch.connect()) as connection:
            found = connection.execute(
                "SELECT count(*), pg_tablespace_location(oid) "
                "FROM public.t, pg_tablespace WHERE spcname = 'early' GROUP BY oid"
            ).fetchone()
        assert found is not None
        assert found[0] == 2
        assert found[1].startswith(scratch.directory)
    cluster.rows(f"CREATE TABLESPACE later LOCATION '{later}'")
    cluster.rows("CREATE TABLE u TABLESPACE later AS SELECT 1 AS n")
    protected.archive_now()
    before = changes(place), changes(later)
    with (
        restored_scratch(protected, scene.directory()) as scratch,
        pytest.raises(PostgresRefused, match=f"creates tablespace .* at {later}"),
    ):
        recover(scratch, protected)
    assert (changes(place), changes(later)) == before
    assert scratch.cleanup is not None
    assert scratch.cleanup.proven
    assert cluster.sql("SELECT n FROM u") == 1


def changes(place: Path) -> dict[str, tuple[int, int]]:
    """Return when each file below a place changed, by the kernel's own word."""
    every = [place, *place.rglob("*")]
    return {str(one): (one.stat().st_ctime_ns, one.stat().st_size) for one in every}


@pytest.mark.parametrize(
    ("command", "target", "error", "words"),
    [
        ("exit 1", None, WalMissing, "missing or damaged"),
        ("exit 255", None, PostgresRefused, "the restore_command failed for 0000"),
        (None, TIME, TargetUnreachable, "before the recovery target was reached"),
        (ENDLESS, None, PostgresRefused, "did not recover within 2 s: replay had"),
    ],
    ids=["no WAL", "broken", "unreachable", "too long"],
)
def test_a_recovery_that_fails_says_why_and_leaves_nothing(
    plain: Protected,
    scene: Scene,
    command: str | None,
    target: RecoveryTarget | None,
    error: type[Exception],
    words: str,
) -> None:
    directory = scene.directory()
    with restored_scratch(plain, directory, restore_command=command) as scratch:
        if target is not None:
            with open(f"{scratch.data_directory}/postgresql.auto.conf", "a") as conf:
                conf.write(f"recovery_target_time = '{target.time}'\n")
        with pytest.raises(error, match=words) as caught:
            recover(scratch, plain, 2 if command == ENDLESS else 60)
        assert not scratch.server.running
    assert getattr(caught.value, "hint", None)
    assert scratch.cleanup is not None
    assert scratch.cleanup.proven, scratch.cleanup.detail
    assert os.listdir(directory) == []


def test_what_does_not_fit_is_refused(plain: Protected, scene: Scene) -> None:
    options = ScratchOptions(
        str(scene.directory()), plain.cluster.binaries, plain.account, MEMORY, 1 << 20
    )
    with scratch_instance(options, CLOCK) as scratch:
        scratch.check_room(1 << 20)
        with pytest.raises(NoSpace, match="a scratch instance may take 1048576"):
            scratch.check_room(1 << 20 | 1)
    unlimited = replace(options, max_bytes=None)
    with (
        scratch_instance(unlimited, CLOCK) as scratch,
        pytest.raises(NoSpace, match="free"),
    ):
        scratch.check_room(1 << 60)


def test_a_server_has_limits_and_no_rights_to_gain(
    plain: Protected, scene: Scene
) -> None:
    with restored_scratch(plain, scene.directory()) as scratch:
        recover(scratch, plain)
        limits = Path(f"/proc/{scratch.server.pid}/limits").read_text()
        status = Path(f"/proc/{scratch.server.pid}/status").read_text()
        with closing(scratch.connect()) as connection:
            outside = scene.directory() / "copied"
            asked = f"COPY public.t TO PROGRAM 'cat > {outside}'"
            with pytest.raises(psycopg.errors.ExternalRoutineException):
                connection.execute(asked.encode())
            # there is no such place, or it may not be used where it can be seen
            refusal = psycopg.errors.InsufficientPrivilege
            with pytest.raises((refusal, psycopg.errors.UndefinedFile)):
                connection.execute(f"COPY public.t TO '{outside}'".encode())
    data = next(line for line in limits.splitlines() if "data size" in line)
    assert data.split()[3] == str(512 << 20)
    assert "NoNewPrivs:\t1" in status
    assert not outside.exists()


def test_an_exception_removes_what_a_restore_had_begun(
    plain: Protected, scene: Scene
) -> None:
    directory = scene.directory()

    def fail() -> None:
        with restored_scratch(plain, directory):
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        fail()
    assert os.listdir(directory) == []
