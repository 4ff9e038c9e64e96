"""The store hides a log's newest entries, loses them, or comes back as it once was.

Each is an alarm that says what is gone; nothing is written on such a log, and nothing
that may be a good backup is deleted on its word.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from drkit.config.state import StateFiles
from drkit.errors import Corrupt, NotFound, RolledBack, StorageError, UsageError
from drkit.model.log import Abandon
from drkit.model.log_head import KnownHead, LogHead
from drkit.model.retention import Retention
from drkit.operations.attempts import abandon, abandon_dead
from drkit.operations.discarding import discard
from drkit.operations.expire import execute_expire, plan_expire
from drkit.operations.heads import confirm_head, log_standing
from drkit.repository.heads import head_of
from drkit.repository.manifests import read_manifest
from drkit.repository.objects import Sealing, seal
from tests import evidence
from tests.builders import World, back_up, begin, copy_of
from tests.faults import FOREVER, FaultyStorage
from tests.operations.backup_tools import Listener
from tests.protect import NAME, Protected

if TYPE_CHECKING:
    from collections.abc import Callable

    from drkit.model.log import Begin, Commit
    from drkit.repository.repository import Repository
    from drkit.storage.s3 import S3Storage

FILES: dict[bytes, bytes | None] = {b"PG_VERSION": b"18\n", b"base/1": b"x" * 99}
CORRUPT = RolledBack.exit_code
_numbers = itertools.count()


# -- a whole repository that was put back, on a real cluster


@pytest.fixture
def protected(make_protected: Callable[..., Protected], pg_version: int) -> Protected:
    return make_protected(pg_version)


def put_back(protected: Protected, saved: Path) -> None:
    """Bring the repository back as it was when `saved` was made of it."""
    shutil.rmtree(protected.repository_root)
    shutil.copytree(saved, protected.repository_root)
    owner = protected.home.stat()
    for place in (protected.repository_root, *protected.repository_root.rglob("*")):
        os.chown(place, owner.st_uid, owner.st_gid)


def head_now(protected: Protected) -> str:
    """Return the head as a person keeps it."""
    head: str = protected.json("info", NAME)["policies"][0]["log"]["head"]
    return head


def test_a_repository_that_was_put_back_is_told_by_every_command(
    protected: Protected, tmp_path: Path
) -> None:
    protected.backup()
    saved = tmp_path / "saved"
    shutil.copytree(protected.repository_root, saved)
    lost = protected.backup()
    head = head_now(protected)
    put_back(protected, saved)
    before = sorted(saved.rglob("*"))

    for words in (("info", NAME), ("verify", NAME), ("wal", "status", NAME)):
        done = protected.drkit(*words, "--output", "json")
        assert done.returncode == CORRUPT, words
        found = json.loads(done.stdout)
        alarm = found.get("policies", [found])[0]["log"]["alarms"][0]
        assert f"with it the backup {lost}" in alarm["message"]
    assert (
        b"ALARM: the log of main ends at entry" in protected.drkit("info", NAME).stdout
    )
    checked = protected.drkit("check", NAME, "--timeout", "20 seconds")
    assert checked.returncode == CORRUPT
    assert b"FAILED   log's head" in checked.stdout
    for words in (
        ("backup", NAME, "--type", "full"),
        ("expire", NAME),
        ("expire", NAME, "--plan"),
        ("pin", NAME, "latest", "--reason", "x"),
        ("verify", NAME, "--depth", "restore"),
    ):
        done = protected.drkit(*words)
        assert done.returncode == CORRUPT, words
        assert lost.encode() in done.stderr
    kept = {path.relative_to(saved) for path in before if "/log/" in str(path)}
    there = (protected.repository_root / NAME / "log").iterdir()
    assert len(kept) == len(list(there))

    target = tmp_path / "restored"
    done = protected.restore(target)
    assert done.returncode == 3
    assert lost.encode() in done.stderr
    assert b"ALARM" in done.stdout
    assert (target / "PG_VERSION").exists()

    # A machine that has seen nothing is told by whoever kept the head.
    new = {"env": {"DRKIT_STATE_DIR": str(tmp_path / "another-host")}}
    assert protected.drkit("info", NAME, **new).returncode == 0
    told = protected.drkit("info", NAME, "--expect-head", head, **new)
    assert told.returncode == CORRUPT
    assert b"--expect-head names entry" in told.stdout


def test_a_repository_that_was_put_back_on_purpose_is_accepted_by_its_head(
    protected: Protected, tmp_path: Path
) -> None:
    kept = protected.backup()
    saved = tmp_path / "saved"
    shutil.copytree(protected.repository_root, saved)
    old = head_now(protected)
    lost = protected.backup()
    newer = head_now(protected)
    put_back(protected, saved)

    wrong = protected.drkit("check", NAME, "--accept-head", newer)
    assert wrong.returncode == CORRUPT
    assert protected.drkit("expire", NAME).returncode == CORRUPT
    nonsense = protected.drkit("check", NAME, "--accept-head", "7")
    assert nonsense.returncode == UsageError.exit_code

    accepted = protected.drkit("check", NAME, "--accept-head", old)
    assert accepted.returncode == 0, accepted.stdout
    assert newer.encode() in accepted.stderr
    assert lost.encode() in accepted.stderr
    assert protected.labels() == [kept]
    assert protected.backup() in protected.labels()
    assert protected.drkit("info", NAME).returncode == 0


def test_a_log_that_is_gone_is_not_set_up_anew(protected: Protected) -> None:
    protected.backup()
    for entry in (protected.repository_root / NAME / "log").iterdir():
        entry.unlink()
    for words in (("info", NAME), ("backup", NAME), ("expire", NAME)):
        done = protected.drkit(*words)
        assert done.returncode == CORRUPT
        assert b"has no entry, and this host has seen entry" in done.stderr
        assert b"drkit init" not in done.stderr


# -- a log that was cut off, seen by somebody who remembers nothing


def entries(world: World) -> list[str]:
    return [info.name for info in world.storage.list("alpha/log/")]


def cut_off(world: World, count: int) -> list[tuple[str, bytes]]:
    """Delete the newest entries; return them."""
    gone = entries(world)[-count:]
    kept = [(name, world.storage.get(name)) for name in gone]
    for name in gone:
        world.storage.delete(name)
    return kept


def names(world: World) -> list[str]:
    return [info.name for info in world.storage.list("")]


def test_backups_that_the_log_does_not_know_are_an_alarm() -> None:
    world = World()
    first = back_up(world.repository(), FILES)
    second = back_up(world.repository(), FILES)
    cut_off(world, 2)
    before = names(world)
    repository = world.repository(host="new")
    found = log_standing(repository)
    assert [second.backup.label in alarm.message for alarm in found.alarms] == [True]
    with pytest.raises(RolledBack, match=second.backup.label):
        confirm_head(repository)
    now = repository.clock.now()
    with pytest.raises(RolledBack, match=second.backup.label):
        plan_expire(repository, Retention(full=1), now, accept_clock=True)
    assert names(world) == before
    assert [one.backup.label for one in repository.backups()] == [first.backup.label]


def test_packs_without_a_manifest_show_a_cut_off_log_as_well() -> None:
    world = World()
    repository = world.repository()
    back_up(repository, FILES)
    second = back_up(repository, FILES)
    cut_off(world, 2)
    world.storage.delete(second.manifest.name)
    with pytest.raises(RolledBack, match=second.backup.label):
        confirm_head(world.repository(host="new"))


def test_blocks_of_later_entries_are_an_alarm() -> None:
    world = World()
    repository = world.repository()
    while len(repository.log.entries) < 256:
        begun = begin(repository)
        repository.log.append(lambda _, one=begun: Abandon(one.attempt, "x"))
    assert any("/log-blocks/" in name for name in names(world))
    cut_off(world, 2)
    with pytest.raises(RolledBack, match="log-blocks/0000000000"):
        confirm_head(world.repository(host="new"))


def test_evidence_of_later_entries_is_an_alarm() -> None:
    """One record may be unnamed: that of a run that died. A second can't be there."""
    world = World()
    repository = world.repository()
    back_up(repository, FILES)
    evidence.add(repository, 2)
    cut_off(world, 1)
    confirm_head(world.repository(host="new"))
    cut_off(world, 1)
    with pytest.raises(RolledBack, match="alpha/evidence/0000000001"):
        confirm_head(world.repository(host="new"))


