"""Root, and the owner of a data directory who plants links in it.

drkit runs as root here, and the server's user has changed the directory, or changes it
at the worst moment. What root alone may read is SECRET; it must get nowhere.
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from drkit.errors import DrkitError, SourceUnreadable, StorageError
from drkit.model.frames import FilePages
from drkit.model.owner import Owner
from drkit.model.page import PAGE
from drkit.model.recovery import RecoveryTarget
from drkit.operations.framers.serving import Framer
from drkit.operations.restore import RestoreRequest, execute_restore, plan_restore
from drkit.operations.scratch.places import make_place, sweep_left_overs
from drkit.ownership import acting_as, owner_of
from drkit.postgres.target_checks import MARKER
from drkit.sites.rehearsal import rehearsal_site
from drkit.wiring import Secrets, SystemClock
from tests.operations.backup_tools import Listener, site
from tests.operations.scene import restore
from tests.pg import copy_tree, give_to
from tests.protect import NAME
from tests.storage.localtools import only_root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from drkit.postgres.process import Account
    from tests.operations.scene import Scene
    from tests.protect import Protected

pytestmark = only_root
SECRET = b"root:$y$j9T$what-root-alone-may-read:19000:0:99999:7:::\n" * 200


@pytest.fixture
def vault(session_directory: str) -> Iterator[Path]:
    """A directory that everybody may enter, with a file that only root may read."""
    made = Path(tempfile.mkdtemp(prefix="vault-", dir=session_directory))
    made.chmod(0o755)
    secret = made / "secret"
    secret.write_bytes(SECRET)
    secret.chmod(0o600)
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module", params=[15, 16, 18])
def protected(request: pytest.FixtureRequest, scene: Scene) -> Protected:
    return scene.protect(request.param)


@pytest.fixture
def data(protected: Protected) -> Iterator[Path]:
    """The data directory; what a test has put into it is gone at the end."""
    path = Path(protected.cluster.data_directory)
    before = {each for each in path.rglob("*") if each.is_symlink()}
    yield path
    shutil.rmtree(path / "notes", ignore_errors=True)
    (path / "note").unlink(missing_ok=True)
    for each in path.rglob("*"):
        if each.is_symlink() and each not in before:
            each.unlink()


def held(scene: Scene, protected: Protected, label: str) -> bytes:
    """Return all that is in a backup's files."""
    target = scene.target()
    restore(protected, target, label)
    return b"".join(each.read_bytes() for each in target.rglob("*") if each.is_file())


def leaks(
    scene: Scene, protected: Protected, swap: Callable[[], object] | None = None
) -> bool:
    """Take a backup, and say whether the secret is in it; none at all is no leak.

    Args:
        swap: called between the listing of the files and the reading of the first.
    """
    listener = Listener(at={"copy": swap} if swap else {})
    try:
        label = site(protected, "local", jobs=2).take(listener).label
    except SourceUnreadable:
        return False
    return SECRET[:50] in held(scene, protected, label)


# -- links that are there when the files are listed


def test_a_link_to_a_file_of_root_s(
    scene: Scene, protected: Protected, data: Path, vault: Path
) -> None:
    (data / "note").symlink_to(vault / "secret")
    listener = Listener()
    label = site(protected, "local").take(listener).label
    assert SECRET[:50] not in held(scene, protected, label)
    manifest = site(protected).manifest(label)
    assert any("note is a symbolic link to" in one for one in manifest.head.warnings)


def test_a_link_to_a_directory(
    scene: Scene, protected: Protected, data: Path, vault: Path
) -> None:
    (data / "notes").symlink_to(vault)
    assert not leaks(scene, protected)


def test_a_link_that_looks_like_a_tablespace_s(
    scene: Scene, protected: Protected, data: Path, vault: Path
) -> None:
    catalog = protected.cluster.sql(
        "SELECT catalog_version_no FROM pg_control_system()"
    )
    database = vault / f"PG_{protected.cluster.binaries.major}_{catalog}" / "5"
    database.mkdir(parents=True)
    (vault / "secret").rename(database / "1234")
    (database / "1234").chmod(0o644)  # whether the owner may read it or not
    (data / "pg_tblspc/99999").symlink_to(vault)
    assert not leaks(scene, protected)


