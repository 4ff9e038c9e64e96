"""Directories that a restore with --delta must not touch."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import threading
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from drkit.errors import TargetNotEmpty
from drkit.postgres.running import server_process
from tests.operations.scene import Scene, backup, drkit, refused
from tests.pg import copy_tree, give_to, run_drkit, versions_under_test
from tests.protect import NAME
from tests.storage.localtools import mounted, only_root

if TYPE_CHECKING:
    from drkit.postgres.process import Account
    from tests.protect import Protected

NEWEST = max(versions_under_test())


@dataclass
class Source:
    """A cluster with a tablespace that runs and was backed up."""

    scene: Scene
    protected: Protected
    place: Path

    @property
    def data(self) -> Path:
        return Path(self.protected.cluster.data_directory)

    def copy(self) -> Path:
        """Copy the data directory as somebody does who experiments."""
        target = self.scene.directory() / "data"
        copy_tree(self.data, target)
        (target / "postmaster.pid").unlink()
        return target

    def refused(self, target: Path, *options: str) -> dict[str, Any]:
        error = refused(self.protected, target, "--delta", *options)
        assert error["exit_code"] == TargetNotEmpty.exit_code, error
        assert error["hint"]
        return error

    def elsewhere(self) -> str:
        return f"--tablespace-map={self.place}={self.scene.directory() / 'space'}"


@pytest.fixture(scope="module")
def source(scene: Scene) -> Source:
    protected = scene.protect(NEWEST)
    place = scene.directory() / "one"
    place.mkdir()
    give_to(protected.account, place)
    protected.cluster.rows(f"CREATE TABLESPACE s LOCATION '{place}'")
    protected.cluster.rows("CREATE TABLE t TABLESPACE s AS SELECT 42 AS n")
    backup(protected)
    protected.archive_now()
    return Source(scene, protected, place)


def works(source: Source) -> bool:
    return bool(source.protected.cluster.sql("SELECT n FROM t") == 42)


# -- running servers


def test_a_running_server_is_not_overwritten(source: Source) -> None:
    cluster = source.protected.cluster
    said = drkit(source.protected, "restore", NAME, "--delta", "--to", source.data)
    assert said.code == TargetNotEmpty.exit_code
    assert f"process {cluster.pid}" in said.err
    assert works(source)


def test_nor_one_that_lost_its_pid_file(source: Source) -> None:
    """As its backends do when the postmaster is killed."""
    file = source.data / "postmaster.pid"
    file.rename(source.data / "hidden")
    try:
        said = drkit(source.protected, "restore", NAME, "--delta", "--to", source.data)
    finally:
        (source.data / "hidden").rename(file)
    assert said.code == TargetNotEmpty.exit_code
    assert "a server is running" in said.err
    assert works(source)


def test_a_server_elsewhere_is_known_by_its_socket(source: Source) -> None:
    """In another container its process can't be seen; its socket may be shared."""
    target, sockets = source.copy(), source.scene.directory()
    dead = subprocess.run(["sh", "-c", "echo $$"], capture_output=True, check=True)
    lines = [dead.stdout.decode().strip(), "/data", "1768473000", "5432", str(sockets)]
    (target / "postmaster.pid").write_text("\n".join([*lines, "*", "1 2", "ready"]))
    assert server_process(str(target)) is None
    (sockets / ".s.PGSQL.5432.lock").write_text("1\n/data\n1768473000\n5432\n\n")
    with closing(socket.socket(socket.AF_UNIX)) as listening:
        listening.bind(str(sockets / ".s.PGSQL.5432"))
        listening.listen()
        error = source.refused(target, source.elsewhere())
        assert "a server is running" in error["message"]
    assert server_process(str(target)) is None


def test_a_copy_s_links_lead_to_the_original_s_tablespace(source: Source) -> None:
    target = source.copy()
    error = source.refused(target)
    assert str(source.place) in error["message"]
    assert "running server" in error["message"]
    assert works(source)


def test_a_copy_s_link_to_the_original_s_wal_is_replaced(scene: Scene) -> None:
    protected = scene.protect(NEWEST)
    cluster = protected.cluster
    backup(protected)
    protected.archive_now()
    cluster.stop()
    disk = scene.directory() / "waldir"
    data = Path(cluster.data_directory)
    (data / "pg_wal").rename(disk)
    (data / "pg_wal").symlink_to(disk)
    cluster.start()
    target = scene.directory() / "data"
    copy_tree(data, target)
    (target / "postmaster.pid").unlink()
    before = sorted(path.name for path in disk.iterdir())
    options = ("restore", NAME, "--delta", "--output", "json", "--to", target)
    said = drkit(protected, *options)
    assert said.code == 0, said.err
    assert not (target / "pg_wal").is_symlink()
    assert sorted(path.name for path in disk.iterdir()) == before
    assert f"pg_wal is a link to {disk}" in said.out
    cluster.rows("CREATE TABLE still AS SELECT 1 AS works; CHECKPOINT")
    cluster.stop()


