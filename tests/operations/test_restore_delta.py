"""Restores over a data directory that is there: what differs is written, no more."""

from __future__ import annotations

import json
import os
import random
import stat
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from drkit.postgres.target_checks import MARKER, is_incomplete
from tests.operations.backup_tools import content
from tests.operations.scene import Scene, backup, drkit, restore, snapshot
from tests.pg import copy_tree, give_to, run_drkit, versions_under_test
from tests.protect import NAME
from tests.storage.localtools import only_root

if TYPE_CHECKING:
    from collections.abc import Callable

    from drkit.postgres.process import Account
    from tests.pg import Cluster
    from tests.protect import Protected

PAGE = 8192
MAJORS = sorted({min(versions_under_test()), max(versions_under_test())})
IMMEDIATE = "--target-immediate"


@dataclass
class Source:
    """A cluster that was backed up, and ran on until it crashed.

    Attributes:
        left: its directory as it was then; tests restore over copies of it.
        contents: what the backup holds, as rows.
        later: the same at the end of the archived WAL.
        only_here: the WAL segment that holds what came after that.
        place: of its tablespace.
    """

    scene: Scene
    protected: Protected
    major: int
    left: Path
    contents: dict[str, Any]
    later: dict[str, Any]
    only_here: str
    place: Path

    def copy(self) -> tuple[Path, Path]:
        """Copy the directory and its tablespace; return where they are."""
        home = self.scene.directory()
        target, space = home / "data", home / "space"
        copy_tree(self.left, target)
        copy_tree(self.place, space)
        for link in (target / "pg_tblspc").iterdir():
            if os.readlink(link) == str(self.place):
                link.unlink()
                link.symlink_to(space)
        give_to(self.protected.account, target)
        return target, space

    def options(self, space: Path) -> list[str]:
        return ["--delta", f"--tablespace-map={self.place}={space}"]

    def delta(self, target: Path, space: Path, *options: str) -> dict[str, Any]:
        """Restore over a directory; return what the command says of it."""
        words = ["restore", NAME, *self.options(space), *options, "--output", "json"]
        said = drkit(self.protected, *words, "--to", target)
        assert said.code == 0, said.err
        found: dict[str, Any] = json.loads(said.out)
        assert not is_incomplete(str(target))
        return found

    def fresh(self, *options: str) -> tuple[Path, Path]:
        """Restore into an empty directory, as a measure for what a delta leaves."""
        home = self.scene.directory()
        target, space = home / "data", home / "space"
        mapped = f"--tablespace-map={self.place}={space}"
        restore(self.protected, target, mapped, *options)
        return target, space

    def serve(self, target: Path) -> Cluster:
        return self.scene.start(target, self.major)


def make(scene: Scene, major: int, **options: Any) -> Source:
    protected = scene.protect(major, {"autovacuum": "off"}, **options)
    cluster = protected.cluster
    place = scene.directory() / "one"
    place.mkdir()
    give_to(protected.account, place)
    cluster.rows(f"CREATE TABLESPACE one LOCATION '{place}'")
    cluster.psql("""
        CREATE TABLE big AS
            SELECT n, repeat(md5(n::text), 10) AS text FROM generate_series(1, 20000) n;
        CREATE TABLE gone AS SELECT n FROM generate_series(1, 1000) n;
        CREATE TABLE cut AS SELECT n FROM generate_series(1, 30000) n;
        CREATE UNLOGGED TABLE unlogged AS SELECT n FROM generate_series(1, 1000) n;
        CREATE TABLE elsewhere TABLESPACE one AS SELECT n FROM generate_series(1, 9) n;
        CHECKPOINT;
    """)
    backup(protected)
    contents = content(cluster)
    cluster.psql("""
        DROP TABLE gone;
        TRUNCATE cut;
        UPDATE big SET text = 'changed' WHERE n % 2000 = 7;
        INSERT INTO big SELECT n, 'more' FROM generate_series(1, 5000) n;
        INSERT INTO elsewhere SELECT n FROM generate_series(1, 5000) n;
        CREATE TABLE new AS SELECT n FROM generate_series(1, 5000) n;
        CREATE DATABASE another;
    """)
    later = content(cluster)
    protected.archive_now()
    cluster.rows("INSERT INTO big VALUES (-1, 'never archived')")
    only_here = cluster.sql("SELECT pg_walfile_name(pg_current_wal_insert_lsn())")
    cluster.kill()
    left = Path(cluster.data_directory)
    return Source(scene, protected, major, left, contents, later, only_here, place)


@pytest.fixture(scope="module")
def sources(scene: Scene) -> Callable[[int], Source]:
    """Makes the source of a major version, once."""
    return cache(lambda major: make(scene, major))


