"""Directories of a data directory that forbid their owner to write, restored."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from drkit.operations.scratch.places import remove_tree
from drkit.postgres.target_checks import MARKER
from tests.operations.backup_tools import site
from tests.pg import give_to
from tests.protect import NAME
from tests.storage.localtools import unprivileged

if TYPE_CHECKING:
    from tests.operations.scene import Scene
    from tests.protect import Protected

MODES = {"certs": 0o500, "shared": 0o555, "shared/below": 0o555, "shared/open": 0o755}


def _close_up(data: Path) -> None:
    """Make directories as a site might, each with a file in it."""
    for name in MODES:
        (data / name).mkdir()
        (data / name / "file").write_text(name)
        (data / name / "file").chmod(0o400)
    for name, mode in sorted(MODES.items(), reverse=True):
        (data / name).chmod(mode)


def _modes(data: Path) -> dict[str, int]:
    return {name: stat.S_IMODE((data / name).stat().st_mode) for name in MODES}


def _restore(protected: Protected, target: Path, *options: str) -> None:
    """Restore as the server's user, whom modes bind."""
    words: tuple[str | Path, ...] = ("restore", NAME, *options, "--to", target)
    done = protected.drkit(*words, account=protected.account)
    assert done.returncode == 0, done.stderr.decode()
    assert _modes(target) == MODES
    for name in MODES:
        assert (target / name / "file").read_text() == name
    assert not (target / MARKER).exists()


@pytest.fixture
def protected(pg_version: int, scene: Scene) -> Protected:
    made = scene.protect(pg_version)
    data = Path(made.cluster.data_directory)
    _close_up(data)
    for name in MODES:
        give_to(made.account, data / name)
    site(made).take()
    made.archive_now()
    return made


def test_they_come_back_and_what_did_not_end_is_done_again(
    protected: Protected, scene: Scene
) -> None:
    target = scene.target()
    _restore(protected, target)
    # Killed at the very end: all is there, but the mark that it is not complete.
    (target / MARKER).write_text('{"tablespaces": []}')
    give_to(protected.account, target / MARKER)
    _restore(protected, target)
    served = scene.start(target, protected.cluster.binaries.major)
    assert served.sql("SELECT 1") == 1


def test_a_restore_in_place(protected: Protected, scene: Scene) -> None:
    target = scene.target()
    _restore(protected, target)
    (target / "certs").chmod(0o700)
    (target / "certs/surplus").mkdir()
    (target / "certs/surplus/file").write_text("x")
    (target / "certs/surplus").chmod(0o555)
    (target / "certs/file").unlink()
    (target / "certs").chmod(0o500)
    (target / "shared/below").chmod(0o777)
    give_to(protected.account, target / "certs")
    _restore(protected, target, "--delta")
    assert os.listdir(target / "certs") == ["file"]


def test_a_scratch_directory_goes_with_all_that_is_in_it(scene: Scene) -> None:
    place = scene.directory()
    place.chmod(0o777)
    with unprivileged():
        data = place / "data"
        data.mkdir()
        _close_up(data)
        (data / "closed").mkdir(0)
        (data / "link").symlink_to("/etc")
        remove_tree(str(data))
    assert os.listdir(place) == []
    assert Path("/etc/passwd").exists()