def test_evidence_at_a_further_name_shows_it_too() -> None:
    world = World()
    repository = world.repository()
    name = f"{repository.layout.evidence_record(3)}-1"
    sealing = Sealing(repository.log.dek(), repository.lineage, name)
    world.storage.put(name, seal(sealing, b"a record"))
    with pytest.raises(RolledBack, match=name):
        confirm_head(world.repository(host="new"))


def test_what_no_key_opens_blocks_nobody() -> None:
    world = World()
    repository = world.repository()
    back_up(repository, FILES)
    place = f"alpha/backups/20270101-000000-full-{'ab' * 16}"
    taken = f"alpha/backups/{repository.backups()[0].backup.label}-{'cd' * 16}"
    sealed = world.storage.get(repository.backups()[0].manifest.name)
    for name in (f"{place}/manifest", f"{place}/packs/000000", f"{taken}/manifest"):
        world.storage.put(name, sealed)  # rightly sealed, under another name
    world.storage.put("alpha/evidence/0000000009", b"x" * 500)
    world.storage.put("alpha/log-blocks/0000000256", b"x" * 500)
    found = log_standing(world.repository(host="new"))
    assert found.alarms == ()
    assert len(found.notes) == 1
    confirm_head(world.repository(host="new"))


# -- hidden entries must not destroy good backups


