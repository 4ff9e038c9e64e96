"""Keys and passwords show up nowhere but where they are kept."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from drkit.errors import WalMissing
from tests.operations.scene import Scene, backup
from tests.pg import drkit_command, give_to, versions_under_test
from tests.protect import NAME, Protected

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PASSWORD = "pass:word/with'odd%20 parts"
STORE_SECRET = "store+secret/ABCDEFGH"
ENVIRONMENT = {"CLUSTER_PASSWORD": PASSWORD, "STORE_SECRET": STORE_SECRET}


@pytest.fixture(scope="module")
def original(scene: Scene) -> Protected:
    protected = scene.protect(max(versions_under_test()))
    protected.change_policy(
        lambda policy: policy["cluster"].update(password="env:CLUSTER_PASSWORD")
    )
    os.environ.update(ENVIRONMENT)
    try:
        backup(protected)
    finally:
        for name in ENVIRONMENT:
            del os.environ[name]
    protected.archive_now()
    return protected


def secrets_of(home: Path) -> set[bytes]:
    """Return every form in which a secret of a policy could be written."""
    found = {value.encode() for value in ENVIRONMENT.values()}
    for path in (home / "keys").glob("*.key"):
        secret = path.read_text().strip().rpartition(":")[2]
        raw = bytes.fromhex(secret)
        found |= {secret.encode(), base64.b64encode(raw).rstrip(b"="), raw}
        found.add(repr(raw)[2:-1].encode())
    return found


@contextmanager
def watching_arguments() -> Iterator[list[bytes]]:
    """Collect the command lines of all processes for as long as the block runs."""
    seen: set[bytes] = set()
    shown: list[bytes] = []
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.02):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    seen.add(path.read_bytes())
                except OSError:
                    continue

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield shown
    finally:
        ended.set()
        thread.join()
        shown.extend(seen)


def key_missing(protected: Protected) -> None:
    (protected.home / "keys/wal.key").unlink()


def key_wrong(protected: Protected) -> None:
    keys = protected.home / "keys"
    shutil.copy(keys / "catalog.key", keys / "backup.key")


def key_malformed(protected: Protected) -> None:
    path = protected.home / "keys/catalog.key"
    path.write_text(path.read_text().replace("drkit-kek", "drkit-kex"))


def pack_damaged(protected: Protected) -> None:
    for path in protected.repository_root.glob(f"{NAME}/backups/*/packs/*"):
        path.write_bytes(path.read_bytes()[:-1])


def server_gone(protected: Protected) -> None:
    def change(policy: dict[str, Any]) -> None:
        policy["cluster"]["url"] = "postgresql://me@127.0.0.1:9/db"

    protected.change_policy(change)


def store_gone(protected: Protected) -> None:
    s3 = {"endpoint_url": "http://127.0.0.1:9", "region": "us-east-1"}
    s3 |= {"access_key_id": "env:STORE_SECRET", "secret_access_key": "env:STORE_SECRET"}
    repository = {"url": "s3://bucket/prefix", "s3": s3}

    def change(policy: dict[str, Any]) -> None:
        policy.update(repository=repository, wal={"timeout": "1 second"})

    protected.change_policy(change)


def secret_in_policy(protected: Protected) -> None:
    """A person wrote the secret itself where a reference belongs."""

    def change(policy: dict[str, Any]) -> None:
        policy["cluster"]["password"] = PASSWORD
        key = (protected.home / "keys/wal.key").read_text().strip()
        policy["keys"]["wal"] = key

    protected.change_policy(change)


def nothing(_: Protected) -> None:
    pass


@pytest.mark.parametrize(
    "harm",
    [
        nothing,
        key_missing,
        key_wrong,
        key_malformed,
        pack_damaged,
        server_gone,
        secret_in_policy,
    ],
)
def test_no_output_and_no_command_line_tells_a_secret(
    scene: Scene, original: Protected, harm: Callable[[Protected], None]
) -> None:
    home = scene.directory()
    shutil.copytree(original.repository_root, home / "repository")
    shutil.copytree(original.home / "keys", home / "keys")
    text = original.policy_path.read_text().replace(str(original.home), str(home))
    (home / original.policy_path.name).write_text(text)
    give_to(original.account, home)
    copy = Protected(original.cluster, home, original.account)
    secrets = secrets_of(home)
    assert len(secrets) > 20
    # The server archives elsewhere, so a backup of the copy waits in vain.
    copy.change_policy(lambda policy: policy["backup"].update(wal_timeout="1 second"))
    harm(copy)
    with watching_arguments() as arguments:
        told, codes = tell_everything(scene, copy)
    assert any(b"drkit" in line for line in arguments)
    assert (codes == [0, 0, WalMissing.exit_code, 0, 0]) == (harm is nothing)
    for secret in secrets:
        assert secret not in told, told.decode(errors="replace")
        assert not any(secret in line for line in arguments)
    shutil.rmtree(home)


def test_no_output_tells_the_secret_of_a_store(
    scene: Scene, original: Protected
) -> None:
    home = scene.directory()
    shutil.copytree(original.home / "keys", home / "keys")
    shutil.copy(original.policy_path, home)
    copy = Protected(original.cluster, home, original.account)
    store_gone(copy)
    told, codes = tell_everything(scene, copy, first=2)
    assert all(codes)
    assert STORE_SECRET.encode() not in told


def tell_everything(
    scene: Scene, protected: Protected, first: int | None = None
) -> tuple[bytes, list[int]]:
    """Run commands as talkative as they can be; return output and exit codes."""
    path = protected.policy_path
    segment = next(
        Path(protected.cluster.data_directory, "pg_wal").glob("0" * 7 + "1*")
    )
    commands: list[list[Any]] = [
        ["wal", "push", "--policy", path, segment],
        ["wal", "get", "--policy", path, segment.name, scene.target()],
        ["backup", path, "--log-level", "debug"],
        ["restore", path, "--to", scene.target(), "--log-level", "debug"],
        ["wal", "status", path, "--log-level", "debug", "--log-format", "json"],
    ]
    whole = {**os.environ, **ENVIRONMENT}
    told, codes = b"", []
    for words in commands[:first]:
        done = subprocess.run(
            drkit_command(*words), env=whole, capture_output=True, check=False
        )
        told += done.stdout + done.stderr
        codes.append(done.returncode)
    return told, codes
