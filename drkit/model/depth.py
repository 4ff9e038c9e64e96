"""How far a verification goes."""

from __future__ import annotations

from enum import StrEnum


class Depth(StrEnum):
    """How far a verification goes; each includes the one before.

    RESTORE comes with a later version.
    """

    OBJECTS = "objects"
    DATA = "data"
    RESTORE = "restore"
