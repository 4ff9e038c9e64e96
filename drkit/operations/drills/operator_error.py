"""A destructive statement was committed: recovery to just before it.

Nothing is destroyed for the drill. One of the last transactions in the archived WAL
plays the statement: recovery stops before its commit, and the server itself says
afterwards that this transaction is not there, and that the one before it is.
"""

from __future__ import annotations

from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from drkit.errors import TargetUnreachable
from drkit.model.evidence import Check, CheckState
from drkit.model.lsn import Lsn
from drkit.model.recovery import RecoveryTarget, TargetKind
from drkit.operations.choice import ArchivedWal, choose
from drkit.operations.stage import Aim
from drkit.postgres.walrecords import EventKind

if TYPE_CHECKING:
    from drkit.operations.choice import Choice
    from drkit.operations.scratch.instance import Recovered, Scratch
    from drkit.operations.stage import Stage
    from drkit.postgres.walrecords import WalEvent
    from drkit.repository.repository import Repository

NAME = "operator-error"
SUMMARY = "A destructive statement was committed: recover to just before it."

_LOOK_BACK = 16  # segments; a statement is noticed soon, or nobody knows when it was
_XIDS = 1 << 32


class _Statement(NamedTuple):
    """The transaction that plays the destructive statement, and the one before it."""

    commit: WalEvent
    before: WalEvent | None


def aim(stage: Stage) -> Aim:
    """Find the transaction in the WAL, and aim at the LSN where its commit begins."""
    repository = stage.repository
    with stage.watch.phase("detect"):
        choice = choose(repository, None, RecoveryTarget())
        statement = _find(repository, choice)
    with stage.watch.phase("decide"):
        event = statement.commit
        target = RecoveryTarget(
            TargetKind.LSN,
            lsn=event.lsn,
            timeline=choice.history.timeline,
            inclusive=False,
        )
        label = choose(repository, None, target).commit.backup.label
    chosen = f"just before transaction {event.xid}, committed at {event.time}"
    proofs = partial(_prove, statement)
    return Aim(repository, label, target, chosen, event.time, proofs)


def _find(repository: Repository, choice: Choice) -> _Statement:
    """Return the last transaction that can be undone.

    Raises:
        TargetUnreachable: none was archived since the newest backup's end.
    """
    backup = choice.commit.backup
    segments = choice.reach.segments[-_LOOK_BACK:]
    commits = [
        event
        for event in ArchivedWal(repository).events(segments, backup.wal_segment_size)
        if event.kind is EventKind.COMMIT
        and backup.stop_lsn < event.lsn < choice.reach.end
    ]
    if not commits:
        raise TargetUnreachable(
            f"no transaction was archived since backup {backup.label} ended, so there "
            "is none to undo",
            hint="the heartbeat makes one each time: drkit heartbeat",
        )
    return _Statement(commits[-1], commits[-2] if len(commits) > 1 else None)


def _prove(
    statement: _Statement, scratch: Scratch, recovered: Recovered
) -> tuple[Check, ...]:
    """Ask the recovered server what became of both transactions."""
    with closing(scratch.connect()) as connection:
        next_xid = int(connection.query("SELECT pg_current_xact_id()::text")[0][0])

        def status(event: WalEvent) -> str | None:
            full = _full_xid(event.xid, next_xid)
            if full >= next_xid:
                return None  # the server has never heard of it
            asked = "SELECT pg_xact_status(%s::text::xid8)"
            found: str | None = connection.query(asked, (str(full),))[0][0]
            return found

        undone = _undone(statement.commit, status(statement.commit), recovered)
        if statement.before is None:
            return (undone,)
        return (undone, _kept(statement.before, status(statement.before)))


def _undone(event: WalEvent, status: str | None, recovered: Recovered) -> Check:
    reached = recovered.reached_lsn
    # Where a server stops before a record, its log names that record.
    stopped = reached is None or Lsn.parse(reached) <= event.lsn
    good = status != "committed" and stopped
    detail = (
        f"transaction {event.xid} is {status or 'unknown'}; replay ended at {reached}, "
        f"its commit was at {event.lsn}"
    )
    state = CheckState.PASSED if good else CheckState.FAILED
    return Check("undone", state, detail, 0.0, 1)


def _kept(event: WalEvent, status: str | None) -> Check:
    state = CheckState.PASSED if status == "committed" else CheckState.FAILED
    detail = f"transaction {event.xid}, the one before, is {status or 'unknown'}"
    return Check("kept", state, detail, 0.0, 1)


def _full_xid(xid: int, next_xid: int) -> int:
    """Return the 64 bits of a transaction id that is near the next one."""
    full = next_xid - next_xid % _XIDS + xid
    return full - _XIDS if full > next_xid + _XIDS // 2 and full >= _XIDS else full