class Bucket:
    """A repository in a bucket that keeps versions, and what an attacker does to it."""

    def __init__(self, admin: Any, make_s3: Callable[..., S3Storage]) -> None:
        self.admin, self.name = admin, f"versions-{next(_numbers)}"
        admin.create_bucket(Bucket=self.name)
        admin.put_bucket_versioning(
            Bucket=self.name, VersioningConfiguration={"Status": "Enabled"}
        )
        self.world = World(make_s3(bucket=self.name, prefix="p"))

    def hide(self, name: str) -> str:
        """Set a delete marker; return its version."""
        done = self.admin.delete_object(Bucket=self.name, Key=f"p/{name}")
        marker: str = done["VersionId"]
        return marker

    def unhide(self, name: str, marker: str) -> None:
        self.admin.delete_object(Bucket=self.name, Key=f"p/{name}", VersionId=marker)

    def shown(self, name: str) -> list[str]:
        """Return the version that a plain read finds."""
        found = self.admin.list_object_versions(Bucket=self.name, Prefix=f"p/{name}")
        return [one["VersionId"] for one in found["Versions"] if one["IsLatest"]]

    def versions(self) -> int:
        pages = self.admin.get_paginator("list_object_versions")
        found = pages.paginate(Bucket=self.name)
        return sum(len(page.get("Versions", ())) for page in found)


@pytest.fixture
def bucket(s3_admin: Any, make_s3: Callable[..., S3Storage]) -> Bucket:
    return Bucket(s3_admin, make_s3)


def later(repository: Repository) -> Repository:
    """Let so much time pass that whoever has not committed counts as dead."""
    repository.clock.sleep(86_400)
    return repository


def is_there(repository: Repository, commit: Commit) -> bool:
    repository.log.read()
    manifest = read_manifest(repository, commit.manifest)
    where = (commit.backup.label, commit.attempt)
    packs = [repository.layout.pack(*where, one) for one in range(len(manifest.packs))]
    return all(repository.storage.size(name) for name in packs)


