"""Whoever runs drkit as the wrong user is told the right one."""

from __future__ import annotations

import os
import pwd
from typing import TYPE_CHECKING

import pytest

from drkit.config.discovery import find_policies, read_policy_file
from drkit.config.secrets import SecretReference
from drkit.errors import DrkitError
from drkit.postgres.control import read_control
from drkit.rights import run_as_owner, user_name
from drkit.storage.local import LocalStorage
from tests.pg import give_to
from tests.storage.localtools import only_root, unprivileged

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from drkit.postgres.process import Account

USES: dict[str, Callable[[Path], object]] = {
    "key": lambda path: SecretReference.parse(f"file:{path}").resolve({}),
    "policy": lambda path: read_policy_file(str(path)),
    "policies": lambda path: find_policies([str(path.parent)]),
    "repository": lambda path: LocalStorage(str(path.parent)).get("file"),
    "control file": lambda path: read_control(str(path)),
}


@pytest.fixture
def closed(make_directory: Callable[[], Path], postgres_user: Account) -> Path:
    """A file of the server's user in a directory that is closed to others."""
    directory = make_directory() / "closed"
    directory.mkdir(mode=0o700)
    (directory / "file").write_text("x")
    give_to(postgres_user, directory)
    return directory / "file"


@only_root
@pytest.mark.parametrize("use", USES)
def test_the_user_to_run_as_is_named(
    closed: Path, postgres_user: Account, use: str
) -> None:
    name = pwd.getpwuid(postgres_user.uid).pw_name
    with unprivileged(), pytest.raises(DrkitError) as caught:
        USES[use](closed)
    hint = caught.value.hint or ""
    assert f"{closed.parent} belongs to {name}; " in hint
    assert f"sudo -u {name} drkit" in hint


def test_ones_own_file_with_a_wrong_mode(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch(0o000)
    me = user_name(os.geteuid())
    told = f"{path} is {me}'s own, but its mode is 0000"
    assert run_as_owner(str(path)) == told


def test_a_user_without_a_name_is_told_as_sudo_takes_it() -> None:
    assert user_name(54321) == "'#54321'"
