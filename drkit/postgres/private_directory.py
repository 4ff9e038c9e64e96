"""Directories that are the server's user's alone, also where root makes them."""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING

from drkit.errors import DrkitError
from drkit.model.owner import Owner
from drkit.ownership import acting_as, make_directory, reach_directory

if TYPE_CHECKING:
    from drkit.postgres.process import Account

_MAX_SOCKET_PATH = 107


def owner_for(account: Account) -> Owner:
    """Return whom root acts as in what belongs to a server's user."""
    return Owner(account.uid, account.gid)


def make_private_directory(name: str, parent: int, account: Account) -> None:
    """Make a new directory of mode 0700 that is the user's, in an open directory.

    Root gives it away where the parent is its own. In one of the user's, who could put
    another into its place at any moment, it makes it as that user: then it has
    nothing to give.

    Raises:
        OSError: it can't be made, or something else took its place.
    """
    owner = owner_for(account)
    theirs = os.fstat(parent).st_uid == account.uid
    with acting_as(owner if theirs else None):
        opened = make_directory(parent, name, 0o700)
    try:
        if not theirs and account.uid != os.geteuid():
            os.fchown(opened, *owner)
    finally:
        os.close(opened)


def make_socket_directory(base: str, account: Account, socket: str) -> str:
    """Make a private directory for a server's socket, of a name that nobody can guess.

    Args:
        base: where; a directory that only root and the user can exchange.
        socket: the socket's name.

    Raises:
        DrkitError: the socket's path would be too long, or others could exchange
            `base`.
        OSError: it can't be made, or something else took its place.
    """
    name = f"drkit-{secrets.token_hex(4)}"
    directory = os.path.join(base, name)
    if len(os.fsencode(f"{directory}/{socket}")) > _MAX_SOCKET_PATH:
        raise DrkitError(
            f"{base} is too long a path for a server's socket",
            hint=f"a socket's path may have {_MAX_SOCKET_PATH} bytes; use /tmp",
        )
    parent = reach_directory(os.path.abspath(base), owner_for(account), 0o700)
    try:
        make_private_directory(name, parent, account)
    finally:
        os.close(parent)
    return directory