@pytest.mark.parametrize("also_manifest", [False, True])
def test_a_delete_marker_on_a_commit_destroys_no_backup(
    bucket: Bucket, also_manifest: bool
) -> None:
    commit = back_up(bucket.world.repository(), FILES)
    newest = entries(bucket.world)[-1]
    hidden = [newest, commit.manifest.name][: 1 + also_manifest]
    markers = {name: bucket.hide(name) for name in hidden}
    before = bucket.versions()

    host = later(bucket.world.repository(host="new"))
    with pytest.raises(RolledBack, match=newest):
        confirm_head(host)  # as a backup and an expiry do first
    with pytest.raises(RolledBack, match=newest):
        begin(host)
    abandon_dead_anyway(host)
    assert bucket.versions() == before

    for name, marker in markers.items():
        bucket.unhide(name, marker)
    healed = bucket.world.repository(host="healed")
    assert healed.find("latest") == commit
    assert is_there(healed, commit)


def abandon_dead_anyway(repository: Repository) -> None:
    """Clear up without having confirmed the head, as far as that goes."""
    try:
        abandon_dead(repository, "new", Listener())
    except RolledBack:
        return


def unfinished(world: World) -> Begin:
    """Store a backup whose process dies before its commit; return its `begin`."""
    world.repository()
    faulty = FaultyStorage(world.storage)
    commit = f"alpha/log/{len(entries(world)) + 1:010d}"
    faulty.fail("put", StorageError("the process died"), times=FOREVER, name=commit)
    with pytest.raises(StorageError, match="died"):
        back_up(world.repository(storage=faulty), FILES)
    return world.repository().log.state.running()[-1]


def test_a_deleted_pack_is_no_reason_to_delete_the_rest(bucket: Bucket) -> None:
    """The attempt looks incomplete, and is only hidden in part."""
    begun = unfinished(bucket.world)
    repository = later(bucket.world.repository(host="new"))
    bucket.hide(repository.layout.pack(begun.label, begun.attempt, 0))
    before = bucket.versions()
    listener = Listener()
    abandon_dead(repository, "new", listener)
    assert repository.log.read().running() == [begun]
    assert bucket.versions() == before
    assert "was deleted or replaced" in listener.warnings[0][0]


def test_an_entry_that_was_replaced_is_hidden_as_well(bucket: Bucket) -> None:
    commit = back_up(bucket.world.repository(), FILES)
    newest = entries(bucket.world)[-1]
    bucket.admin.put_object(Bucket=bucket.name, Key=f"p/{newest}", Body=b"garbage")
    replaced = bucket.versions()
    with pytest.raises(Corrupt, match=newest):
        confirm_head(bucket.world.repository(host="new", opened=False))
    marker = bucket.hide(newest)
    with pytest.raises(RolledBack, match=newest):
        confirm_head(bucket.world.repository(host="new"))
    assert bucket.versions() == replaced
    bucket.unhide(newest, marker)
    (over,) = bucket.shown(newest)
    bucket.unhide(newest, over)
    assert is_there(bucket.world.repository(host="healed"), commit)


def test_garbage_under_a_delete_marker_stops_nobody(bucket: Bucket) -> None:
    commit = back_up(bucket.world.repository(), FILES)
    place = f"alpha/log/{len(entries(bucket.world)):010d}"
    for body in (b"garbage" * 99, bucket.world.storage.get(commit.manifest.name)):
        bucket.admin.put_object(Bucket=bucket.name, Key=f"p/{place}", Body=body)
    bucket.hide(place)
    host = bucket.world.repository(host="new")
    confirm_head(host)
    begin(host)