@pytest.fixture
def source(sources: Callable[[int], Source]) -> Source:
    return sources(MAJORS[-1])


@pytest.fixture(params=MAJORS, ids=[f"pg{major}" for major in MAJORS])
def each(request: pytest.FixtureRequest, sources: Callable[[int], Source]) -> Source:
    return sources(request.param)


def tree(root: Path) -> dict[str, tuple[int, int, int, bytes]]:
    """Return everything below a directory, by paths from it; recovery's file apart."""
    found = {
        str(Path(path).relative_to(root)): what for path, what in snapshot(root).items()
    }
    del found["tablespace_map"]  # it says where the tablespace is
    return found


def assert_like_fresh(source: Source, target: Path, space: Path) -> None:
    """Hold a directory against what an ordinary restore makes."""
    fresh, fresh_space = source.fresh(IMMEDIATE)
    ours, theirs = tree(target), tree(fresh)
    assert ours.keys() == theirs.keys()
    assert [path for path in ours if ours[path] != theirs[path]] == []
    for path, fresh_path in zip(
        sorted(space.rglob("*")), sorted(fresh_space.rglob("*")), strict=True
    ):
        assert path.relative_to(space) == fresh_path.relative_to(fresh_space)
        if path.is_file():
            assert path.read_bytes() == fresh_path.read_bytes()
            assert int(path.stat().st_mtime) == int(fresh_path.stat().st_mtime)
    for link in (target / "pg_tblspc").iterdir():
        assert os.readlink(link) == str(space)


def test_over_a_cluster_that_ran_on_and_crashed(each: Source) -> None:
    target, space = each.copy()
    assert (target / "postmaster.pid").exists()
    done = each.delta(target, space, IMMEDIATE)
    assert_like_fresh(each, target, space)
    plan, found = done["plan"], done["delta"]
    assert found["deleted_files"] == plan["delta"]["delete_files"] > 300
    assert plan["delta"]["foreign_files"] == 0, plan["delta"]
    assert 0 < found["written_bytes"] < found["kept_bytes"] / 2
    assert 0 < found["fetched_bytes"] < plan["fetch_bytes"]
    assert found["files"] > 900
    assert list((target / "pg_wal").rglob("0*")) == []
    restored = each.serve(target)
    assert content(restored) == each.contents
    restored.stop()


def test_what_is_there_already_is_not_even_fetched(source: Source) -> None:
    target, space = source.fresh(IMMEDIATE)
    inodes = {path: path.stat().st_ino for path in target.rglob("base/*/*")}
    found = source.delta(target, space, IMMEDIATE)["delta"]
    # what a restore itself writes: the recovery's settings
    assert found["written_bytes"] <= PAGE
    assert found["fetched_bytes"] < 1 << 20
    assert inodes == {path: path.stat().st_ino for path in inodes}
    assert_like_fresh(source, target, space)


def test_recovers_to_the_end_of_the_wal(each: Source) -> None:
    """Over the crashed cluster, whose WAL is archived, nothing is lost."""
    target, space = each.copy()
    done = each.delta(target, space)
    notes = "\n".join(done["plan"]["notes"])
    assert "was not shut down" in notes
    restored = each.serve(target)
    assert content(restored) == each.later
    restored.stop()


def test_flipped_bits_are_put_right_and_little_else_is_written(source: Source) -> None:
    target, space = source.fresh(IMMEDIATE)
    files = [path for path in target.glob("base/*/*") if path.stat().st_size > PAGE]
    chosen = random.Random(3).sample(sorted(files), 20)
    for path in chosen:
        status = path.stat()
        with path.open("r+b") as file:
            file.seek(status.st_size // 2)
            byte = file.read(1)
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte[0] ^ 0x10]))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    found = source.delta(target, space, IMMEDIATE)["delta"]
    assert 20 * PAGE <= found["written_bytes"] <= 21 * PAGE
    assert_like_fresh(source, target, space)


def test_sizes_holes_and_kinds(source: Source) -> None:
    """Files cut short, grown, gone, and other things in a file's place."""
    target, space = source.fresh(IMMEDIATE)
    files = sorted(path for path in target.glob("base/*/*") if path.stat().st_size)
    os.truncate(files[0], 100)
    with files[1].open("ab") as file:
        file.write(b"x" * 3 * PAGE)
    files[2].unlink()
    files[3].unlink()
    (files[3] / "below").mkdir(parents=True)
    (files[3] / "below/file").write_text("in the way")
    files[4].unlink()
    os.mkfifo(files[4])
    files[5].write_bytes(b"")
    (target / "PG_VERSION").chmod(0o400)
    (target / "pg_xact").rename(target / "pg_xact.old")
    (target / "pg_xact").write_text("no directory")
    (target / "base" / "777").mkdir()
    give_to(source.protected.account, target)
    source.delta(target, space, IMMEDIATE)
    assert_like_fresh(source, target, space)


