"""A repository that was damaged or tampered with: always found out, never restored."""

from __future__ import annotations

import os
import random
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from drkit import wiring
from drkit.cli import app
from drkit.crypto.sealing import HEADER_BYTES
from drkit.errors import Corrupt, KeyUnavailable, RepositoryMissing
from drkit.model.log import Open
from drkit.model.wal import WalFileName
from drkit.postgres.process import find_account
from drkit.postgres.target_checks import is_incomplete
from drkit.repository.identity import create_identity
from drkit.storage.local import LocalStorage
from tests.operations.scene import Scene, backup, drkit, refused, restore
from tests.pg import give_to, run_drkit, versions_under_test
from tests.protect import NAME, Protected
from tests.storage.localtools import only_root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

NEWEST = max(versions_under_test())
CORRUPT = Corrupt.exit_code
NO_KEY = KeyUnavailable.exit_code
DETECTED = {CORRUPT, NO_KEY, RepositoryMissing.exit_code}


@dataclass
class Victim:
    """A copy of a repository with two backups and WAL, for one test to spoil."""

    scene: Scene
    protected: Protected

    @property
    def root(self) -> Path:
        return self.protected.repository_root

    def find(self, kind: str) -> list[Path]:
        """Return the objects of a kind, in the order of their names."""
        found = sorted(path for path in self.root.glob(KINDS[kind]) if path.is_file())
        assert found, f"there is no {kind}"
        return found

    def name(self, path: Path) -> str:
        """Return an object's name."""
        return str(path.relative_to(self.root))

    def refused(self, *options: str) -> str:
        """Restore, which must fail without a trace; return the message."""
        target = self.scene.target()
        error = refused(self.protected, target, *options)
        assert error["exit_code"] in DETECTED, error
        assert not target.exists()
        return str(error["message"])

    def hint(self) -> str:
        """Restore, which must fail without a trace; return the error's hint."""
        return str(refused(self.protected, self.scene.target())["hint"])

    def spoils(self, *options: str) -> str:
        """Restore, which must fail and leave nothing to start; return the message."""
        target = self.scene.target()
        said = drkit(self.protected, "restore", NAME, *options, "--to", target)
        assert said.code == CORRUPT, said.err
        if target.exists():
            assert is_incomplete(str(target))
            assert not (target / "global/pg_control").exists()
        return said.err

    def gets(self, name: str) -> tuple[int, bool]:
        """Fetch a WAL file; return the exit code, and whether a file is there."""
        to = self.scene.target()
        words = ["--policy", str(self.protected.policy_path), name, str(to)]
        return app.run(["wal", "get", *words]), to.exists()


KINDS = {
    "pack": f"{NAME}/backups/*/packs/*",
    "manifest": f"{NAME}/backups/*/manifest",
    "log entry": f"{NAME}/log/*",
    "wrapped key": f"{NAME}/keys/*/*/*",
    "WAL segment": f"{NAME}/wal/*/00000001/*/*",
    "identity": "drkit.json",
}


@pytest.fixture(scope="module")
def original(scene: Scene) -> Protected:
    protected = scene.protect(NEWEST)
    protected.cluster.rows("CREATE TABLE t AS SELECT generate_series(1, 1000) AS n")
    backup(protected)
    protected.cluster.rows("UPDATE t SET n = n")
    backup(protected)
    protected.cluster.rows("UPDATE t SET n = n")
    protected.archive_now()
    protected.cluster.stop()
    return protected


@pytest.fixture
def victim(scene: Scene, original: Protected) -> Iterator[Victim]:
    home = scene.directory()
    shutil.copytree(original.repository_root, home / "repository")
    shutil.copytree(original.home / "keys", home / "keys")
    text = original.policy_path.read_text()
    copy = Protected(original.cluster, home, original.account)
    copy.policy_path.write_text(text.replace(str(original.home), str(home)))
    give_to(original.account, home)
    yield Victim(scene, copy)
    shutil.rmtree(home)


