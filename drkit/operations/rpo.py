"""How old recovered data is, by the heartbeat that came back with it.

That is a row that came through backup, WAL and recovery like all others.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from drkit.model.duration import format_duration
from drkit.model.evidence import Check, CheckState, Measure

if TYPE_CHECKING:
    from datetime import datetime

    from drkit.postgres.heartbeat import Beat

CHECK = "heartbeat"
_CLOCKS_APART = timedelta(seconds=5)
_ITS_OWN_COMMIT = timedelta(seconds=1)  # a last commit so close may be the heartbeat's
_AHEAD = "the clocks are apart, or recovery went too far"


def allowed_age(every: timedelta) -> timedelta:
    """Return how old a heartbeat may be that is written in time: timers are late."""
    return 2 * every + _CLOCKS_APART


def measure_rpo(
    found: Beat | None,
    last_commit: datetime | None,
    disaster: datetime,
    target: float | None,
    every: timedelta | None,
) -> Measure:
    """Return how old the recovered data was at the moment of the disaster.

    The figure never flatters: it is the age of the newest heartbeat that came back,
    also where later commits did. Without a heartbeat it is that of the last commit.

    Args:
        found: the heartbeat in the recovered cluster.
        last_commit: time of the last transaction that was replayed.
        disaster: when the cluster is taken to have been lost.
        target: the objective, in seconds.
        every: how often a heartbeat is due.
    """
    newest = found.written_at if found is not None else last_commit
    if newest is None:
        why = (
            "neither a heartbeat nor any commit came back, so nothing tells how old "
            "the data is; `drkit heartbeat POLICY --create` sets a heartbeat up"
        )
        return Measure(target, None, why)
    what = "the newest heartbeat" if found is not None else "the last commit"
    if newest - disaster > _CLOCKS_APART:
        later = f"{what} that came back is {_told(newest - disaster)} later"
        return Measure(target, None, f"{later} than the disaster: {_AHEAD}")
    measured = max((disaster - newest).total_seconds(), 0.0)
    if found is None:
        meaning = (
            f"age of the last commit that came back, of {_shown(newest)}; there is no "
            "heartbeat, so an idle cluster makes this look worse than it is"
        )
    else:
        meaning = _meaning(found, last_commit, disaster, every)
    return Measure(target, measured, meaning)


def check_beat(
    found: Beat | None,
    disaster: datetime,
    every: timedelta | None,
    last_commit: datetime | None = None,
) -> Check:
    """Look whether the heartbeat that came back was kept up, so that its age counts.

    One that is older than its schedule allows fails; unless the last commit shows that
    it was up to date where recovery ended, and what came later is lost: that is what
    the RPO tells. Where nothing else was committed, neither can be told.

    Args:
        found, disaster, every: as for `measure_rpo`.
        last_commit: time of the last transaction that was replayed, if it is known.
    """
    if found is None:
        why = "no heartbeat came back; `drkit heartbeat POLICY --create` sets one up"
        return Check(CHECK, CheckState.NOT_DONE, why, 0.0)
    state, detail = _judged(found, disaster, every, last_commit)
    told = f"written at {_shown(found.written_at)} by {found.host}, {detail}"
    return Check(CHECK, state, told, 0.0, 1)


def _judged(
    found: Beat,
    disaster: datetime,
    every: timedelta | None,
    last_commit: datetime | None,
) -> tuple[CheckState, str]:
    age = disaster - found.written_at
    if age < -_CLOCKS_APART:
        return CheckState.FAILED, f"{_told(-age)} later than the disaster: {_AHEAD}"
    told = f"{_told(age)} before the disaster"
    if every is None:
        return CheckState.PASSED, told
    told += f"; one is due every {format_duration(every)}"
    if age <= allowed_age(every):
        return CheckState.PASSED, told
    state, why = _old(found, every, last_commit)
    return state, f"{told}: {why}"


def _old(
    found: Beat, every: timedelta, last_commit: datetime | None
) -> tuple[CheckState, str]:
    """Say what it means that a heartbeat is older than its schedule allows."""
    either = (
        "its writer had stopped, or what it wrote later is lost, so the data is at "
        "most that old"
    )
    if last_commit is None:
        return CheckState.FAILED, either
    behind = last_commit - found.written_at
    if behind > allowed_age(every):
        return CheckState.FAILED, (
            f"commits up to {_shown(last_commit)} came back, so its writer had "
            "stopped, and its age is no figure of what recovery lost"
        )
    if behind < _ITS_OWN_COMMIT:
        return CheckState.NOT_DONE, f"nothing was committed after it: {either}"
    return CheckState.PASSED, "it was up to date where recovery ended"


def _meaning(
    found: Beat,
    last_commit: datetime | None,
    disaster: datetime,
    every: timedelta | None,
) -> str:
    told = (
        "age at the disaster of the newest heartbeat that came back, written at "
        f"{_shown(found.written_at)} by the server's clock"
    )
    if every is None or disaster - found.written_at <= allowed_age(every):
        return told
    _, why = _old(found, every, last_commit)
    return f"{told}; one is due every {format_duration(every)}: {why}"


def _told(length: timedelta) -> str:
    return format_duration(max(length, timedelta(0)))


def _shown(moment: datetime) -> str:
    return moment.isoformat(" ", "seconds")
