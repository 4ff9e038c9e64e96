"""Root sets a cluster up where the server's user has planted links.

Policies and keys may lie in directories of the server's user. Whatever that user puts
there, or exchanges at the worst moment, leads root to nothing that is not that user's.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from drkit.errors import PolicyError
from drkit.model.owner import Owner
from drkit.ownership import acting_as
from drkit.sites.init import InitSite
from drkit.wiring import Secrets
from tests.cli.site import SYSTEM, Site, make_site
from tests.pg import run_drkit
from tests.storage.localtools import NOBODY, only_root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from drkit.postgres.process import Account, Completed
    from tests.pg import Cluster, ClusterFactory

pytestmark = only_root
NAME = "evil1"


@pytest.fixture(scope="module")
def cluster(cluster_factory: ClusterFactory) -> Iterator[Cluster]:
    with cluster_factory.make(15) as cluster:
        yield cluster


@pytest.fixture
def theirs(postgres_user: Account) -> Owner:
    return Owner(postgres_user.uid, postgres_user.gid)


@pytest.fixture
def policies(make_directory: Callable[[], Path], theirs: Owner) -> Path:
    """A policy directory that the server's user owns, as older runs left it."""
    made = make_directory() / "policies"
    made.mkdir()
    os.chown(made, *theirs)
    return made


@pytest.fixture(params=[0o700, 0o755], ids=["closed", "open"])
def vault(request: pytest.FixtureRequest, session_directory: str) -> Iterator[Path]:
    """A directory of root's, reachable by everybody."""
    made = Path(tempfile.mkdtemp(prefix="vault-", dir=session_directory))
    made.chmod(request.param)
    yield made
    shutil.rmtree(made)


def plant(owner: Owner, link: Path, target: Path) -> None:
    """Put a link there as the server's user, with what lies above it."""
    with acting_as(owner):
        link.parent.mkdir(parents=True, exist_ok=True)
        if link.is_dir():
            link.rmdir()
        link.symlink_to(target)


def init(cluster: Cluster, policies: Path, repository: Path) -> Completed:
    return run_drkit(
        *("init", NAME, "--url", cluster.url, "--policy-dir", policies),
        *("--repository", f"file://{repository}"),
    )


def refuses(done: Completed, place: Path) -> None:
    told = done.stderr.decode()
    assert done.returncode == PolicyError.exit_code, told
    assert str(place) in told
    assert "Traceback" not in told


def site_in(policies: Path) -> InitSite:
    return InitSite(NAME, str(policies), None, Secrets({}))


