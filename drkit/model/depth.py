"""How far a verification goes."""

from __future__ import annotations

from enum import StrEnum


class Depth(StrEnum):
    """How far a verification goes.

    OBJECTS: everything is there. DATA: and is what was stored. RESTORE: one backup at
    one moment, restored, replayed and looked at.
    """

    OBJECTS = "objects"
    DATA = "data"
    RESTORE = "restore"
