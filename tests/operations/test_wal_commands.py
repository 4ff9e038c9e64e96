"""`wal push` and `wal get` by their exit codes, as PostgreSQL reads them."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import struct
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from drkit.errors import (
    KeyUnavailable,
    NoSpace,
    RepositoryMissing,
    SourceUnreadable,
    StorageError,
    UsageError,
    WalRefused,
)
from drkit.model.wal import WalFileName
from tests.operations.scene import SMALL_SEGMENTS, Scene, backup
from tests.pg import drkit_command, give_to, run_drkit, versions_under_test
from tests.protect import Protected
from tests.storage.localtools import mounted, only_root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from drkit.postgres.process import Completed

NEWEST = max(versions_under_test())
ABSENT, FAILED = 1, 200
REFUSED = WalRefused.exit_code
SYSTEM_IDENTIFIER = 24  # where a segment's first page holds it


@dataclass
class Files:
    """WAL files of a real cluster, and a policy of their own to push them by."""

    scene: Scene
    protected: Protected
    directory: Path
    names: list[str]

    @property
    def segment(self) -> Path:
        return self.directory / self.names[0]

    def push(self, path: str | Path, **options: Any) -> Completed:
        return run_drkit("wal", "push", *self._policy(), path, **options)

    def get(self, name: str, to: str | Path, **options: Any) -> Completed:
        return run_drkit("wal", "get", *self._policy(), name, to, **options)

    def changed(self, change: Callable[[bytearray], object], name: str = "") -> Path:
        """Return a changed copy of the segment, under its own name or another."""
        content = bytearray(self.segment.read_bytes())
        change(content)
        path = self.scene.directory() / (name or self.segment.name)
        path.write_bytes(content)
        return path

    def archived(self, name: str) -> bytes:
        return self.protected.repository().wal.get(WalFileName.parse(name))

    def _policy(self) -> list[str]:
        return ["--policy", str(self.protected.policy_path)]


def collect(protected: Protected) -> tuple[Path, list[str]]:
    """Save a cluster's segments and a backup history outside of it, and end it."""
    directory = protected.home / "pg_wal"
    directory.mkdir()
    backup(protected)
    names = [protected.archive_now() for _ in range(2)]
    archive = protected.repository().wal
    for stored in archive.list():
        (directory / stored.file.name).write_bytes(archive.get(stored.file))
    protected.cluster.stop()
    return directory, names


@pytest.fixture(scope="module")
def real(scene: Scene) -> Files:
    protected = scene.protect(NEWEST)
    return Files(scene, protected, *collect(protected))


@pytest.fixture
def files(scene: Scene, real: Files) -> Iterator[Files]:
    """The real files, and a repository in which none of them is archived yet."""
    home = scene.directory()
    original = real.protected
    shutil.copytree(original.home / "keys", home / "keys")
    shutil.copytree(original.repository_root, home / "repository")
    shutil.rmtree(home / "repository/main/wal")
    text = original.policy_path.read_text().replace(str(original.home), str(home))
    (home / original.policy_path.name).write_text(text)
    protected = Protected(original.cluster, home, original.account)
    protected.change_policy(lambda policy: policy["wal"].update(timeout="2 seconds"))
    give_to(original.account, home)
    yield Files(scene, protected, real.directory, real.names)
    shutil.rmtree(home)


# -- push


def test_the_same_segment_twice_is_archived_once(files: Files) -> None:
    first, second = files.push(files.segment), files.push(files.segment)
    assert (first.returncode, second.returncode) == (0, 0)
    assert b"was archived already" in second.stdout
    assert files.archived(files.segment.name) == files.segment.read_bytes()


def test_other_content_under_the_same_name_is_refused(files: Files) -> None:
    files.push(files.segment)
    other = files.changed(lambda content: content.__setitem__(-1, content[-1] ^ 1))
    done = files.push(other)
    assert done.returncode == REFUSED <= 125
    assert files.archived(files.segment.name) == files.segment.read_bytes()


def foreign(content: bytearray) -> None:
    struct.pack_into("<Q", content, SYSTEM_IDENTIFIER, 42)


def old_version(content: bytearray) -> None:
    struct.pack_into("<H", content, 0, 0xD101)


