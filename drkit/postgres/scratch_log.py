"""What a recovering server tells in its log: when, how far, and why not further.

Sources of the messages: `src/backend/access/transam/xlog.c`, `xlogrecovery.c` and
`xlogarchive.c` of PostgreSQL 13 to 18, with `lc_messages` C and lines that begin with
seconds since the epoch.
"""

from __future__ import annotations

import contextlib
import re
from datetime import UTC, datetime
from typing import NamedTuple

from drkit.errors import DrkitError, PostgresRefused, TargetUnreachable, WalMissing

_LINE = re.compile(r"^(\d+\.\d+) (\w+):  (.*)$", re.MULTILINE)
_RESTORED = re.compile(r'restored log file "([0-9A-F]{24})" from archive')
_REDO_DONE = re.compile(r"redo done at ([0-9A-F]+/[0-9A-F]+)")
_LAST_COMMIT = re.compile(r"last completed transaction was at log time (.+)")
_PROGRESS = re.compile(r"redo in progress, .*current LSN: ([0-9A-F]+/[0-9A-F]+)")
_TABLESPACE = re.compile(r'for Tablespace/CREATE: (\d+) "(.*)"')
_INVALID = re.compile(
    r'(?:invalid value for parameter|unrecognized configuration parameter) "([^"]+)"'
)


class RecoveryLog(NamedTuple):
    """What a log says of one recovery; None where it does not tell.

    Attributes:
        redo_done: LSN of the last record that was replayed.
        last_commit: time of the last transaction that was replayed.
        segments: how many the restore_command brought, the newest in `last_segment`.
        progress: LSN that replay had come to when it was last told.
    """

    started: datetime | None
    redo_began: datetime | None
    redo_ended: datetime | None
    recovered: datetime | None
    ready: datetime | None
    redo_done: str | None
    last_commit: datetime | None
    segments: int
    last_segment: str | None
    progress: str | None

    @property
    def how_far(self) -> str:
        """Say in words how far the recovery has come."""
        if self.redo_ended is not None:
            return f"replay had ended at {self.redo_done}"
        if self.redo_began is None:
            return "replay had not begun"
        told = f"{self.segments} WAL segments were fetched"
        if self.last_segment is not None:
            told += f", the last was {self.last_segment}"
        return (
            told if self.progress is None else f"{told}; replay was at {self.progress}"
        )


def read_recovery_log(text: str) -> RecoveryLog:
    """Read the log of one start of a server."""
    segments = list(dict.fromkeys(_RESTORED.findall(text)))
    commit = _last(_LAST_COMMIT, text)
    return RecoveryLog(
        started=_when(text, "starting PostgreSQL"),
        redo_began=_when(text, "redo starts at"),
        redo_ended=_when(text, "redo done at"),
        recovered=_when(text, "archive recovery complete"),
        ready=_when(text, "database system is ready to accept connections"),
        redo_done=_last(_REDO_DONE, text),
        last_commit=None if commit is None else _moment(commit),
        segments=len(segments),
        last_segment=segments[-1] if segments else None,
        progress=_last(_PROGRESS, text),
    )


def recovery_error(text: str, directory: str, tail: str) -> DrkitError:
    """Return the error for a recovery that ended before its server was ready.

    Args:
        text: the whole log.
        directory: the data directory.
        tail: the end of the log, set off for a message.
    """
    tablespace = _TABLESPACE.search(text)
    if tablespace is not None:
        return _tablespace_error(tablespace[1], tablespace[2], tail)
    for pattern, kind, what, hint in _REASONS:
        found = re.search(pattern, text)
        if found is not None:
            told = what.format(*found.groups())
            return kind(f"recovery in {directory} failed: {told}{tail}", hint=hint)
    return PostgresRefused(
        f"the server in {directory} ended before it had recovered{tail}",
        hint="the end of its log says why",
    )


def rejected_settings(text: str) -> set[str]:
    """Return the settings that a server refuses, by what it printed."""
    return {name.lower() for name in _INVALID.findall(text)}


_REASONS: tuple[tuple[str, type[DrkitError], str, str], ...] = (
    (
        r"recovery ended before configured recovery target was reached",
        TargetUnreachable,
        "WAL ended before the recovery target was reached",
        "choose an earlier target; `drkit info` shows what can be reached",
    ),
    (
        r"requested timeline (\d+) (?:is not a child|does not contain)",
        TargetUnreachable,
        "timeline {} does not lead on from this backup",
        "choose another timeline, or a backup of that timeline",
    ),
    (
        r"WAL ends before (?:end of online backup|consistent recovery point)",
        WalMissing,
        "WAL ends before the end of the backup",
        "look for gaps with `drkit wal status`; choose another backup",
    ),
    (
        r"could not (?:locate required checkpoint record|find redo location)",
        WalMissing,
        "the WAL that the backup begins with is missing or damaged",
        "look for gaps with `drkit wal status`; choose another backup",
    ),
    (
        r'could not restore file "([^"]+)" from archive',
        PostgresRefused,
        "the restore_command failed for {}",
        "the lines above it say why: mend that, then run it again",
    ),
    (
        r'could not create file "([^"]+)": File exists',
        PostgresRefused,
        "{} is in the way of an unlogged relation",
        "an unlogged table's index took longer than the backup; start the server again",
    ),
    (
        r'could not access file "([^"]+)"',
        PostgresRefused,
        "the library {} is not installed here",
        "install the extension's package for this version of PostgreSQL",
    ),
    (
        r"resource manager with ID (\d+) not registered",
        PostgresRefused,
        "WAL of an extension (resource manager {}), whose library is not loaded",
        "restore this cluster by hand, with the extension's library preloaded",
    ),
)


def _tablespace_error(oid: str, place: str, tail: str) -> DrkitError:
    return PostgresRefused(
        f"the WAL creates tablespace {oid} at {place}, a place of the host it comes "
        f"from, which a scratch instance must not touch{tail}",
        hint="take a backup now: what is recovered from it has the tablespace already, "
        "and puts it inside of the scratch directory; or choose a target before that "
        "CREATE TABLESPACE",
    )


def _when(text: str, message: str) -> datetime | None:
    """Return when the last line of a message was written."""
    found = None
    for line in _LINE.finditer(text):
        if line[3].startswith(message):
            found = datetime.fromtimestamp(float(line[1]), UTC)
    return found


def _last(pattern: re.Pattern[str], text: str) -> str | None:
    found = pattern.findall(text)
    return found[-1] if found else None


def _moment(text: str) -> datetime | None:
    """Read a time as the server writes it: ISO, with a numeric offset."""
    with contextlib.suppress(ValueError):
        return datetime.fromisoformat(text.strip()).astimezone(UTC)
    return None