def flip(path: Path, offset: int, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 1 << bit
    path.write_bytes(content)


def places(length: int, seed: int, count: int = 3) -> list[int]:
    """Return offsets to spoil: the ends, the middle, and some anywhere."""
    chance = random.Random(seed)
    anywhere = [chance.randrange(length) for _ in range(count)]
    return sorted({0, length // 2, length - 1, *anywhere})


# -- flipped bits


@pytest.mark.parametrize("kind", ["manifest", "log entry"])
def test_a_flipped_bit_in_what_is_signed_stops_the_plan(
    victim: Victim, kind: str
) -> None:
    path = victim.find(kind)[-2 if kind == "log entry" else -1]
    content = path.read_bytes()
    for offset in places(len(content), 1):
        flip(path, offset, offset % 8)
        assert victim.name(path) in victim.refused()
        path.write_bytes(content)
    victim.protected.json("restore", NAME, "--to", victim.scene.target(), "--plan")


@pytest.mark.parametrize("change", ["flip", "cut", "swap"])
def test_the_newest_log_entry_turned_to_garbage_is_told(
    victim: Victim, change: str
) -> None:
    """It can't be told from what somebody without keys has put there."""
    before, path = victim.find("log entry")[-2:]
    if change == "flip":
        flip(path, 70)
    else:
        path.write_bytes(b"cut" if change == "cut" else before.read_bytes())
    target = victim.scene.target()
    said = drkit(victim.protected, "restore", NAME, "--to", target, "--plan")
    assert said.code == 3  # this host has seen the entry that was there
    assert f"{victim.name(path)} lies where a log entry may come" in said.err
    assert "this host has seen entry" in said.err
    flip(before, 500)
    assert "--log-until" in victim.hint()


def test_a_flipped_bit_in_a_pack_stops_the_restore(victim: Victim) -> None:
    label = victim.protected.labels()[-1]
    for path in [one for one in victim.find("pack") if label in str(one)]:
        content = path.read_bytes()
        for offset in places(len(content), 2, 1):
            flip(path, offset, offset % 8)
            assert victim.name(path) in victim.spoils()
            path.write_bytes(content)


def test_a_flipped_bit_in_wal_is_no_end_of_wal(victim: Victim) -> None:
    segments = [one for one in victim.find("WAL segment") if len(one.name) == 24]
    for path in segments:
        content = path.read_bytes()
        assert victim.gets(path.name) == (0, True)
        for offset in places(len(content), 3, 1):
            flip(path, offset, offset % 8)
            # The newest one can't be told then from what anybody may have put there.
            end = path == segments[-1] and offset < HEADER_BYTES
            assert victim.gets(path.name) == (1 if end else 200, False)
            path.write_bytes(content)


@pytest.mark.parametrize("kind", ["wrapped key", "identity"])
def test_a_flipped_bit_in_plain_json_is_found_or_changes_nothing(
    victim: Victim, kind: str
) -> None:
    """These objects hold words for people as well, such as a date."""
    found = 0
    for path in victim.find(kind):
        content = path.read_bytes()
        for offset in places(len(content), 4, 4):
            flip(path, offset, offset % 7)
            target = victim.scene.target()
            said = drkit(victim.protected, "restore", NAME, "--to", target, "--plan")
            assert said.code in {0, *DETECTED}, said.err
            assert "fault in drkit" not in said.err
            found += said.code in DETECTED
            path.write_bytes(content)
    assert found >= 3


@pytest.mark.long
@pytest.mark.parametrize("kind", ["log entry", "wrapped key", "identity"])
def test_every_bit_of_small_objects(victim: Victim, kind: str) -> None:
    target, newest = victim.scene.target(), victim.find("log entry")[-1]
    for path in victim.find(kind):
        content = path.read_bytes()
        for offset in range(len(content)):
            flip(path, offset, offset % 8)
            said = drkit(victim.protected, "restore", NAME, "--to", target, "--plan")
            harmless = kind != "log entry"
            if path == newest and said.code == 3:  # this host has seen what it was
                assert victim.name(path) in said.err
                path.write_bytes(content)
                continue
            assert said.code in ({0, *DETECTED} if harmless else {CORRUPT, NO_KEY})
            assert "fault in drkit" not in said.err
            path.write_bytes(content)


# -- cut, swapped, taken away, brought in


@pytest.mark.parametrize("kind", ["manifest", "log entry", "pack"])
def test_a_truncated_object_is_named(victim: Victim, kind: str) -> None:
    label = victim.protected.labels()[-1]
    paths = [
        one for one in victim.find(kind) if kind == "log entry" or label in str(one)
    ]
    path = paths[-2 if kind == "log entry" else -1]
    content = path.read_bytes()
    for length in (0, 1, 63, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        assert victim.name(path) in victim.spoils(), length
    path.write_bytes(content + b"\0")
    assert victim.name(path) in victim.spoils()


@pytest.mark.parametrize("kind", ["pack", "manifest", "log entry", "wrapped key"])
def test_swapped_objects_are_found_out(victim: Victim, kind: str) -> None:
    paths = victim.find(kind)
    if kind == "wrapped key":  # two of one purpose
        paths = [one for one in paths if "/keys/backup/" in str(one)]
    if kind == "pack":
        label = victim.protected.labels()[-1]
        paths = [one for one in paths if label in str(one)]
    first, second = paths[-3:-1] if kind == "log entry" else paths[-2:]
    one, two = first.read_bytes(), second.read_bytes()
    first.write_bytes(two)
    second.write_bytes(one)
    if kind == "wrapped key":
        victim.refused()
    else:
        message = victim.spoils()
        assert victim.name(first) in message or victim.name(second) in message


def test_swapped_wal_segments_are_no_end_of_wal(victim: Victim) -> None:
    paths = [one for one in victim.find("WAL segment") if len(one.name) == 24]
    one, two = paths[0].read_bytes(), paths[1].read_bytes()
    paths[0].write_bytes(two)
    paths[1].write_bytes(one)
    for path in paths[:2]:
        assert victim.gets(path.name) == (200, False)


@pytest.mark.parametrize("kind", ["pack", "manifest", "log entry", "identity"])
def test_a_missing_object_is_named(victim: Victim, kind: str) -> None:
    paths = victim.find(kind)
    # The last entry of a log can't be missed by whoever has never seen it.
    path = paths[-2] if kind == "log entry" else paths[-1]
    path.unlink()
    target = victim.scene.target()
    said = drkit(victim.protected, "restore", NAME, "--to", target)
    assert said.code in DETECTED, said.err
    assert victim.name(path) in said.err or kind == "identity"
    assert not (target / "global/pg_control").exists()


def test_objects_of_another_repository_under_the_same_keys_are_refused(
    victim: Victim,
) -> None:
    segment = next(one for one in victim.find("WAL segment") if len(one.name) == 24)
    entry = victim.find("log entry")[0]
    archive = victim.protected.repository().wal
    content = archive.get(WalFileName.parse(segment.name))
    other = another_repository(victim, segment.name, content)
    for path in (segment, entry):
        path.write_bytes((other / victim.name(path)).read_bytes())
    assert victim.gets(segment.name) == (200, False)
    assert victim.name(entry) in victim.refused()


def another_repository(victim: Victim, name: str, content: bytes) -> Path:
    """Make a repository with the same policy and keys, and one WAL segment in it."""
    repository = victim.protected.repository()
    opened = repository.log.read().opened
    assert opened is not None
    home = victim.scene.directory()
    policy = victim.protected.policy_path.read_text()
    moved = home / victim.protected.policy_path.name
    root = home / "repository"
    moved.write_text(policy.replace(str(victim.root), str(root)))
    storage = LocalStorage.create(str(root))
    create_identity(storage, repository.clock.now())
    other = Protected(victim.protected.cluster, home, victim.protected.account)
    made = other.repository()
    made.log.append(lambda _: Open(NAME, opened.system_identifier, opened.segment_size))
    made.wal.push(WalFileName.parse(name), content, repository.clock.now())
    return root


# -- keys


def remove(path: Path) -> None:
    path.unlink()


def replace(path: Path) -> None:
    """Put another key of the same purpose there."""
    prefix, _, secret = path.read_text().strip().rpartition(":")
    path.write_text(f"{prefix}:{'A' if secret[0] != 'A' else 'B'}{secret[1:]}\n")


def spoil(path: Path) -> None:
    path.write_text("no key at all\n")


def open_up(path: Path) -> None:
    path.chmod(0o644)


@pytest.mark.parametrize("harm", [remove, replace, spoil, open_up])
@pytest.mark.parametrize("purpose", ["backup", "catalog", "wal"])
def test_without_its_key_nothing_is_touched(
    victim: Victim, purpose: str, harm: Callable[[Path], None]
) -> None:
    harm(victim.protected.home / "keys" / f"{purpose}.key")
    target = victim.scene.target()
    error = refused(victim.protected, target)
    assert error["exit_code"] == NO_KEY
    assert purpose in error["message"] + error["hint"]
    assert not target.exists()
    if purpose == "wal":
        segment = victim.find("WAL segment")[0].name
        assert victim.gets(segment) == (200, False)


def test_swapped_keys_are_told_apart(victim: Victim) -> None:
    keys = victim.protected.home / "keys"
    (keys / "backup.key").rename(keys / "aside")
    (keys / "wal.key").rename(keys / "backup.key")
    (keys / "aside").rename(keys / "wal.key")
    error = refused(victim.protected, victim.scene.target())
    assert error["exit_code"] == NO_KEY


def test_readers_need_neither_signing_key_nor_database(victim: Victim) -> None:
    (victim.protected.home / "keys/signing.key").unlink()
    assert not victim.protected.cluster.running
    target = victim.scene.target()
    restore(victim.protected, target)
    restored = victim.scene.start(target, NEWEST)
    assert restored.sql("SELECT count(*) FROM t") == 1000


@only_root
def test_a_repository_that_can_t_be_written_is_enough(victim: Victim) -> None:
    """The user may read everything and write nothing but the target."""
    nobody = find_account("nobody")
    target = victim.scene.target()
    give_to(nobody, target.parent)
    before = sorted(os.walk(victim.root))
    policy_dir = ("--policy-dir", victim.protected.home)
    keys, home = victim.protected.home / "keys", victim.protected.home
    for path in (*keys.iterdir(), keys, home, victim.protected.policy_path):
        os.chown(path, nobody.uid, nobody.gid)
    done = run_drkit("restore", NAME, "--to", target, *policy_dir, account=nobody)
    assert done.returncode == 0, done.stderr
    assert (target / "global/pg_control").exists()
    assert sorted(os.walk(victim.root)) == before


def test_nothing_in_a_repository_is_readable_by_everybody(victim: Victim) -> None:
    original = wiring.open_repository(victim.protected.policy(), wiring.Secrets({}))
    original.wal.push(
        WalFileName.parse("00000002.history"), b"1\t0/1\n", original.clock.now()
    )
    for path in victim.root.rglob("*"):
        assert path.stat().st_mode & 0o007 == 0, path
