"""WAL of real servers: archived without gaps, fetched by copies and standbys."""

from __future__ import annotations

import os
import re
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from drkit import wiring
from drkit.errors import NotFound, UsageError
from drkit.model.wal import WalFileName
from tests.operations.scene import SMALL_SEGMENTS, Scene, backup, drkit, restore
from tests.pg import drkit_command, give_to, run_drkit, versions_under_test
from tests.protect import NAME, Protected

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.pg import Cluster

NEWEST = max(versions_under_test())
SILENT = "SELECT pg_logical_emit_message(false, '', repeat('x', 200000))"


def wait_for(what: Callable[[], object], cluster: Cluster, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, cluster.log_tail()
        time.sleep(0.05)


def archived(protected: Protected) -> list[str]:
    names = (stored.file.name for stored in protected.repository().wal.list())
    return sorted(name for name in names if len(name) == 24)


def test_a_server_killed_in_the_middle_of_archiving_leaves_no_gap(
    pg_version: int, scene: Scene
) -> None:
    protected = scene.protect(pg_version)
    cluster = protected.cluster
    cluster.rows("CREATE TABLE t (n int)")
    backup(protected)
    before = len(archived(protected))
    for n in range(3):
        for _ in range(12):  # two segments and more
            cluster.rows(SILENT)
        cluster.rows(f"INSERT INTO t VALUES ({n})")
        wait_for(lambda: len(archived(protected)) > before + 2 * n, cluster)  # noqa: B023
        cluster.kill()
        cluster.start()
    protected.archive_now()
    status = protected.json("wal", "status", NAME)
    (line,) = status["timelines"]
    assert line["gaps"] == []
    assert line["segments"] >= before + 6
    cluster.kill()

    target = scene.target()
    restore(protected, target)
    restored = scene.start(target, pg_version)
    assert restored.rows("SELECT n FROM t ORDER BY n") == [(0,), (1,), (2,)]


def test_a_standby_follows_the_archive(pg_version: int, scene: Scene) -> None:
    protected = scene.protect(pg_version)
    primary = protected.cluster
    primary.rows("CREATE TABLE t (n int)")
    backup(protected)
    target = scene.target()
    restore(protected, target)
    (target / "recovery.signal").rename(target / "standby.signal")
    automatic = target / "postgresql.auto.conf"
    automatic.write_text(
        automatic.read_text().replace("recovery_target_timeline = '1'\n", "")
    )
    fast = {"wal_retrieve_retry_interval": "100ms"}
    standby = scene.serve(target, pg_version, **fast)
    standby.start()
    for n in range(1, 3):
        primary.rows("INSERT INTO t VALUES (1)")
        protected.archive_now()
        wait_for(lambda: standby.sql("SELECT count(*) FROM t") == n, standby)  # noqa: B023
    assert standby.sql("SELECT pg_is_in_recovery()") is True

    # What a standby can't fetch for now must not end it.
    root = protected.repository_root
    root.rename(protected.home / "away")
    time.sleep(0.5)
    (protected.home / "away").rename(root)
    primary.rows("INSERT INTO t VALUES (1)")
    protected.archive_now()
    wait_for(lambda: standby.sql("SELECT count(*) FROM t") == 3, standby)
    primary.stop()
    standby.promote()
    standby.rows("INSERT INTO t VALUES (1)")
    assert standby.sql("SELECT count(*) FROM t") == 4


@pytest.mark.parametrize(
    "size", [64 << 20, pytest.param(1 << 30, marks=pytest.mark.long)]
)
def test_large_segments_come_back_whole(scene: Scene, size: int) -> None:
    protected = scene.protect(NEWEST, wal_segment_size=size)
    protected.cluster.rows("CREATE TABLE t AS SELECT 7 AS n")
    backup(protected)
    protected.cluster.rows("INSERT INTO t VALUES (8)")
    name = protected.archive_now(timeout=300)
    content = protected.repository().wal.get(WalFileName.parse(name))
    assert len(content) == size
    protected.cluster.kill()
    target = scene.target()
    restore(protected, target)
    restored = scene.start(target, NEWEST)
    assert restored.rows("SELECT n FROM t ORDER BY n") == [(7,), (8,)]


def test_damaged_wal_stops_a_recovery_instead_of_ending_it(scene: Scene) -> None:
    """Else the copy would be promoted with data missing."""
    protected = scene.protect(NEWEST)
    cluster = protected.cluster
    cluster.rows("CREATE TABLE t (n int)")
    backup(protected)
    for _ in range(3):
        cluster.rows("INSERT INTO t VALUES (1)")
        protected.archive_now()
    cluster.kill()
    victim = next(protected.repository_root.rglob(archived(protected)[-2]))
    whole = victim.read_bytes()
    target = scene.target()
    restore(protected, target)
    victim.write_bytes(whole[:-1])
    server = scene.serve(target, NEWEST)
    server.launch()
    assert server.wait_until_stopped() != 0
    assert victim.name in Path(server.log_path).read_text()
    victim.write_bytes(whole)
    server.start()
    server.wait_until_primary()
    assert server.sql("SELECT count(*) FROM t") == 3


# -- the policy that is meant


def another_policy(protected: Protected, name: str, system: str) -> None:
    """Put a policy of another cluster beside the one there is."""
    text = protected.policy_path.read_text()
    text = re.sub(r"system_identifier: '?\d+'?", f"system_identifier: '{system}'", text)
    text = re.sub(r"(?m)^name: .*$", f"name: {name}", text)
    (protected.home / f"{name}.yaml").write_text(text)


def test_the_policy_is_found_by_the_cluster(scene: Scene) -> None:
    protected = scene.protect(NEWEST)
    cluster = protected.cluster
    name = protected.archive_now()
    path = scene.directory() / name
    path.write_bytes(protected.repository().wal.get(WalFileName.parse(name)))
    data = cluster.data_directory
    cluster.stop()
    env = {"DRKIT_POLICY_DIR": str(protected.home)}
    # the only one
    assert run_drkit("wal", "push", path, env=env).returncode == 0
    # the one whose system identifier the segment has, wherever it lies
    another_policy(protected, "other", "4711")
    done = run_drkit("wal", "push", path, env=env)
    assert done.returncode == 0, done.stderr
    to = scene.target()
    done = run_drkit("wal", "get", name, to, env=env, cwd=data)
    assert done.returncode == 0, done.stderr
    # a history has no system identifier, the data directory has
    history = scene.directory() / "00000002.history"
    history.write_text("1\t0/3000000\tno recovery target specified\n")
    assert run_drkit("wal", "push", history, env=env).returncode == UsageError.exit_code
    assert run_drkit("wal", "push", history, env=env, cwd=data).returncode == 0
    # none of two matches
    system = cluster_identifier(protected)
    policy = protected.policy_path.read_text()
    protected.policy_path.write_text(policy.replace(system, "4712"))
    done = run_drkit("wal", "push", path, env=env, cwd=data)
    assert done.returncode == NotFound.exit_code
    assert b"main, other" in done.stderr
    assert run_drkit("wal", "get", name, to, env=env, cwd=data).returncode == 200


def cluster_identifier(protected: Protected) -> str:
    return str(protected.policy().cluster.system_identifier)


# -- S3


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    """The URL of an S3 server with a bucket named `bucket`."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    options: dict[str, Any] = {"endpoint_url": url, "region_name": "us-east-1"}
    options |= {"aws_access_key_id": "x", "aws_secret_access_key": "y"}
    client = boto3.session.Session().client("s3", **options)
    client.create_bucket(Bucket="bucket")
    client.close()
    yield url
    server.stop()


def test_a_cluster_in_s3_with_secrets_from_the_environment(
    scene: Scene, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = {"STORE_ID": "AKIDEXAMPLE", "STORE_SECRET": "very secret"}
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    protected = scene.protect(NEWEST, {"archive_mode": "on"})
    cluster = protected.cluster
    s3 = {"endpoint_url": store, "region": "us-east-1"}
    s3 |= {"access_key_id": "env:STORE_ID", "secret_access_key": "env:STORE_SECRET"}
    repository = {"url": "s3://bucket/below/this", "s3": s3}
    protected.change_policy(lambda policy: policy.update(repository=repository))
    open_log(protected)
    push, get = scripts(protected, secrets)
    cluster.rows(f"ALTER SYSTEM SET archive_command = '{push} %p'")
    cluster.rows("SELECT pg_reload_conf()")
    cluster.rows("CREATE TABLE t AS SELECT 1 AS n")
    backup(protected)
    cluster.rows("INSERT INTO t VALUES (2)")
    protected.archive_now()
    cluster.kill()
    target = scene.target()
    restore(protected, target, "--jobs", "2")
    restored = scene.start(target, NEWEST, restore_command=f"{get} %f %p")
    assert restored.rows("SELECT n FROM t ORDER BY n") == [(1,), (2,)]
    assert drkit(protected, "wal", "status", NAME).code == 0


def open_log(protected: Protected) -> None:
    """Set the policy's repository up, as `drkit init` does."""
    from drkit.config.compiled import compile_policy
    from drkit.model.log import Open
    from drkit.repository.identity import create_identity

    policy, secrets = protected.policy(), wiring.Secrets(os.environ)
    store = wiring.storage(compile_policy(policy), secrets, 10)
    create_identity(store, wiring.SystemClock().now())
    repository = wiring.open_repository(policy, secrets)
    system = cluster_identifier(protected)
    repository.log.append(lambda _: Open(NAME, system, SMALL_SEGMENTS))


def scripts(protected: Protected, secrets: dict[str, str]) -> list[str]:
    """Write scripts that only the server's user can read, with the secrets set."""
    made = []
    for verb in ("push", "get"):
        path = protected.home / verb
        lines = [
            f"export {name}={shlex.quote(value)}" for name, value in secrets.items()
        ]
        policy = ("--policy", protected.policy_path)
        words = shlex.join(drkit_command("wal", verb, *policy))
        path.write_text("\n".join(["#!/bin/sh", *lines, f'exec {words} "$@"', ""]))
        path.chmod(0o500)
        give_to(protected.account, path)
        made.append(str(path))
    return made
