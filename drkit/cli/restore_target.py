"""From the `--target-*` options to a recovery target."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from drkit.errors import UsageError
from drkit.model.lsn import Lsn
from drkit.model.recovery import RecoveryTarget, TargetAction, TargetKind

if TYPE_CHECKING:
    from collections.abc import Callable

_FIRST_XID = 3  # 0 to 2 are PostgreSQL's own: access/transam.h
_XID_BITS = 64
_SHORT_XID = (1 << 32) - 1  # what WAL holds of a transaction id
_MAX_NAME = 63  # bytes: MAXFNAMELEN in access/xlog_internal.h
_MAX_TIMELINE = (1 << 31) - 1


@dataclass(frozen=True, slots=True)
class TargetOptions:
    """The options as they were typed."""

    time: str | None = None
    lsn: str | None = None
    xid: int | None = None
    name: str | None = None
    immediate: bool = False
    timeline: str | None = None
    action: TargetAction | None = None
    exclusive: bool = False

    def given(self) -> list[str]:
        """Return the target options that were given."""
        values = {
            "--target-time": self.time,
            "--target-lsn": self.lsn,
            "--target-xid": self.xid,
            "--target-name": self.name,
            "--target-immediate": self.immediate or None,
        }
        return [option for option, value in values.items() if value is not None]

    def check(self) -> None:
        """Refuse options that contradict each other or can't be read.

        Raises:
            UsageError: says which.
        """
        given = self.given()
        if len(given) > 1:
            raise UsageError(
                f"{' and '.join(given)} are two targets; recovery stops at one",
                hint="give one of them",
            )
        if self.action is not None and not given:
            raise UsageError(
                "--target-action needs a target; without one recovery goes to the end "
                "of the archived WAL and promotes",
                hint="give --target-time or another target",
            )
        if self.exclusive and given not in (
            ["--target-time"],
            ["--target-lsn"],
            ["--target-xid"],
        ):
            raise UsageError(
                "--exclusive goes with --target-time, --target-lsn or --target-xid"
            )
        read_target(self, lambda: 1)

    def note(self) -> str | None:
        """Return what to tell about a time that was given without an offset."""
        if self.time is None or _parse_time(self.time).tzinfo is not None:
            return None
        meant = _with_offset(_parse_time(self.time)).isoformat(sep=" ")
        return (
            f"--target-time {self.time} has no offset; it is taken as this host's "
            f"local time, {meant}"
        )


def read_target(
    options: TargetOptions, own_timeline: Callable[[], int]
) -> RecoveryTarget:
    """Return the recovery target.

    Args:
        own_timeline: finds the timeline of the backup, for `current`.

    Raises:
        UsageError: an option can't be read.
    """
    timeline = _timeline(options.timeline, own_timeline)
    inclusive = not options.exclusive
    action = options.action or TargetAction.PROMOTE
    kind = _kind(options)
    return RecoveryTarget(
        kind=kind,
        time=None if options.time is None else _with_offset(_parse_time(options.time)),
        lsn=None if options.lsn is None else _parse_lsn(options.lsn),
        xid=None if options.xid is None else _check_xid(options.xid),
        name=None if options.name is None else _check_name(options.name),
        timeline=timeline,
        inclusive=inclusive,
        action=action,
    )


def _kind(options: TargetOptions) -> TargetKind:
    kinds = {
        "--target-time": TargetKind.TIME,
        "--target-lsn": TargetKind.LSN,
        "--target-xid": TargetKind.XID,
        "--target-name": TargetKind.NAME,
        "--target-immediate": TargetKind.IMMEDIATE,
    }
    given = options.given()
    return kinds[given[0]] if given else TargetKind.LATEST


def _parse_time(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text.strip())
    except ValueError:
        raise UsageError(
            f"--target-time {text!r} is no time drkit can read",
            hint="write it as '2026-01-15 10:30:00+01:00', or with Z for UTC",
        ) from None


def _with_offset(time: datetime) -> datetime:
    """Give a time without an offset this host's, unless clocks were changed then."""
    if time.tzinfo is not None:
        return time
    first, second = (time.replace(fold=fold).astimezone() for fold in (0, 1))
    if first.utcoffset() != second.utcoffset():
        raise UsageError(
            f"clocks were changed here at {time.isoformat(sep=' ')}, so that time is "
            "not one moment",
            hint=f"give the offset as well: {first.isoformat(sep=' ')} or "
            f"{second.isoformat(sep=' ')}",
        )
    return first


def _parse_lsn(text: str) -> Lsn:
    try:
        return Lsn.parse(text)
    except ValueError as error:
        raise UsageError(f"--target-lsn: {error}") from None


def _check_xid(xid: int) -> int:
    """Return what WAL holds of a transaction id: PostgreSQL ignores its epoch too."""
    short = xid & _SHORT_XID
    if xid >> _XID_BITS or short < _FIRST_XID:
        raise UsageError(
            f"--target-xid {xid} is no transaction id",
            hint="pg_current_xact_id() gives such a number",
        )
    return short


def _check_name(name: str) -> str:
    if not name or len(name.encode()) > _MAX_NAME:
        raise UsageError(f"--target-name is empty or longer than {_MAX_NAME} bytes")
    return name


def _timeline(text: str | None, own: Callable[[], int]) -> int | None:
    if text is None or text == "latest":
        return None
    if text == "current":
        return own()
    if text.isascii() and text.isdecimal() and 0 < int(text) <= _MAX_TIMELINE:
        return int(text)
    raise UsageError(
        f"--target-timeline {text} is no timeline",
        hint="give latest, current, or a number as `drkit wal status` shows it",
    )
