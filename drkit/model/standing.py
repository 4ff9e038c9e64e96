"""What stands behind a cluster's evidence: promises, rules, backups, signatures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from drkit.model.backup import BackupSummary
    from drkit.model.evidence import Record
    from drkit.model.objectives import Objectives
    from drkit.model.retention import Retention
    from drkit.model.schedule import Every, Schedule


@dataclass(frozen=True, slots=True)
class ChainState:
    """Whether a chain of evidence is whole, signed by trusted keys and in order.

    Attributes:
        records: how many there were at the moment that is told of.
        head: SHA-256 of the newest one's envelope, in hex; empty if there was none.
        signers: public keys that signed them, as policies write them.
        problems: what is wrong with it today, each a sentence; empty if it is sound.
    """

    records: int
    head: str
    signers: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong with it."""
        return not self.problems


@dataclass(frozen=True, slots=True)
class Rules:
    """What a policy promises and rules, as its file says.

    Attributes:
        backups: when each kind of backup is due.
        verification: when a backup is to be verified by restoring; None: not scheduled.
        configuration: SHA-256 of the policy file.
        trusted: public keys whose signatures count, as policies write them.
    """

    objectives: Objectives
    retention: Retention
    backups: Mapping[str, Schedule]
    verification: Schedule | Every | None
    timezone: str
    configuration: str
    trusted: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Standing:
    """A cluster at a moment: its rules, its backups and the state of its evidence.

    Attributes:
        as_of: that moment; what happened later is left out.
        opened: when the cluster was set up in its repository.
        backups: that were in force then, oldest first.
        proven: by label, when a verification last restored a backup.
        log_head: the newest log entry then, as its number and digest; a report that is
            kept elsewhere shows that a repository was put back to an older state.
    """

    cluster: str
    system_identifier: str
    repository: str
    as_of: datetime
    rules: Rules
    backups: tuple[BackupSummary, ...]
    proven: Mapping[str, datetime]
    pinned: frozenset[str]
    chain: ChainState
    opened: datetime | None = None
    log_head: str = ""


@dataclass(frozen=True, slots=True)
class ClusterEvidence:
    """A cluster's records of all time, in the order of their chain.

    Attributes:
        digests: SHA-256 of each record's envelope, in hex, by its sequence.
    """

    standing: Standing
    records: tuple[Record, ...]
    digests: Mapping[int, str]