def test_links_are_never_followed(source: Source) -> None:
    target, space = source.fresh(IMMEDIATE)
    outside = source.scene.directory()
    (outside / "precious").write_text("keep me")
    (outside / "tree").mkdir()
    (outside / "tree/file").write_text("keep me too")
    (outside / "waldir").mkdir()
    (outside / "waldir/thesis.txt").write_text("not WAL")
    files = sorted(path for path in target.glob("base/*/*") if path.stat().st_size)
    files[0].unlink()
    files[0].symlink_to(outside / "precious")
    directory = min(target.glob("base/*"))
    directory.rename(outside / "moved")
    directory.symlink_to(outside / "moved")
    (target / "pg_xact").rename(outside / "pg_xact")
    (target / "pg_xact").symlink_to(outside / "pg_xact")
    (target / "trap").symlink_to(outside / "tree")
    (target / "pg_tblspc/99999").symlink_to(outside / "tree")
    for name in ("backup_label", "recovery.signal"):
        (target / name).unlink()
        (target / name).symlink_to(outside / "precious")
    (target / f"{MARKER}.drkit").symlink_to(outside / "precious")
    (target / "pg_wal").rename(outside / "pg_wal.old")
    (target / "pg_wal").symlink_to(outside / "waldir")
    # a second name, as a copy by `cp -al` has: that copy must not change
    os.link(files[-1], outside / "linked")
    with files[-1].open("r+b") as file:
        file.write(b"\xff" * 64)
    linked = (outside / "linked").read_bytes()
    give_to(source.protected.account, target)
    before = {path: what[3] for path, what in snapshot(outside).items()}
    done = source.delta(target, space, IMMEDIATE)
    assert {path: what[3] for path, what in snapshot(outside).items()} == before
    assert (outside / "linked").read_bytes() == linked
    assert_like_fresh(source, target, space)
    notes = "\n".join(done["plan"]["notes"])
    assert f"pg_wal is a link to {outside / 'waldir'}" in notes
    assert f"pg_xact is a link to {outside / 'pg_xact'}" in notes
    assert f"the tablespace at {outside / 'tree'} (99999) stays" in notes
    assert "trap" in done["plan"]["delta"]["foreign"]


def test_a_link_to_a_wal_directory_stays_and_is_emptied(source: Source) -> None:
    target, space = source.copy()
    disk = source.scene.directory() / "waldir"
    (target / "pg_wal").rename(disk)
    (target / "pg_wal").symlink_to(disk)
    assert list(disk.glob("0*"))
    done = source.delta(target, space, IMMEDIATE)
    assert (target / "pg_wal").is_symlink()
    assert list(disk.rglob("0*")) == []
    assert (disk / "archive_status").is_dir()
    notes = "\n".join(done["plan"]["notes"])
    assert f"pg_wal stays a link to {disk}" in notes
    restored = source.serve(target)
    assert content(restored) == source.contents
    restored.stop()


def test_foreign_files_are_named_before_they_go(source: Source) -> None:
    target, space = source.copy()
    (target / "notes").mkdir()
    for number in range(7):
        (target / "notes" / f"{number}.txt").write_text("mine")
    (target / "base/1/mine.txt").write_text("mine")
    before = snapshot(target)
    said = drkit(
        source.protected,
        *("restore", NAME, *source.options(space), "--plan", "--to", target),
    )
    assert said.code == 0, said.err
    assert snapshot(target) == before
    text = said.out + said.err
    assert "PostgreSQL did not make these files, and they will be deleted" in text
    assert "base/1/mine.txt" in text
    assert "and 3 more" in text
    assert "compares every file" in text
    assert f"the tablespace at {source.place}" not in text
    plan = source.delta(target, space, IMMEDIATE)["plan"]
    assert plan["delta"]["foreign_files"] == 8
    assert len(plan["delta"]["foreign"]) == 5
    assert not (target / "notes").exists()


def test_wal_that_is_nowhere_else_is_named_before_it_goes(source: Source) -> None:
    target, space = source.copy()
    plan = source.delta(target, space, "--plan")["plan"]
    notes = "\n".join(plan["notes"])
    assert f"that is not archived will be deleted: {source.only_here};" in notes


def test_what_else_lies_in_a_tablespace_s_place_is_left_alone(source: Source) -> None:
    """Servers of two versions may share one, as after an upgrade."""
    target, space = source.copy()
    other = space / "PG_9_200001011" / "5"
    other.mkdir(parents=True)
    (other / "16384").write_text("another server's")
    (space / "lost+found").mkdir()
    give_to(source.protected.account, space)
    source.delta(target, space, IMMEDIATE)
    assert (other / "16384").read_text() == "another server's"
    assert (space / "lost+found").is_dir()
    restored = source.serve(target)
    assert content(restored) == source.contents
    restored.stop()