@pytest.mark.parametrize(
    ("change", "name", "what"),
    [
        (bytearray.clear, "", "0 bytes"),
        (lambda content: content.__delitem__(slice(8192, None)), "", "8192 bytes"),
        (lambda content: content.extend(b"\0"), "", "1048577 bytes"),
        (lambda content: content.__setitem__(slice(None), bytes(1 << 20)), "", "zeros"),
        (foreign, "", "system identifier 42"),
        (old_version, "", "no version"),
        (lambda _: None, "0000000100000000000000FF", "recycled"),
        (lambda _: None, "something_else", "no name of a WAL file"),
        (lambda _: None, "00000002.history", "00000002.history"),
        (lambda _: None, "000000010000000000000001.00000028.backup", "no text"),
    ],
)
def test_what_is_not_what_its_name_says_is_refused(
    files: Files, change: Callable[[bytearray], object], name: str, what: str
) -> None:
    path = files.changed(change, name)
    done = files.push(path)
    assert done.returncode == REFUSED, done
    assert what in done.stderr.decode()
    assert not (files.protected.repository_root / "main/wal").exists()


def test_other_kinds_of_files_are_kept_beside_segments(files: Files) -> None:
    segment = files.segment.read_bytes()
    half = segment[: 64 << 10] + bytes(SMALL_SEGMENTS - (64 << 10))
    contents = {
        f"{files.segment.name}.partial": half,
        files.segment.name: segment,
        "0000000A.history": b"9\t0/3000000\tno recovery target specified\n",
    }
    label = next(path for path in files.directory.iterdir() if ".backup" in path.name)
    contents[label.name] = label.read_bytes()
    directory = files.scene.directory()
    for name, content in contents.items():
        (directory / name).write_bytes(content)
        assert files.push(directory / name).returncode == 0
    for name, content in contents.items():
        to = directory / "fetched"
        assert files.get(name, to).returncode == 0
        assert to.read_bytes() == content
        to.unlink()


def test_a_push_that_can_t_read_says_so(files: Files) -> None:
    for path in (files.directory / ("0" * 24), files.directory):
        done = files.push(path)
        assert done.returncode == SourceUnreadable.exit_code


# -- get


def test_only_what_is_proven_absent_is_absent(files: Files) -> None:
    to = files.scene.target()
    done = files.get(files.segment.name, to)
    assert done.returncode == ABSENT
    assert b"is not archived" in done.stdout + done.stderr
    assert not to.exists()
    files.push(files.segment)
    assert files.get(files.segment.name, to).returncode == 0
    assert to.read_bytes() == files.segment.read_bytes()
    assert [one.name for one in to.parent.iterdir()] == [to.name]


def no_repository(files: Files) -> None:
    files.protected.repository_root.rename(files.protected.home / "away")


def empty_mount_point(files: Files) -> None:
    no_repository(files)
    files.protected.repository_root.mkdir()


def no_key(files: Files) -> None:
    (files.protected.home / "keys/wal.key").unlink()


def unreachable(files: Files) -> None:
    """A store on a port where nobody listens."""
    use_s3(files, "http://127.0.0.1:9")


def broken_policy(files: Files) -> None:
    files.protected.policy_path.write_text("name: [\n")


def no_policy(files: Files) -> None:
    files.protected.policy_path.unlink()


def use_s3(files: Files, endpoint: str) -> None:
    def change(policy: dict[str, Any]) -> None:
        policy["repository"] = {
            "url": "s3://bucket/prefix",
            "s3": {
                "endpoint_url": endpoint,
                "region": "us-east-1",
                "access_key_id": "env:STORE_ID",
                "secret_access_key": "env:STORE_SECRET",
            },
        }

    files.protected.change_policy(change)


S3_ENVIRONMENT = {"STORE_ID": "AKIDEXAMPLE", "STORE_SECRET": "not-a-secret"}


@pytest.mark.parametrize(
    ("harm", "pushed"),
    [
        (no_repository, RepositoryMissing.exit_code),
        (empty_mount_point, RepositoryMissing.exit_code),
        (no_key, KeyUnavailable.exit_code),
        (unreachable, StorageError.exit_code),
        (broken_policy, 10),
        (no_policy, 14),
    ],
)
def test_a_failure_is_never_taken_for_the_end_of_wal(
    files: Files, harm: Callable[[Files], None], pushed: int
) -> None:
    files.push(files.segment)
    harm(files)
    to = files.scene.target()
    done = files.get(files.segment.name, to, env=S3_ENVIRONMENT)
    assert done.returncode == FAILED, done.stderr
    assert not to.exists()
    again = files.push(files.segment, env=S3_ENVIRONMENT)
    assert again.returncode == pushed, again.stderr
    if harm in (broken_policy, no_policy):
        return  # who can't read the policy does not know how long to wait
    # A standby must not be stopped by it, and asks again later.
    (to.parent / "standby.signal").touch()
    done = files.get(files.segment.name, to, env=S3_ENVIRONMENT, cwd=to.parent)
    assert done.returncode == ABSENT, done.stderr