def test_a_store_that_does_not_tell_its_versions_stops_nobody(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = back_up(bucket.world.repository(), FILES)
    monkeypatch.setattr(type(bucket.world.storage), "hidden", lambda *_: None)
    host = bucket.world.repository(host="new")
    confirm_head(host)
    assert "s3:ListBucketVersions" in log_standing(host).notes[0]
    assert host.find("latest") == commit


# -- whole backups without a commit


def test_a_whole_backup_without_a_commit_is_never_swept() -> None:
    """Its process died just before the commit, or the commit was deleted."""
    world = World()
    begun = unfinished(world)
    before = names(world)
    repository, listener = later(world.repository(host="new")), Listener()
    abandon_dead(repository, "new", listener)
    assert repository.log.read().running() == [begun]
    assert names(world) == before
    assert "drkit discard alpha" in listener.warnings[0][0]
    assert log_standing(repository).uncommitted == (begun.label,)
    # An expiry that names all else as gone leaves it alone as well.
    now = repository.clock.now()
    plan = plan_expire(repository, Retention(full=1), now, accept_clock=True)
    execute_expire(repository, plan, "new", listener)
    assert names(world) == before


def test_a_deleted_commit_costs_no_object_of_its_backup() -> None:
    world = World()
    commit = back_up(world.repository(), FILES)
    kept = cut_off(world, 1)
    before = names(world)
    repository = later(world.repository(host="new"))
    abandon_dead(repository, "new", Listener())
    assert names(world) == before
    for name, data in kept:
        world.storage.put(name, data)
    assert is_there(world.repository(host="healed"), commit)


def test_an_abandoned_attempt_that_is_whole_is_not_swept_either() -> None:
    """Whoever abandoned it may have done so behind a commit that was hidden."""
    world = World()
    begun = unfinished(world)
    repository = later(world.repository(host="new"))
    abandon(repository, begun.attempt, "an older drkit took it for dead")
    before = names(world)
    abandon_dead(repository, "new", Listener())
    assert names(world) == before
    assert log_standing(repository).uncommitted == (begun.label,)


def test_what_is_not_whole_is_cleared_away() -> None:
    world = World()
    begun = unfinished(world)
    repository = later(world.repository(host="new"))
    world.storage.delete(repository.layout.pack(begun.label, begun.attempt, 0))
    abandon_dead(repository, "new", Listener())
    assert [name for name in names(world) if "/backups/" in name] == []
    assert repository.log.read().running() == []


def test_garbage_in_a_manifests_place_keeps_nothing() -> None:
    world = World()
    begun = begin(world.repository())
    name = world.repository().layout.manifest(begun.label, begun.attempt)
    world.storage.put(name, b"garbage" * 99)
    repository = later(world.repository(host="new"))
    abandon_dead(repository, "new", Listener())
    assert repository.log.read().running() == []
    assert name not in names(world)


def test_a_person_discards_what_is_whole() -> None:
    world = World()
    kept = back_up(world.repository(), FILES)
    begun = unfinished(world)
    repository = later(world.repository(host="new"))
    with pytest.raises(UsageError, match="has a commit"):
        discard(repository, kept.backup.label, Listener())
    with pytest.raises(NotFound, match="nothing is stored"):
        discard(repository, "20270101-000000-full", Listener())
    done = discard(repository, begun.label, Listener())
    assert done.attempts == (begun.attempt,)
    assert log_standing(repository).uncommitted == ()
    assert not [name for name in names(world) if begun.attempt in name]
    assert repository.log.read().running() == []
    assert is_there(world.repository(host="reader"), kept)


def test_a_person_discards_what_the_log_does_not_know() -> None:
    world = World()
    first = back_up(world.repository(), FILES)
    second = back_up(world.repository(), FILES)
    cut_off(world, 2)
    repository = world.repository(host="new")
    done = discard(repository, second.backup.label, Listener())
    assert done.attempts == (second.attempt,)
    confirm_head(world.repository(host="new"))
    assert is_there(world.repository(host="reader"), first)


# -- what a host remembers


def remembering(world: World, environ: dict[str, str]) -> Repository:
    """Open the repository as a host with a memory does."""
    repository = world.repository(opened=not entries(world))
    memory = StateFiles(environ, repository.lineage, "alpha")
    repository.log.guard.memory = memory
    return repository


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"DRKIT_STATE_DIR": str(tmp_path / "state")}


def state_file(environ: dict[str, str]) -> Path:
    (found,) = Path(environ["DRKIT_STATE_DIR"]).glob("head-alpha-*.json")
    return found