# -- what is no data directory of this cluster


def test_another_cluster_s_directory_is_refused(source: Source) -> None:
    other = source.scene.factory.make(NEWEST, start=False)
    source.scene.clusters.append(other)
    error = source.refused(Path(other.data_directory), source.elsewhere())
    assert "another cluster's" in error["message"]


@pytest.mark.parametrize("kind", ["photos", "no version", "no control", "bad control"])
def test_what_looks_otherwise_is_refused(source: Source, kind: str) -> None:
    target = source.copy()
    if kind == "photos":
        shutil.rmtree(target)
        target.mkdir()
        (target / "holiday.jpg").write_text("irreplaceable")
    elif kind == "no version":
        (target / "PG_VERSION").unlink()
    elif kind == "no control":
        (target / "global/pg_control").unlink()
    else:
        (target / "global/pg_control").write_bytes(bytes(8192))
    error = source.refused(target, source.elsewhere())
    assert str(target) in error["message"]


def test_a_directory_inside_of_a_data_directory_is_refused(source: Source) -> None:
    target = source.copy()
    source.refused(target / "base", source.elsewhere())


@only_root
def test_another_user_s_directory_is_refused(
    source: Source, postgres_user: Account
) -> None:
    target = source.copy()
    target.chmod(0o755)
    os.chown(target, 0, 0)
    words = ("restore", NAME, "--delta", source.elsewhere(), "--to", target)
    done = run_drkit(
        *words, "--policy-dir", source.protected.home, account=postgres_user
    )
    assert done.returncode == TargetNotEmpty.exit_code, done.stderr
    assert b"belongs to the user with number 0" in done.stderr


@pytest.mark.parametrize("kind", ["file", "foreign data", "another's tablespace"])
def test_a_tablespace_s_place_must_be_the_directory_s_own(
    source: Source, kind: str
) -> None:
    target, place = source.copy(), source.scene.directory() / "space"
    if kind == "file":
        place.write_text("keep me")
    elif kind == "foreign data":
        place.mkdir()
        (place / "keep").write_text("me")
    else:
        (place / "PG_18_202506291" / "5").mkdir(parents=True)
    error = source.refused(target, f"--tablespace-map={source.place}={place}")
    assert str(place) in error["message"]
    assert place.exists()


@only_root
def test_another_file_system_inside_is_not_emptied(source: Source) -> None:
    target = source.copy()
    with mounted(target / "photos", "size=1m"):
        (target / "photos" / "holiday.jpg").write_text("irreplaceable")
        error = source.refused(target, source.elsewhere())
        assert "photos" in error["message"]
        assert "unmount" in error["hint"]


def test_a_server_that_starts_after_the_plan_is_seen(source: Source) -> None:
    """The directory is looked at once more before the first thing is deleted."""
    from drkit import wiring
    from drkit.model.owner import Owner
    from drkit.model.recovery import RecoveryTarget
    from drkit.operations.restore import (
        RestoreRequest,
        execute_restore,
        plan_restore,
    )
    from tests.operations.backup_tools import Listener

    target = source.copy()
    account = source.protected.account
    request = RestoreRequest(
        None,
        RecoveryTarget(),
        str(target),
        {str(source.place): str(source.scene.directory() / "space")},
        1,
        wiring.restore_command(source.protected.policy()),
        Owner(account.uid, account.gid) if os.geteuid() == 0 else None,
        delta=True,
    )
    repository = source.protected.repository()
    plan = plan_restore(repository, request)
    done = threading.Event()
    with subprocess.Popen(["sleep", "60"]) as sleeping:
        (target / "postmaster.pid").write_text(f"{sleeping.pid}\n")
        with pytest.raises(TargetNotEmpty, match="a server is running"):
            execute_restore(repository, plan, Listener(at={"fetch": done.set}))
        sleeping.kill()
    assert not done.is_set()
    assert (target / "global/pg_control").exists()


def test_the_hint_of_a_plain_restore_names_delta(source: Source) -> None:
    error = refused(source.protected, source.copy(), source.elsewhere())
    assert "--delta" in error["hint"]
    assert json.dumps(error)
