"""The directory a restore writes to: refused unless free, then owned and closed."""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from drkit.errors import TargetNotEmpty, UsageError
from drkit.postgres.process import find_account
from tests.operations.scene import Scene, backup, drkit, refused, restore
from tests.pg import ClusterFactory, give_to, run_drkit, versions_under_test
from tests.protect import NAME
from tests.storage.localtools import only_root

if TYPE_CHECKING:
    from collections.abc import Iterator

    from drkit.postgres.process import Account
    from tests.protect import Protected

NEWEST = max(versions_under_test())
NOT_EMPTY = TargetNotEmpty.exit_code


@dataclass
class Source:
    """A cluster with two tablespaces elsewhere and one in place; it still runs."""

    scene: Scene
    protected: Protected
    places: list[Path]

    def mapped(self) -> tuple[list[Path], list[str]]:
        """Return new places for the tablespaces, and the options that say so."""
        new = [self.scene.directory() / "space" for _ in self.places]
        pairs = zip(self.places, new, strict=True)
        options = [f"--tablespace-map={old}={to}" for old, to in pairs]
        return new, options


def with_tablespaces(scene: Scene, **options: Any) -> Source:
    protected = scene.protect(NEWEST, **options)
    cluster = protected.cluster
    places = [scene.directory() / "one", scene.directory() / "two words"]
    with cluster.connect(options="-c allow_in_place_tablespaces=on") as connection:
        connection.execute("CREATE TABLESPACE inside LOCATION ''")
        for number, place in enumerate(places):
            place.mkdir()
            give_to(protected.account, place)
            connection.execute(f"CREATE TABLESPACE s{number} LOCATION '{place}'")
        for name in ("inside", "s0", "s1"):
            table = f"CREATE TABLE in_{name} TABLESPACE {name} AS SELECT 42 AS n"
            connection.execute(table)
    backup(protected, "stream")
    backup(protected, "local")
    return Source(scene, protected, places)


@pytest.fixture(scope="module")
def source(scene: Scene) -> Source:
    return with_tablespaces(scene)


@pytest.fixture(scope="module")
def open_to_group(scene: Scene) -> Source:
    """The same with a data directory that its group may read (`initdb -g`)."""
    return with_tablespaces(scene, group_access=True)


# -- what is in the way


def test_a_running_server_is_not_overwritten(source: Source) -> None:
    data = Path(source.protected.cluster.data_directory)
    said = drkit(source.protected, "restore", NAME, "--to", data)
    assert said.code == NOT_EMPTY
    assert f"process {source.protected.cluster.pid}" in said.err
    assert source.protected.cluster.sql("SELECT 1") == 1


@pytest.mark.parametrize("kind", ["file", "dangling", "holds data"])
def test_what_is_there_stays_and_is_refused(source: Source, kind: str) -> None:
    target = source.scene.target()
    if kind == "file":
        target.write_text("keep me")
    elif kind == "dangling":
        target.symlink_to("nowhere")
    else:
        (target / "pg_wal").mkdir(parents=True)
        (target / "pg_wal/000000010000000000000001").write_text("keep me")
    _, options = source.mapped()
    error = refused(source.protected, target, *options)
    assert error["exit_code"] == NOT_EMPTY
    assert str(target) in error["message"]


def test_a_link_to_an_empty_directory_is_filled(source: Source) -> None:
    target, real = source.scene.target(), source.scene.directory()
    target.symlink_to(real)
    restore(source.protected, target, *source.mapped()[1])
    assert target.is_symlink()
    assert (real / "global/pg_control").exists()


def test_a_path_below_a_file_is_refused(source: Source) -> None:
    file = source.scene.target()
    file.write_text("no directory")
    below = file / "below" / "it"
    said = drkit(source.protected, "restore", NAME, *source.mapped()[1], "--to", below)
    assert said.code == 1
    assert f"can't make {below}" in said.err
    assert file.read_text() == "no directory"


# -- tablespaces


def test_recovery_gets_past_tablespaces_in_place(source: Source) -> None:
    """The plan says so; that it does is shown by every restored server here."""
    words = ("restore", NAME, *source.mapped()[1], "--plan")
    plan = drkit(source.protected, *words, "--to", source.scene.target()).out
    assert "\n  allow_in_place_tablespaces = 'on'\n" in plan
    assert "tablespaces inside of the data directory (inside) stop a recovery" in plan


def test_a_tablespace_that_is_in_use_is_refused(source: Source) -> None:
    target = source.scene.target()
    error = refused(source.protected, target)
    assert error["exit_code"] == NOT_EMPTY
    assert any(str(place) in error["message"] for place in source.places)
    assert "--tablespace-map" in error["hint"]


@pytest.mark.parametrize("kind", ["file", "holds data"])
def test_a_new_place_must_be_free(source: Source, kind: str) -> None:
    new, options = source.mapped()
    if kind == "file":
        new[1].write_text("keep me")
    else:
        new[1].mkdir()
        (new[1] / "keep").write_text("me")
    error = refused(source.protected, source.scene.target(), *options)
    assert error["exit_code"] == NOT_EMPTY
    assert str(new[1]) in error["message"]
    assert new[1].exists()
    assert not new[0].exists()