def test_a_memory_never_moves_backwards(environ: dict[str, str]) -> None:
    files = StateFiles(environ, b"l" * 16, "alpha")
    old, new = KnownHead(LogHead(3, "a" * 64)), KnownHead(LogHead(5, "b" * 64))
    files.remember(new)
    files.remember(old)
    files.remember(KnownHead(LogHead(5, "c" * 64)))
    assert files.recall() == new
    assert files.problem is None
    files.replace(old)
    assert files.recall() == old
    assert StateFiles(environ, b"m" * 16, "alpha").recall() is None
    assert StateFiles(environ, b"l" * 16, "beta").recall() is None


def test_another_entry_in_a_known_ones_place_is_an_alarm(
    environ: dict[str, str],
) -> None:
    world = World()
    back_up(world.repository(), FILES)
    kept = copy_of(world.storage)
    back_up(remembering(world, environ), FILES)
    world.storage = kept
    for _ in range(3):
        back_up(world.repository(host="who knows nothing"), FILES)
    with pytest.raises(RolledBack, match="is not the one that this host has seen"):
        confirm_head(remembering(world, environ))


def test_each_entry_is_remembered(environ: dict[str, str]) -> None:
    world = World()
    commit = back_up(world.repository(), FILES)
    reader = remembering(world, environ)
    log_standing(reader)
    known = reader.log.guard.memory.recall()
    assert known is not None
    assert known.head == head_of(reader.log.entries)
    assert known.labels == (commit.backup.label,)
    begin(remembering(world, environ))
    known = reader.log.guard.memory.recall()
    assert known is not None
    assert known.head.sequence == len(reader.log.entries)


@pytest.mark.parametrize("mode", [0o666, 0o620])
def test_a_memory_that_others_can_write_is_not_believed(
    environ: dict[str, str], mode: int
) -> None:
    world = World()
    back_up(remembering(world, environ), FILES)
    path = state_file(environ)
    path.chmod(mode)
    memory = remembering(world, environ).log.guard.memory
    assert memory.recall() is None
    assert memory.problem is not None
    assert f"mode {mode:04o}" in memory.problem
    back_up(remembering(world, environ), FILES)  # goes on
    assert path.stat().st_mode & 0o777 == mode


@pytest.mark.parametrize("content", [b"", b"{}", b'{"drkit": 3}', b"\xff", b"[" * 9999])
def test_a_damaged_memory_stops_nobody_and_is_told(
    environ: dict[str, str], content: bytes
) -> None:
    world = World()
    back_up(remembering(world, environ), FILES)
    state_file(environ).write_bytes(content)
    repository = remembering(world, environ)
    back_up(repository, FILES)
    assert state_file(environ).read_bytes() == content
    assert "is not believed" in str(repository.log.guard.memory.problem)


def test_a_link_in_the_memorys_place_is_not_followed(
    environ: dict[str, str], tmp_path: Path
) -> None:
    world = World()
    back_up(remembering(world, environ), FILES)
    path, victim = state_file(environ), tmp_path / "victim"
    path.rename(victim)
    path.symlink_to(victim)
    memory = remembering(world, environ).log.guard.memory
    assert memory.recall() is None
    assert memory.problem is not None


def test_no_place_for_a_memory_is_told_by_check_and_stops_nobody(
    make_protected: Callable[..., Protected], newest_version: int
) -> None:
    protected = make_protected(newest_version)
    env = {"DRKIT_STATE_DIR": "/proc/nowhere"}
    assert protected.drkit("backup", NAME, env=env).returncode == 0
    done = protected.drkit("check", NAME, env=env)
    assert done.returncode == 0
    assert b"WARNING  log's head" in done.stdout
    assert b"can't be remembered: /proc/nowhere" in done.stdout


def test_the_memory_is_roots_where_root_runs(tmp_path: Path) -> None:
    """Others read it, and add to their own."""
    files = StateFiles({"DRKIT_STATE_DIR": str(tmp_path)}, b"l" * 16, "alpha")
    files.remember(KnownHead(LogHead(3, "a" * 64)))
    (found,) = tmp_path.glob("*.json")
    assert found.stat().st_mode & 0o777 == 0o644
    assert found.stat().st_uid == os.geteuid()
