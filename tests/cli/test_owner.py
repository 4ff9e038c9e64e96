"""Whose a cluster becomes that root restores."""

from __future__ import annotations

import os
import pwd
from typing import TYPE_CHECKING

from drkit.cli.owner import target_owner
from drkit.model.owner import Owner
from tests.pg import give_to

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from drkit.postgres.process import Account


def test_owner(make_directory: Callable[[], Path], postgres_user: Account) -> None:
    """The target's owner counts first, then the data directory's, then theirs above."""
    theirs = make_directory()
    target = theirs / "restored"
    owner = Owner(postgres_user.uid, postgres_user.gid)
    if os.geteuid() != 0:
        assert target_owner(str(theirs), None) is None
        return
    assert target_owner(str(theirs), None) == owner
    assert target_owner(str(target), None) == owner
    assert target_owner("/nonexistent/target", str(theirs)) == owner
    assert target_owner("/nonexistent/target", str(theirs / "gone")) == owner
    other = make_directory()
    os.chown(other, 12345, 23456)
    assert target_owner(str(other), str(theirs)) == Owner(12345, 23456)
    give_to(postgres_user, other)
    expected = Owner(*pwd.getpwnam("postgres")[2:4])
    assert target_owner("/nonexistent/target", None) == expected