def test_a_link_in_the_place_of_the_cluster_s_own(
    protected: Protected, data: Path, vault: Path
) -> None:
    """Nothing that a restore would lack is left out with no more than a warning."""
    (data / "base/5/4242").symlink_to(vault / "secret")
    with pytest.raises(SourceUnreadable, match="is a symbolic link"):
        site(protected, "local").take()


def test_another_name_of_a_file_of_root_s(
    scene: Scene, protected: Protected, data: Path
) -> None:
    """A hard link is no link to the kernel; the file's mode must keep it closed."""
    secret = scene.directory() / "secret"
    secret.write_bytes(SECRET)
    secret.chmod(0o600)
    os.chown(secret, 0, 0)
    os.link(secret, data / "note")
    with pytest.raises(SourceUnreadable, match="note"):
        site(protected, "local").take()


# -- what is exchanged after the files were listed


def test_a_file_is_exchanged_for_a_link(
    scene: Scene, protected: Protected, data: Path, vault: Path
) -> None:
    note = data / "note"
    note.write_bytes(bytes(len(SECRET)))
    give_to(protected.account, note)

    def swap() -> None:
        note.unlink()
        note.symlink_to(vault / "secret")

    assert not leaks(scene, protected, swap)


def test_a_directory_is_exchanged_for_a_link(
    scene: Scene, protected: Protected, data: Path, vault: Path
) -> None:
    notes = data / "notes"
    notes.mkdir()
    (notes / "secret").write_bytes(bytes(len(SECRET)))
    give_to(protected.account, notes)

    def swap() -> None:
        notes.rename(data / "notes.gone")
        notes.symlink_to(vault)

    try:
        assert not leaks(scene, protected, swap)
    finally:
        shutil.rmtree(data / "notes.gone")


def test_pages_that_another_process_reads(
    vault: Path, make_directory: Callable[[], Path], postgres_user: Account
) -> None:
    """Framers get their work as paths; they open them as the owner, too."""
    pages = vault / "1234"
    pages.write_bytes(bytes(PAGE))
    pages.chmod(0o600)
    link = make_directory() / "1234"
    link.symlink_to(pages)
    owner = Owner(postgres_user.uid, postgres_user.gid)
    (link.parent / "directory").symlink_to(vault)
    for place in (link, link.parent / "directory/1234", pages):
        root = pages.parent if place == pages else link.parent
        asked = FilePages(
            0,
            os.fsencode(place),
            os.fsencode(root),
            owner,
            np.array([0], np.int64),
            0,
        )
        assert Framer(bytes(32), 1).frame([asked], verify=False) is None


# -- whose a directory is


def test_the_data_directory_is_exchanged_for_another_user_s(
    make_directory: Callable[[], Path], postgres_user: Account, vault: Path
) -> None:
    """Root acts as nobody whom the owner of the way has chosen."""
    nobody = pwd.getpwnam("nobody")
    home = make_directory()
    theirs = vault / "theirs"
    theirs.mkdir()
    os.chown(theirs, nobody.pw_uid, nobody.pw_gid)
    (home / "data").symlink_to(theirs)
    with pytest.raises(SourceUnreadable, match="belongs to postgres"):
        owner_of(str(home / "data"), raising=SourceUnreadable)


@pytest.mark.parametrize("mode", [0o777, 0o775])
def test_a_directory_on_the_way_that_others_can_write(
    make_directory: Callable[[], Path], mode: int
) -> None:
    home = make_directory()
    (home / "data").mkdir()
    os.chown(home / "data", home.stat().st_uid, home.stat().st_gid)
    os.chown(home, home.stat().st_uid, pwd.getpwnam("nobody").pw_gid)
    home.chmod(mode)
    with pytest.raises(DrkitError, match="others can write"):
        owner_of(str(home / "data"))
    home.chmod(0o1777)  # as /tmp: nobody can exchange what is another's
    owner_of(str(home / "data"))