def whose(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_uid, stat.S_IMODE(status.st_mode)


# -- links that are there


@pytest.mark.parametrize("part", [f"keys/{NAME}", "keys", "."])
def test_a_link_in_the_place_of_a_directory(
    cluster: Cluster, policies: Path, vault: Path, theirs: Owner, part: str
) -> None:
    link = policies / part
    plant(theirs, link, vault)
    refuses(init(cluster, policies, policies.parent / "repository"), link)
    assert list(vault.iterdir()) == []
    assert vault.stat().st_uid == 0


def test_a_link_to_what_is_not_there(
    cluster: Cluster, policies: Path, vault: Path, theirs: Owner
) -> None:
    plant(theirs, policies / "keys", vault / "new")
    refuses(init(cluster, policies, policies.parent / "repository"), policies / "keys")
    assert list(vault.iterdir()) == []


@pytest.mark.parametrize("new", ["", "new"])
def test_a_link_in_the_place_of_the_repository(
    cluster: Cluster, policies: Path, vault: Path, theirs: Owner, new: str
) -> None:
    """An empty directory of root's is not given to who only points at it."""
    link = policies.parent / "repository"
    plant(theirs, link, vault / new)
    refuses(init(cluster, policies, link), link)
    assert list(vault.iterdir()) == []
    assert vault.stat().st_uid == 0


def test_a_link_where_the_key_that_signs_wal_goes(
    make_directory: Callable[[], Path],
    postgres_user: Account,
    vault: Path,
    theirs: Owner,
) -> None:
    site: Site = make_site(make_directory(), postgres_user, system=SYSTEM)
    link = site.root / "link"
    plant(theirs, link, vault)
    key = link / "wal-signing.key"
    refuses(site.drkit("keys", "sign-wal", "alpha", "--to", key), link)
    assert list(vault.iterdir()) == []


# -- links that take a directory's place at the worst moment


def test_a_link_that_takes_a_new_directory_s_place(
    policies: Path, vault: Path, theirs: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = vault / "secret"
    secret.touch(0o600)
    mkdir = os.mkdir
    place = policies / "keys" / NAME

    def exchange(path: str, *mode: int, dir_fd: int | None = None) -> None:
        mkdir(path, *mode, dir_fd=dir_fd)
        if Path(path).name == NAME:
            place.rmdir()
            place.symlink_to(secret)

    monkeypatch.setattr(os, "mkdir", exchange)
    with pytest.raises(PolicyError) as caught:
        site_in(policies).write_key("backup", "a key", theirs)
    assert place.is_symlink()
    assert whose(secret) == (0, 0o600)
    assert f"{place} can't be written" in caught.value.message


def test_a_link_that_takes_the_place_of_one_where_a_key_is_being_written(
    policies: Path, vault: Path, theirs: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was opened is what is written to, whatever has its name by now."""
    site, place = site_in(policies), policies / "keys" / NAME
    site.write_key("backup", "a key", theirs)
    urandom, moved = os.urandom, place.with_name("moved")

    def exchange(size: int) -> bytes:
        if not place.is_symlink():
            place.rename(moved)
            place.symlink_to(vault)
        return urandom(size)

    monkeypatch.setattr(os, "urandom", exchange)
    site.write_key("wal", "a key", theirs)
    assert place.is_symlink()
    assert list(vault.iterdir()) == []
    assert whose(moved / "wal.key") == (theirs.uid, 0o600)


def test_directories_that_somebody_else_could_exchange(
    policies: Path, theirs: Owner
) -> None:
    site, keys = site_in(policies), policies / "keys" / NAME
    site.write_key("backup", "a key", theirs)
    keys.chmod(0o777)
    with pytest.raises(PolicyError, match=rf"{keys} \(mode 0777\)"):
        site.write_key("wal", "a key", theirs)
    keys.chmod(0o700)
    os.chown(policies, NOBODY, NOBODY)
    with pytest.raises(PolicyError, match=f"{policies} belongs to nobody"):
        site.write_key("wal", "a key", theirs)
    assert [one.name for one in keys.iterdir()] == ["backup.key"]


# -- what stays as it was


def test_where_the_server_s_user_is_at_home_all_becomes_that_user_s(
    cluster: Cluster, policies: Path, theirs: Owner
) -> None:
    done = init(cluster, policies, policies.parent / "repository")
    assert done.returncode == 0, done.stderr.decode()
    made = [policies.parent / "repository", *policies.rglob("*")]
    assert len(made) == 11
    assert {one.stat().st_uid for one in made} == {theirs.uid}
    assert {one.stat().st_gid for one in made} == {theirs.gid}
    assert whose(policies / "keys" / NAME) == (theirs.uid, 0o700)
    assert whose(policies / "keys" / NAME / "backup.key") == (theirs.uid, 0o600)


def test_where_root_is_alone_keys_stay_root_s(vault: Path, theirs: Owner) -> None:
    policies = vault / "a" / "policies"
    site = site_in(policies)
    for purpose in ("backup", "wal", "wal_signing"):
        site.write_key(purpose, "a key", theirs)
    keys = policies / "keys" / NAME
    for path in (policies.parent, policies, policies / "keys"):
        assert whose(path) == (0, 0o755)
        assert path.stat().st_gid == 0
    assert (*whose(keys), keys.stat().st_gid) == (0, 0o750, theirs.gid)
    for name, mode, gid in (
        ("backup", 0o600, 0),
        ("wal", 0o640, theirs.gid),
        ("wal-signing", 0o640, theirs.gid),
    ):
        key = keys / f"{name}.key"
        assert (*whose(key), key.stat().st_gid) == (0, mode, gid)


def test_a_link_that_root_made_is_followed(
    policies: Path, vault: Path, theirs: Owner
) -> None:
    link = vault / "link"
    link.symlink_to(policies)
    site_in(link).write_key("backup", "a key", theirs)
    key = policies / "keys" / NAME / "backup.key"
    assert whose(key) == (theirs.uid, 0o600)


def test_the_key_that_signs_wal_is_as_readable_as_that_of_wal(
    make_directory: Callable[[], Path], postgres_user: Account, theirs: Owner
) -> None:
    site: Site = make_site(make_directory(), postgres_user, system=SYSTEM)
    for path in (site.root, site.policy.parent, site.policy, site.root / "wal.key"):
        os.chown(path, 0, 0)
    os.chown(site.root / "wal.key", 0, theirs.gid)
    (site.root / "wal.key").chmod(0o640)
    done = site.drkit("keys", "sign-wal", "alpha")
    assert done.returncode == 0, done.stderr.decode()
    key = site.root / "wal-signing.key"
    assert (*whose(key), key.stat().st_gid) == (0, 0o640, theirs.gid)