def test_an_empty_or_missing_directory_is_filled_as_ever(source: Source) -> None:
    for made in (False, True):
        home = source.scene.directory()
        target, space = home / "data", home / "space"
        if made:
            target.mkdir()
        done = source.delta(target, space, IMMEDIATE)
        assert done["delta"] is None
        assert done["plan"]["delta"] is None
        assert_like_fresh(source, target, space)


@only_root
def test_modes_and_owners_are_put_right_under_any_umask(source: Source) -> None:
    restore_over_open_files(source, 0o600, 0o700)


@only_root
def test_group_access_is_kept(scene: Scene) -> None:
    source = make(scene, MAJORS[-1], group_access=True)
    restore_over_open_files(source, 0o640, 0o750)


def restore_over_open_files(source: Source, mode: int, directory_mode: int) -> None:
    target, space = source.copy()
    for path in [target, space, *target.rglob("*"), *space.rglob("*")]:
        if not path.is_symlink():
            path.chmod(0o777 if path.is_dir() else 0o666)
            os.chown(path, 0, 0)
    os.chown(target, *source.protected.account[1:])
    before = os.umask(0)
    try:
        source.delta(target, space, IMMEDIATE)
    finally:
        os.umask(before)
    for path in [target, space, *target.rglob("*"), *space.rglob("*")]:
        status = path.lstat()
        assert (status.st_uid, status.st_gid) == source.protected.account[1:], path
        if not path.is_symlink():
            expected = directory_mode if path.is_dir() else mode
            assert stat.S_IMODE(status.st_mode) == expected, path
    assert_like_fresh(source, target, space)


@only_root
def test_the_server_s_own_user_restores_over_its_cluster(
    source: Source, postgres_user: Account
) -> None:
    """Not root: it can't read or write just anything."""
    target, space = source.copy()
    key = target / "server.key"
    key.write_text("private")
    for path in (key, target / "PG_VERSION"):
        path.chmod(0o400)
    give_to(postgres_user, target)
    done = run_drkit(
        *("restore", NAME, *source.options(space), IMMEDIATE, "--to", target),
        *("--policy-dir", source.protected.home),
        account=postgres_user,
    )
    assert done.returncode == 0, done.stderr
    assert_like_fresh(source, target, space)


def test_over_an_incomplete_restore(source: Source) -> None:
    """Without --delta it would begin again; with it what is there stays."""
    target, space = source.fresh(IMMEDIATE)
    (target / "global/pg_control").unlink()
    mark = {"drkit": "did not end", "tablespaces": [str(space)]}
    (target / MARKER).write_text(json.dumps(mark))
    for path in [*target.glob("base/1/1*")][:20]:
        path.unlink()
    give_to(source.protected.account, target)
    done = source.delta(target, space, IMMEDIATE)
    assert "incomplete restore" in "\n".join(done["plan"]["notes"])
    assert done["delta"]["kept_bytes"] > done["delta"]["written_bytes"] > 0
    assert_like_fresh(source, target, space)


@pytest.mark.parametrize("major", MAJORS)
def test_an_incremental_s_chain_is_restored_over_the_cluster(
    scene: Scene, major: int
) -> None:
    protected = scene.protect(major, {"autovacuum": "off"})
    cluster = protected.cluster
    cluster.psql("""
        CREATE TABLE big AS
            SELECT n, repeat(md5(n::text), 10) AS text FROM generate_series(1, 20000) n;
        CHECKPOINT;
    """)
    backup(protected)
    for link in range(2):
        cluster.psql(f"UPDATE big SET text = 'link {link}' WHERE n % 1500 = {link}")
        protected.json("backup", NAME, "--type", "incremental")
    contents = content(cluster)
    cluster.psql("DELETE FROM big WHERE n % 777 = 0; CHECKPOINT")
    protected.archive_now()
    cluster.stop()
    target = Path(cluster.data_directory)
    words = ("restore", NAME, "--delta", IMMEDIATE, "--output", "json", "--to", target)
    said = drkit(protected, *words)
    assert said.code == 0, said.err
    found = json.loads(said.out)
    notes = "\n".join(found["plan"]["notes"])
    assert "was not shut down" not in notes
    assert "not archived" not in notes  # but the record of a clean shutdown
    assert found["plan"]["backup"]["kind"] == "incr"
    assert 0 < found["delta"]["written_bytes"] < found["delta"]["kept_bytes"] / 2
    restored = scene.start(target, major)
    assert content(restored) == contents
    restored.stop()
