"""A fingerprint: what a cluster held at one moment, to compare a restored one with.

It is of a physical copy: object identifiers and raw catalog rows are the same on both
sides, so a definition is compared as a digest of its catalog row. Digests are sums of
row hashes, which no order of rows changes. They find what goes wrong by itself; against
a forger the repository's own authentication stands.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from datetime import datetime

    from drkit.model.lsn import Lsn

Attributes = Mapping[str, str]
Facts = Mapping[str, Mapping[str, Attributes]]
"""By section and object: its attributes, as text."""

Unstable = frozenset[tuple[str, str]]
"""Sections and objects that changed while the fingerprint was taken."""


class Mode(StrEnum):
    """What is read of tables.

    SAMPLED: chosen blocks of each; small tables whole. Writers are not held up.
    EXACT: every row; writers are held up for a moment.
    """

    SAMPLED = "sampled"
    EXACT = "exact"


class FingerprintPlace(NamedTuple):
    """What a listing knows of a backup's fingerprint.

    Attributes:
        lsn: the moment that it is of; comparing with it takes the WAL up to there.
    """

    mode: Mode
    lsn: Lsn


class FingerprintRef(NamedTuple):
    """A stored fingerprint, as the manifest of its backup names it.

    Attributes:
        size, sha256: of the stored object.
        lsn, restore_point: the moment that it is of; a standby can't name one.
    """

    name: str
    size: int
    sha256: str
    mode: Mode
    lsn: Lsn
    restore_point: str | None

    @property
    def place(self) -> FingerprintPlace:
        """What listings show of it."""
        return FingerprintPlace(self.mode, self.lsn)


@dataclass(frozen=True, slots=True)
class Content:
    """The rows of one table, or of the blocks of it that were chosen.

    Attributes:
        rows: how many were read.
        digest: 32 hex digits: two sums of 64-bit hashes of the rows.
        percent: of the blocks that were chosen; 100 is the whole table. It is also the
            chance that a single changed row is seen.
        skipped: chosen blocks that changed while the fingerprint was taken, ascending;
            their rows count nowhere.
    """

    rows: int
    digest: str
    percent: float = 100.0
    skipped: tuple[int, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether every row is in it."""
        return self.percent == 100 and not self.skipped


@dataclass(frozen=True, slots=True)
class SequenceState:
    """How far a sequence had come; a sequence obeys no transaction.

    Attributes:
        reached, until: the last value given out, before and after the fingerprint's
            moment; one increment less than the start where none was.
        cache: values that one session takes at a time.
    """

    reached: int
    until: int
    increment: int
    cache: int
    cycle: bool


@dataclass(frozen=True, slots=True)
class DatabaseFingerprint:
    """One database.

    Attributes:
        facts: what the catalogs say, by section and object.
        tables: content by qualified, quoted name.
        unread: tables, or sections of the catalogs, whose content is not in it, and
            why.
    """

    name: str
    facts: Facts
    tables: Mapping[str, Content]
    sequences: Mapping[str, SequenceState]
    unread: Mapping[str, str] = field(default_factory=dict)
    unstable: Unstable = frozenset()


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What a cluster held at one moment.

    Attributes:
        lsn: the moment; recovery that ends there, or at `restore_point`, reaches it.
        restore_point: None on a standby, where none can be made.
        seed: of the choice of blocks.
        facts: what belongs to no database: roles, tablespaces, settings, …
        unread: databases that could not be read, sections likewise, and why.
        held_seconds: how long writers were held up at most; 0 where they were not.
        limits: what it can't prove, each a sentence.
    """

    mode: Mode
    taken_at: datetime
    lsn: str
    restore_point: str | None
    seed: int
    facts: Facts
    databases: tuple[DatabaseFingerprint, ...]
    unread: Mapping[str, str] = field(default_factory=dict)
    unstable: Unstable = frozenset()
    held_seconds: float = 0.0
    limits: tuple[str, ...] = ()

    def database(self, name: str) -> DatabaseFingerprint | None:
        """Return the fingerprint of one database, None where there is none."""
        return next((one for one in self.databases if one.name == name), None)
