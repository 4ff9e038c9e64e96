"""Whose a file is."""

from __future__ import annotations

from typing import NamedTuple


class Owner(NamedTuple):
    """A user and a group, by their numbers."""

    uid: int
    gid: int
