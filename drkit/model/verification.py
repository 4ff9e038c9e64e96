"""What a verification that restores does and what it asks of the restored cluster."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal  # noqa: TC003  policies are checked by these types
from enum import StrEnum
from typing import TYPE_CHECKING

from drkit.model.fingerprint import Mode

if TYPE_CHECKING:
    from collections.abc import Iterable

    from drkit.model.evidence import Check


class Choice(StrEnum):
    """Which backup is restored, and to what moment.

    LATEST: the newest backup, and all WAL there is.
    RANDOM_BACKUP: any backup, to the moment of its fingerprint or its end.
    RANDOM_MOMENT: any moment that can be recovered.
    """

    LATEST = "latest"
    RANDOM_BACKUP = "random-backup"
    RANDOM_MOMENT = "random-moment"


class CheckName(StrEnum):
    """The kinds of checks that a policy asks for."""

    PAGES = "pages"
    ROWS = "rows"
    AMCHECK = "amcheck"
    FINGERPRINT = "fingerprint"
    ASSERTIONS = "assertions"
    WRITE = "write"
    HEARTBEAT = "heartbeat"


IDENTITY = "identity"
"""The check that the right server answers: always made, whatever a policy says."""


class Comparison(StrEnum):
    """How the value that was found is held against the expected one."""

    EQUALS = "equals"
    AT_LEAST = "at_least"
    AT_MOST = "at_most"


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far a number may miss the expected one: by itself, or in percent of that."""

    amount: Decimal
    percent: bool = False

    def margin(self, expected: Decimal) -> Decimal:
        """Return the margin around an expected number; never negative."""
        return abs(expected) * self.amount / 100 if self.percent else self.amount

    def __str__(self) -> str:
        return f"{self.amount:f}{' %' if self.percent else ''}"


@dataclass(frozen=True, slots=True)
class Assertion:
    """A statement of the policy's, and the value that it must return.

    Attributes:
        database: None for the one that the policy's URL names.
        sql: one statement that returns one row of one column; it runs read-only.
        expected: in the text form that SQL has for it.
        timeout: of the statement.
    """

    name: str
    sql: str
    comparison: Comparison
    expected: str
    database: str | None = None
    tolerance: Tolerance | None = None
    timeout: timedelta = timedelta(minutes=10)

    @property
    def check(self) -> str:
        """The name of its check in a record."""
        return f"assertion: {self.name}"


@dataclass(frozen=True, slots=True)
class TimestampAuthority:
    """Who stamps records of evidence with the time.

    Attributes:
        authority: URL that it is asked at.
        roots: path of the certificates that its stamps are held against, in PEM.
    """

    authority: str
    roots: str


@dataclass(frozen=True, slots=True)
class VerificationRules:
    """How a policy wants its backups verified.

    Attributes:
        directory: where scratch instances are made; None: /var/tmp.
        jobs: threads and processes at a time.
        time_limit: of a whole verification.
        memory: that the scratch instance may take; bytes.
        max_size: of a restored data directory; larger ones are refused. Bytes.
        fingerprint: what a backup takes of the cluster; None: nothing.
        choose: in turn.
        checks: that are made.
        allow_missing: of these, those that a verification passes without, where they
            can't be made. Each that is not made is a deviation in the record.
        every: how often a verification is due; None: nobody promised.
        timestamps: who stamps records of evidence; None: nobody does.
    """

    jobs: int = 1
    directory: str | None = None
    time_limit: timedelta = timedelta(hours=4)
    memory: int = 1 << 30
    max_size: int | None = None
    fingerprint: Mode | None = Mode.SAMPLED
    choose: tuple[Choice, ...] = tuple(Choice)
    checks: frozenset[CheckName] = frozenset(CheckName)
    allow_missing: frozenset[CheckName] = frozenset(
        {CheckName.AMCHECK, CheckName.FINGERPRINT, CheckName.HEARTBEAT}
    )
    assertions: tuple[Assertion, ...] = field(default=())
    every: timedelta | None = None
    timestamps: TimestampAuthority | None = None

    def accepts(self, checks: Iterable[Check]) -> bool:
        """Say whether checks prove the restore, as this policy wants it proven.

        None failed; those not done may be missing; none is left out without a word;
        and the right server answered.
        """
        made = list(checks)
        identified = any(check.name == IDENTITY for check in made)
        told = {kind_of(check.name) for check in made} >= self._needed()
        return identified and told and all(self._accepts(check) for check in made)

    def _needed(self) -> frozenset[CheckName]:
        """Return the checks that each verification tells of; a heartbeat may be none's.

        Only where data would have been lost does the age of a heartbeat say something.
        """
        none = {CheckName.HEARTBEAT}
        if not self.assertions:
            none.add(CheckName.ASSERTIONS)
        return self.checks - self.allow_missing - none

    def _accepts(self, check: Check) -> bool:
        if check.made:
            return check.passed
        return kind_of(check.name) in self.allow_missing


def kind_of(check: str) -> CheckName | None:
    """Return what kind of check bears a name; None for those no policy names."""
    word = check.partition(":")[0]
    if word == "assertion":
        return CheckName.ASSERTIONS
    return CheckName(word) if word in set(CheckName) else None
