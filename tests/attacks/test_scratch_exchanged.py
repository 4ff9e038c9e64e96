"""Root, and the server's user who exchanges what root has just made for it.

The directory above is the server's user's, who may put anything into the place of what
is in it. Here that happens at the very moment: right after the directory, or before the
file, is made.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from drkit.errors import DrkitError
from drkit.operations.scratch.places import make_place, sweep_left_overs
from drkit.ownership import acting_as
from drkit.postgres.private_directory import owner_for
from drkit.postgres.server import ThrowawayServer
from drkit.wiring import SystemClock
from tests.operations.scene import backup
from tests.operations.scratch_tools import recover, restored_scratch
from tests.pg import versions_under_test
from tests.storage.localtools import only_root

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.operations.scene import Scene
    from tests.protect import Protected

pytestmark = only_root
NEWEST = max(versions_under_test())
CONTENT = "# root's own\n"


@pytest.fixture(scope="module")
def protected(scene: Scene) -> Protected:
    protected = scene.protect(NEWEST)
    backup(protected)
    return protected


@pytest.fixture
def home(scene: Scene) -> Path:
    """A directory of the server's user's."""
    return scene.directory()


@pytest.fixture
def vault(session_directory: str) -> Iterator[Path]:
    """A directory of root's that everybody may enter, with a file of root's."""
    made = Path(tempfile.mkdtemp(prefix="vault-", dir=session_directory))
    made.chmod(0o755)
    (made / "file").write_text(CONTENT)
    yield made
    assert (made / "file").read_text() == CONTENT
    assert [each.name for each in made.iterdir()] == ["file"]
    assert (made.stat().st_uid, (made / "file").stat().st_uid) == (0, 0)
    shutil.rmtree(made)


@pytest.fixture(params=["link", "directory of root's"])
def bait(request: pytest.FixtureRequest, home: Path, vault: Path) -> Path:
    """What takes the place: a link to root's, or root's own directory beside it."""
    made = home / "bait"
    if request.param == "link":
        made.symlink_to(vault)
    else:
        made.mkdir()
    return made


def exchange(
    monkeypatch: pytest.MonkeyPatch, protected: Protected, bait: Path
) -> list[Path]:
    """Exchange the next directory that is made below the bait's for the bait.

    Returns:
        Where that was, as soon as it happened.
    """
    make, done = os.mkdir, []

    def hooked(name: str, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        make(name, mode, dir_fd=dir_fd)
        above = "" if dir_fd is None else os.readlink(f"/proc/self/fd/{dir_fd}")
        place = Path(above, name)
        if done or bait.parent not in place.parents or "drkit-" not in place.name:
            return
        done.append(place)
        with acting_as(owner_for(protected.account)):
            place.rename(bait.parent / "gone")
            bait.rename(place)

    monkeypatch.setattr(os, "mkdir", hooked)
    return done


def test_a_place_exchanged_right_after_it_is_made(
    monkeypatch: pytest.MonkeyPatch, protected: Protected, home: Path, bait: Path
) -> None:
    done = exchange(monkeypatch, protected, bait)
    with pytest.raises(DrkitError) as caught:
        make_place(str(home), protected.account, SystemClock())
    assert done
    assert done[0].lstat().st_uid == 0
    assert "chmod" not in f"{caught.value} {caught.value.hint}"


def test_a_socket_s_directory_exchanged_right_after_it_is_made(
    monkeypatch: pytest.MonkeyPatch, protected: Protected, home: Path, bait: Path
) -> None:
    done = exchange(monkeypatch, protected, bait)
    with pytest.raises((DrkitError, OSError)):
        ThrowawayServer(
            protected.cluster.binaries, base=str(home), account=protected.account
        )
    assert done
    assert done[0].lstat().st_uid == 0


@pytest.mark.parametrize(
    "name", ["pg_hba.conf", "postgresql.conf", "postgresql.auto.conf", "server.log"]
)
def test_a_file_of_a_scratch_instance_that_is_a_planted_link(
    protected: Protected, home: Path, vault: Path, name: str
) -> None:
    with restored_scratch(protected, home) as scratch:
        planted = Path(scratch.directory, name)
        planted.symlink_to(vault / "file")
        os.chown(planted, *protected.account[1:], follow_symlinks=False)
        with pytest.raises(DrkitError, match=f"can't write {planted}"):
            recover(scratch, protected)
    assert scratch.cleanup is not None
    assert scratch.cleanup.proven


def test_all_of_a_place_is_the_server_s_user_s(
    protected: Protected, home: Path
) -> None:
    """So that root has nothing there to give away, and to remove as that user."""
    with restored_scratch(protected, home) as scratch:
        recover(scratch, protected)
        every = [Path(scratch.directory), *Path(scratch.directory).rglob("*")]
        uids = {each.lstat().st_uid for each in every}
        assert uids == {protected.account.uid}
    assert scratch.cleanup is not None
    assert scratch.cleanup.proven
    assert os.listdir(home) == []


def test_left_overs_are_removed_as_whom_they_belong_to(
    protected: Protected, home: Path
) -> None:
    """Root's own directory does not go by the name of a dead run's."""
    place = make_place(str(home), protected.account, SystemClock())
    os.close(place.descriptor)  # as the kernel does when a run dies
    kept = home / "kept"
    kept.mkdir()
    (kept / "file").write_text(CONTENT)
    with acting_as(owner_for(protected.account)):
        os.rmdir(place.directory)
        kept.rename(place.directory)
    with pytest.raises(DrkitError, match="can't remove"):
        sweep_left_overs(str(home))
    assert Path(place.directory, "file").read_text() == CONTENT