def test_root_s_rights_and_groups_are_away_and_come_back(
    vault: Path, make_directory: Callable[[], Path], postgres_user: Account
) -> None:
    secret, of_group = vault / "secret", vault / "of-group"
    of_group.write_bytes(b"x")
    os.chown(of_group, 0, 4)
    of_group.chmod(0o640)
    home = make_directory()
    os.setgroups([0, 4])
    with acting_as(Owner(postgres_user.uid, postgres_user.gid)):
        for path in (secret, of_group):
            with pytest.raises(PermissionError):
                path.read_bytes()
        with acting_as(Owner(0, 0)):
            assert secret.read_bytes() == SECRET
        with pytest.raises(PermissionError):
            secret.read_bytes()
        made = home / "made"
        made.touch()
    assert made.stat().st_uid == postgres_user.uid
    assert secret.read_bytes() == SECRET


def test_the_whole_command(
    scene: Scene, protected: Protected, data: Path, vault: Path
) -> None:
    (data / "note").symlink_to(vault / "secret")
    done = protected.drkit("backup", NAME, "--type", "full")
    assert done.returncode == 0, done.stderr
    assert b"note is a symbolic link to" in done.stderr, done.stderr
    label = protected.labels()[-1]
    assert SECRET[:50] not in held(scene, protected, label)


# -- the target of a restore


@pytest.fixture
def home(scene: Scene) -> Path:
    """A directory of the server's user, in which root is asked to restore."""
    return scene.directory()


def test_a_target_that_a_planted_link_leads_to(
    protected: Protected, home: Path, vault: Path
) -> None:
    """Root neither writes nor gives away what lies behind the link."""
    backup_once(protected)
    (home / "15").symlink_to(vault)
    for target in (home / "15/restored", home / "15/empty"):
        (vault / "empty").mkdir(exist_ok=True)
        done = protected.restore(target)
        assert done.returncode != 0, done.stdout
    assert {each.name for each in vault.iterdir()} == {"secret", "empty"}
    assert (vault / "empty").stat().st_uid == 0
    assert stat.S_IMODE((vault / "empty").stat().st_mode) == 0o755


def test_a_target_exchanged_after_the_plan(
    protected: Protected, home: Path, vault: Path
) -> None:
    backup_once(protected)
    (home / "there").mkdir()
    give_to(protected.account, home / "there")
    target = home / "there/restored"

    def swap() -> None:
        (home / "there").rename(home / "gone")
        (home / "there").symlink_to(vault)

    with pytest.raises(DrkitError):
        restore_with(protected, target, {"prepare": swap})
    assert [each.name for each in vault.iterdir()] == ["secret"]


def test_a_directory_in_the_target_exchanged_for_a_link(
    protected: Protected, home: Path, vault: Path
) -> None:
    """While files are written their owner makes `base` a link to root's directory."""
    backup_once(protected)
    target = home / "restored"

    def swap() -> None:
        (target / "base").rename(target / "base.gone")
        (target / "base").symlink_to(vault)
        (target / "global/1262").unlink(missing_ok=True)
        (target / "global/1262").symlink_to(vault / "secret")

    with pytest.raises(DrkitError):
        restore_with(protected, target, {"fetch": swap})
    assert [each.name for each in vault.iterdir()] == ["secret"]
    assert (vault / "secret").read_bytes() == SECRET
    assert (vault / "secret").stat().st_uid == 0


def test_another_name_of_root_s_file_in_the_target(
    protected: Protected, home: Path
) -> None:
    """A hard link in the place of a file is neither written through nor given away."""
    backup_once(protected)
    target, secret = home / "restored", home / "secret"
    secret.write_bytes(SECRET)
    secret.chmod(0o600)
    os.chown(secret, 0, 0)

    def swap() -> None:
        os.link(secret, target / "PG_VERSION")

    with pytest.raises(DrkitError):
        restore_with(protected, target, {"fetch": swap})
    assert secret.read_bytes() == SECRET
    assert secret.stat().st_uid == 0
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600


def test_an_incomplete_restore_that_names_root_s_directory(
    protected: Protected, home: Path, vault: Path
) -> None:
    """What the mark of an earlier restore names is cleared as its owner alone could."""
    backup_once(protected)
    target = home / "restored"
    target.mkdir()
    (vault / "PG_15_1").mkdir()
    (vault / "secret").rename(vault / "PG_15_1/secret")
    mark = {"drkit": "", "tablespaces": [str(vault)]}
    (target / MARKER).write_text(json.dumps(mark))
    give_to(protected.account, target)
    done = protected.restore(target)
    assert (vault / "PG_15_1/secret").read_bytes() == SECRET
    assert done.returncode != 0


