"""What a drill report is made from: a cluster's evidence, its rules, its backups."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from drkit.errors import UsageError
from drkit.model.log import LogState
from drkit.model.standing import ChainState, ClusterEvidence, Standing
from drkit.operations.heads import log_standing
from drkit.repository.evidence import read_chain
from drkit.repository.heads import head_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from drkit.model.quarter import Quarter
    from drkit.model.standing import Rules
    from drkit.repository.evidence import Chain
    from drkit.repository.log_entries import LoggedEntry
    from drkit.repository.repository import Repository

Link = TypeVar("Link")


def gather_evidence(
    repository: Repository, rules: Rules, quarter: Quarter
) -> ClusterEvidence:
    """Read what a report on a quarter says of a cluster; needs no database.

    Backups, pins and proofs are those that the log has for the quarter's end, or for
    now while it runs: so a report of a past quarter is the same whenever it is made.
    What is wrong with the chain of evidence, or with the log that names its records, is
    told; each record that is returned has a signature that the policy trusts, and is of
    the time that it says.

    Raises:
        UsageError: the quarter has not begun.
        RepositoryMissing: this cluster was never set up here.
        Corrupt: the log is damaged.
    """
    now = repository.clock.now()
    if now <= quarter.begin:
        raise UsageError(
            f"{quarter} has not begun", hint="give a quarter that has, such as 2026-Q1"
        )
    alarms = log_standing(repository).alarms
    chain = read_chain(repository)
    told = tuple(alarm.message for alarm in alarms)
    chain = chain._replace(problems=(*told, *chain.problems))
    wrong = {one.sequence for one in chain.misdated}
    records = (one.record for one in chain.records)
    return ClusterEvidence(
        standing=_standing(repository, rules, quarter, chain),
        records=tuple(one for one in records if one.sequence not in wrong),
        digests={one.record.sequence: one.digest for one in chain.records},
    )


def _standing(
    repository: Repository, rules: Rules, quarter: Quarter, chain: Chain
) -> Standing:
    state = _state_before(repository, quarter.end)
    opened = repository.log.state.opened
    if opened is None:
        raise ValueError("a log that was read has an owner")
    return Standing(
        cluster=repository.layout.cluster,
        system_identifier=opened.system_identifier,
        repository=repository.storage.url,
        as_of=min(repository.clock.now(), quarter.end),
        rules=rules,
        backups=tuple(commit.backup for commit in state.backups.values()),
        proven={label: one.verified_at for label, one in state.proven.items()},
        pinned=frozenset(state.pins),
        chain=_chain_state(chain, quarter),
        opened=repository.log.entries[0].time,
        log_head=str(head_of(_entries_before(repository, quarter.end)) or ""),
    )


def _chain_state(chain: Chain, quarter: Quarter) -> ChainState:
    """Return the chain as it was at a quarter's end, with all that is wrong today.

    Records that say they are of the quarter, or were stored in it, and are not of their
    time, are told; those of other quarters are those quarters' matter.
    """
    wrong = {one.sequence: one.stored for one in chain.misdated}
    records = [one.record for one in chain.records]
    times = [wrong.get(one.sequence, one.started) for one in records]
    past = _before(chain.records, times, quarter.end)
    signers = sorted({one.signer for one in past})
    head = past[-1].digest if past else ""
    said = {one.sequence: one.finished for one in records}
    misdated = (
        one.why
        for one in chain.misdated
        if one.stored in quarter or said[one.sequence] in quarter
    )
    return ChainState(len(past), head, tuple(signers), (*chain.problems, *misdated))


def _state_before(repository: Repository, end: datetime) -> LogState:
    """Return what the log said at a quarter's end."""
    state = LogState()
    for logged in _entries_before(repository, end):
        state.apply(logged.entry)
    return state


def _entries_before(repository: Repository, end: datetime) -> Sequence[LoggedEntry]:
    entries = repository.log.entries
    return _before(entries, [one.time for one in entries], end)


def _before(
    links: Sequence[Link], times: Sequence[datetime], end: datetime
) -> Sequence[Link]:
    """Return what a chain held before a moment.

    Clocks of hosts differ, so a link counts if it, or any behind it, is from before.
    """
    past = [place for place, time in enumerate(times, 1) if time < end]
    return links[: max(past, default=0)]
