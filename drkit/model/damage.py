"""What a verification found wrong, down to files, pages and the backups it touches."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


class DamageKind(StrEnum):
    """How an object was found.

    UNREADABLE: the store has it, but can't read it. PAGES: the object is as it was
    written, but pages in it fail their own checksum.
    """

    MISSING = "missing"
    SIZE = "size"
    CONTENT = "content"
    PAGES = "pages"
    KEY = "key"
    UNREADABLE = "unreadable"


class Place(NamedTuple):
    """A stretch of a file, `first` and `last` inclusive.

    Attributes:
        unit: `page`, counted in this file, or `byte`.
    """

    path: bytes
    unit: str
    first: int
    last: int


class PackPlace(NamedTuple):
    """A pack's place in its backup; frames as (first, last), through all its packs.

    Attributes:
        frames: those that were found damaged.
        lost: those that can't be relied on: of a pack that is not what its manifest
            says these are all, since a restore refuses it as a whole.
    """

    label: str
    attempt: str
    number: int
    frames: tuple[tuple[int, int], ...]
    lost: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Damage:
    """One object that is not as it was written.

    Attributes:
        name: the object's.
        what: what is wrong with it, as the rest of a sentence that its name begins.
        exit_code: of the error class that it belongs to.
        backup: label of the backup that it belongs to; None for WAL and other objects.
        needed: whether a restore needs the object.
        places: the content that is lost; empty for what is no pack.
        backups: labels of the live backups that can't be restored whole because of it.
    """

    name: str
    kind: DamageKind
    what: str
    exit_code: int
    backup: str | None = None
    pack: PackPlace | None = None
    places: tuple[Place, ...] = ()
    backups: tuple[str, ...] = ()
    needed: bool = True