def test_delta_gives_no_file_of_root_s_away(
    protected: Protected, home: Path, data: Path
) -> None:
    """A file of root's that was brought into the data directory stays closed."""
    backup_once(protected)
    target = home / "data"
    copy_tree(data, target)
    (target / "postmaster.pid").unlink()
    give_to(protected.account, target)
    brought = target / "global/1262"
    brought.write_bytes(SECRET)
    brought.chmod(0o600)
    os.chown(brought, 0, 0)
    with brought.open("rb") as seen:
        restore(protected, target, "--delta")
        assert os.fstat(seen.fileno()).st_uid == 0
        assert os.pread(seen.fileno(), len(SECRET), 0) == SECRET
    assert brought.stat().st_uid == protected.account.uid


def test_a_tablespace_s_place_that_is_a_planted_link(
    scene: Scene, home: Path, vault: Path
) -> None:
    protected = scene.protect(18)
    space = scene.directory() / "space"
    space.mkdir()
    give_to(protected.account, space)
    protected.cluster.rows(f"CREATE TABLESPACE space LOCATION '{space}'")
    protected.cluster.rows("CREATE TABLE t TABLESPACE space AS SELECT 1 AS n")
    backup_once(protected)
    (vault / "empty").mkdir()
    (home / "link").symlink_to(vault)
    for name in ("new", "empty"):
        mapped = f"--tablespace-map={space}={home}/link/{name}"
        done = protected.restore(home / f"restored-{name}", mapped)
        assert done.returncode != 0, done.stdout
    assert {each.name for each in vault.iterdir()} == {"secret", "empty"}
    assert (vault / "empty").stat().st_uid == 0


# -- the place of scratch instances


def test_a_place_for_scratch_instances_that_a_planted_link_leads_to(
    home: Path, vault: Path, postgres_user: Account
) -> None:
    (home / "link").symlink_to(vault)
    for place in (home / "link", home / "link/new"):
        with pytest.raises(DrkitError):
            make_place(str(place), postgres_user, SystemClock())
    assert [each.name for each in vault.iterdir()] == ["secret"]


def test_a_private_directory_that_is_exchanged_for_a_link(
    home: Path, vault: Path, postgres_user: Account
) -> None:
    """Where its parent is the server's user's, root removes as that user could."""
    place = make_place(str(home), postgres_user, SystemClock())
    directory = Path(place.directory)
    assert directory.stat().st_uid == postgres_user.uid
    directory.rename(home / "gone")
    directory.symlink_to(vault)
    assert not place.remove().proven
    assert (vault / "secret").read_bytes() == SECRET
    with pytest.raises(StorageError):
        sweep_left_overs(str(home))
    assert (vault / "secret").read_bytes() == SECRET


def test_a_run_of_root_s_leaves_the_place_to_others(
    session_directory: str, postgres_user: Account
) -> None:
    parent = Path(tempfile.mkdtemp(dir=session_directory)) / "scratch"
    parent.parent.chmod(0o755)
    assert make_place(str(parent), postgres_user, SystemClock()).remove().proven
    assert stat.S_IMODE(parent.stat().st_mode) == 0o1777
    with acting_as(Owner(postgres_user.uid, postgres_user.gid)):
        (parent / "theirs").mkdir()


def test_no_name_for_scratch_instances_is_to_be_guessed(protected: Protected) -> None:
    options = rehearsal_site(protected.policy(), Secrets({})).scratch(
        protected.cluster.binaries.major
    )
    assert options.directory == "/var/tmp"
    place = make_place(options.directory, options.account, SystemClock())
    assert place.remove().proven


def backup_once(protected: Protected) -> None:
    if not protected.labels():
        site(protected, "local", jobs=2).take()


def restore_with(
    protected: Protected, target: Path, at: dict[str, Callable[[], object]]
) -> None:
    """Restore as root for the server's user, and do something at a phase."""
    repository = protected.repository()
    owner = Owner(*protected.account[1:])
    request = RestoreRequest(
        label=None,
        target=RecoveryTarget(),
        to=str(target),
        tablespaces={},
        jobs=1,
        restore_command="false",
        owner=owner,
    )
    plan = plan_restore(repository, request)
    execute_restore(repository, plan, Listener(at=at))