def test_a_name_that_no_server_asks_for_is_a_failure(files: Files) -> None:
    done = files.get("../../drkit.json", files.scene.target())
    assert done.returncode == FAILED
    assert b"no name of a WAL file" in done.stderr


@pytest.mark.parametrize("words", [[], ["one"], ["a", "b", "c"], ["--what", "a", "b"]])
def test_a_wrong_command_line_is_a_failure(words: list[str]) -> None:
    assert run_drkit("wal", "get", *words).returncode == FAILED
    done = run_drkit("wal", "push", *words[:0], "a", "b", "c")
    assert done.returncode == UsageError.exit_code


def test_a_destination_that_can_t_be_written_is_a_failure(files: Files) -> None:
    files.push(files.segment)
    directory = files.scene.directory()
    for to in (directory, directory / "no/such/place"):
        assert files.get(files.segment.name, to).returncode == FAILED
        assert list(directory.iterdir()) == []


@only_root
def test_full_disks_leave_nothing_behind(files: Files) -> None:
    files.push(files.segment)
    disk = files.scene.directory() / "disk"
    with mounted(disk, "size=512k"):
        assert files.get(files.segment.name, disk / "RECOVERYXLOG").returncode == FAILED
        assert list(disk.iterdir()) == []
    root = files.protected.repository_root
    shutil.rmtree(root / "main/wal")
    inodes = 40 + sum(1 for _ in root.rglob("*"))
    copy = files.scene.directory() / "copy"
    shutil.copytree(root, copy)
    with mounted(root, f"size=8m,nr_inodes={inodes}"):
        shutil.copytree(copy, root, dirs_exist_ok=True)
        (root / "ballast").write_bytes(os.urandom(free(root) - (4 << 10)))
        segment = files.changed(noise)
        done = files.push(segment)
        assert done.returncode == NoSpace.exit_code, done.stderr
        assert not list((root / "+tmp").iterdir())
        (root / "ballast").unlink()
        assert files.push(segment).returncode == 0
        assert files.archived(segment.name) == segment.read_bytes()


def noise(content: bytearray) -> None:
    content[8192:] = os.urandom(len(content) - 8192)


def free(path: Path) -> int:
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


def test_a_standby_waits_for_what_comes_back(files: Files) -> None:
    files.push(files.segment)
    to = files.scene.target()
    (to.parent / "standby.signal").touch()
    files.protected.change_policy(lambda one: one["wal"].update(timeout="20 seconds"))
    no_repository(files)
    words = ["wal", "get", "--policy", files.protected.policy_path]
    command = drkit_command(*words, files.segment.name, to)
    process = subprocess.Popen(
        command, cwd=to.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    time.sleep(0.8)
    (files.protected.home / "away").rename(files.protected.repository_root)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    assert to.read_bytes() == files.segment.read_bytes()


def test_a_broken_installation_is_not_taken_for_the_end_of_wal(files: Files) -> None:
    files.push(files.segment)
    broken = files.scene.directory()
    (broken / "cryptography.py").write_text("raise ImportError('broken')\n")
    env = {"PYTHONPATH": str(broken)}
    to = files.scene.target()
    assert files.get(files.segment.name, to, env=env).returncode == FAILED
    assert 1 <= files.push(files.segment, env=env).returncode <= 125
    (to.parent / "standby.signal").touch()
    done = files.get(files.segment.name, to, env=env, cwd=to.parent)
    assert done.returncode == ABSENT


def test_sigterm_ends_get_by_the_signal_and_push_with_a_code(files: Files) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        use_s3(files, f"http://127.0.0.1:{silent.getsockname()[1]}")
        files.protected.change_policy(lambda one: one["wal"].update(timeout="1 minute"))
        to = files.scene.target()
        policy = ("--policy", files.protected.policy_path)
        for words in (
            ("get", *policy, files.names[0], to),
            ("push", *policy, files.segment),
        ):
            process = start(drkit_command("wal", *words))
            silent.settimeout(20)
            connection, _ = silent.accept()
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=20)
            connection.close()
            expected = -signal.SIGTERM if words[0] == "get" else 26
            assert process.returncode == expected
            assert not to.exists()


def start(command: list[str], env: Mapping[str, str] | None = None) -> Any:
    whole = {**os.environ, **S3_ENVIRONMENT, **(env or {})}
    return subprocess.Popen(
        command, env=whole, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