def test_mappings_that_make_no_sense_are_refused(source: Source) -> None:
    one, two = source.places
    target = source.scene.target()
    free = source.scene.directory() / "free"
    for wrong in (
        [f"{one}=relative"],
        ["/no/such/tablespace=/tmp/x"],
        [f"{one}={target}/inside"],
        [f"{one}={target}"],
        [f"{one}={free}", f"{two}={free}"],
        [f"{one}={free}/../free"],
        [f"{one}={free}", f"{one}={free}2"],
    ):
        words = [word for pair in wrong for word in ("--tablespace-map", pair)]
        error = refused(source.protected, target, *words)
        assert error["exit_code"] == UsageError.exit_code, wrong
        assert error["error"] == "UsageError"


@pytest.mark.parametrize("which", [0, 1], ids=["stream", "local"])
def test_tablespaces_go_where_they_are_mapped(source: Source, which: int) -> None:
    label = source.protected.labels()[which]
    new, options = source.mapped()
    target = source.scene.target()
    restore(source.protected, target, label, *options)
    assert {os.readlink(link) for link in links(target)} == {str(one) for one in new}
    restored = source.scene.start(target, NEWEST)
    for name in ("inside", "s0", "s1"):
        assert restored.sql(f"SELECT n FROM in_{name}") == 42
    places = restored.rows(
        "SELECT pg_tablespace_location(oid) FROM pg_tablespace "
        "WHERE spcname IN ('s0', 's1') ORDER BY spcname"
    )
    assert places == [(str(one),) for one in new]


def links(target: Path) -> list[Path]:
    return [one for one in (target / "pg_tblspc").iterdir() if one.is_symlink()]


# -- modes and owners


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@only_root
@pytest.mark.parametrize("mask", [0o000, 0o077], ids=["umask 000", "umask 077"])
@pytest.mark.parametrize("group", [False, True], ids=["owner only", "group access"])
def test_root_restores_for_the_owner_with_the_source_s_modes(
    request: pytest.FixtureRequest, mask: int, group: bool
) -> None:
    source: Source = request.getfixturevalue("open_to_group" if group else "source")
    new, options = source.mapped()
    target = source.scene.directory() / "missing" / "parents" / "restored"
    with umask(mask):
        restore(source.protected, target, *options)
    file_mode, directory_mode = (0o640, 0o750) if group else (0o600, 0o700)
    account = source.protected.account
    for path in everything([target, *new]):
        status = path.lstat()
        assert (status.st_uid, status.st_gid) == account[1:], path
        if stat.S_ISDIR(status.st_mode):
            assert stat.S_IMODE(status.st_mode) == directory_mode, path
        elif stat.S_ISREG(status.st_mode):
            assert stat.S_IMODE(status.st_mode) == file_mode, path
    for parent in (target.parent, target.parent.parent, new[0].parent):
        assert stat.S_IMODE(parent.stat().st_mode) == 0o755, parent
    restored = source.scene.start(target, NEWEST)
    assert restored.sql("SELECT n FROM in_s1") == 42


def everything(roots: list[Path]) -> Iterator[Path]:
    for root in roots:
        yield root
        yield from root.rglob("*")


@only_root
def test_the_server_s_own_user_restores(source: Source, postgres_user: Account) -> None:
    target = source.scene.target()
    done = as_user(source.protected, postgres_user, target, *source.mapped()[1])
    assert done.returncode == 0, done.stderr
    assert target.stat().st_uid == postgres_user.uid
    assert source.scene.start(target, NEWEST).sql("SELECT n FROM in_s0") == 42


@only_root
def test_another_user_restores_and_serves_what_they_may_read(scene: Scene) -> None:
    nobody = find_account("nobody")
    protected = scene.protect(NEWEST)
    protected.cluster.rows("CREATE TABLE t AS SELECT 42 AS n")
    backup(protected)
    protected.cluster.kill()
    target = scene.target()
    give_to(nobody, protected.home)  # another user's policy would not count
    done = as_user(protected, nobody, target)
    assert done.returncode == 1
    assert b"Permission denied" in done.stderr
    assert not target.exists()

    give_to(nobody, target.parent)
    done = as_user(protected, nobody, target)
    assert done.returncode == 0, done.stderr
    factory = ClusterFactory(scene.factory.base, nobody)
    cluster = factory.adopt(NEWEST, str(target), {"archive_mode": "off"})
    scene.clusters.append(cluster)
    cluster.start()
    cluster.wait_until_primary()
    assert cluster.sql("SELECT n FROM t") == 42


@only_root
def test_a_directory_that_may_not_be_looked_into_is_no_fault(source: Source) -> None:
    nobody = find_account("nobody")
    target = source.scene.directory()
    target.chmod(0o700)
    done = as_user(source.protected, nobody, target, "--plan")
    assert done.returncode != 0
    assert b"fault in drkit" not in done.stderr


def as_user(protected: Protected, account: Account, to: Path, *options: str) -> Any:
    """Run `drkit restore` as somebody; the policy and its keys must be readable."""
    return run_drkit(
        "restore",
        NAME,
        *options,
        "--to",
        to,
        "--policy-dir",
        protected.home,
        account=account,
    )
