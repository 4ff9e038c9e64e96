"""Reading a recovering server's log."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from drkit.errors import DrkitError, PostgresRefused, TargetUnreachable, WalMissing
from drkit.postgres.scratch_log import (
    read_recovery_log,
    recovery_error,
    rejected_settings,
)

WHOLE = """\
1763740000.100 LOG:  starting PostgreSQL 18.1 on x86_64
1763740000.200 LOG:  starting archive recovery
1763740000.300 LOG:  restored log file "000000010000000000000002" from archive
1763740000.400 LOG:  redo starts at 0/2000028
1763740000.500 LOG:  restored log file "000000010000000000000003" from archive
1763740000.550 LOG:  restored log file "00000002.history" from archive
1763740010.400 LOG:  redo in progress, elapsed time: 10.00 s, current LSN: 0/3000010
1763740011.000 LOG:  restored log file "000000010000000000000003" from archive
1763740011.100 LOG:  redo done at 0/4000060 system usage: CPU: user: 0.00 s
1763740011.200 LOG:  last completed transaction was at log time {commit}
1763740011.300 LOG:  selected new timeline ID: 2
1763740011.400 LOG:  archive recovery complete
1763740011.500 LOG:  database system is ready to accept connections
"""
COMMIT = datetime(2026, 11, 21, 10, 0, 0, 123456, UTC)


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(1763740000 + seconds, UTC)


@pytest.mark.parametrize(
    "commit",
    [
        "2026-11-21 10:00:00.123456+00",
        "2026-11-21 15:30:00.123456+05:30",
        "2026-11-21 06:00:00.123456-04",
    ],
)
def test_times_and_counts_are_read(commit: str) -> None:
    log = read_recovery_log(WHOLE.format(commit=commit))
    assert log.started == at(0.1)
    assert log.redo_began == at(0.4)
    assert log.redo_ended == at(11.1)
    assert log.recovered == at(11.4)
    assert log.ready == at(11.5)
    assert log.redo_done == "0/4000060"
    assert log.last_commit == COMMIT
    assert log.segments == 2
    assert log.how_far == "replay had ended at 0/4000060"


def test_a_log_that_breaks_off_says_how_far_it_came() -> None:
    lines = WHOLE.splitlines(keepends=True)
    assert read_recovery_log("").how_far == "replay had not begun"
    log = read_recovery_log("".join(lines[:8]))
    assert (log.redo_ended, log.ready, log.last_commit) == (None, None, None)
    assert log.how_far == (
        "2 WAL segments were fetched, the last was 000000010000000000000003; "
        "replay was at 0/3000010"
    )


@pytest.mark.parametrize(
    ("line", "kind", "words"),
    [
        (
            "recovery ended before configured recovery target was reached",
            TargetUnreachable,
            "before the recovery target",
        ),
        ("WAL ends before end of online backup", WalMissing, "end of the backup"),
        ("WAL ends before consistent recovery point", WalMissing, "end of the backup"),
        ("could not locate required checkpoint record", WalMissing, "begins with"),
        (
            "requested timeline 3 is not a child of this server's history",
            TargetUnreachable,
            "timeline 3",
        ),
        (
            'could not restore file "00000001000000000000000A" from archive: child',
            PostgresRefused,
            "failed for 00000001000000000000000A",
        ),
        (
            'could not create file "base/5/16404": File exists',
            PostgresRefused,
            "base/5/16404 is in the way of an unlogged relation",
        ),
        (
            'could not access file "ext": No such file or directory',
            PostgresRefused,
            "library ext is not installed",
        ),
        (
            "resource manager with ID 130 not registered",
            PostgresRefused,
            "resource manager 130",
        ),
        ("something else", PostgresRefused, "before it had recovered"),
    ],
)
def test_failures_are_told_apart(line: str, kind: type[DrkitError], words: str) -> None:
    error = recovery_error(f"1.0 FATAL:  {line}\n", "/data", ":\n  tail")
    assert type(error) is kind
    assert words in error.message
    assert error.message.endswith("tail")
    assert error.hint


def test_a_tablespace_that_wal_creates_is_named() -> None:
    text = (
        '1.0 FATAL:  could not set permissions on directory "/srv/x": Operation not\n'
        '1.0 CONTEXT:  WAL redo at 0/3 for Tablespace/CREATE: 16390 "/srv/x"\n'
    )
    error = recovery_error(text, "/data", "")
    assert "tablespace 16390 at /srv/x" in error.message
    assert "take a backup now" in str(error.hint)


def test_rejected_settings_are_named() -> None:
    text = (
        'LOG:  invalid value for parameter "lc_monetary": "xx"\n'
        'LOG:  unrecognized configuration parameter "Nothing" in file "x" line 1\n'
        'FATAL:  configuration file "x" contains errors\n'
    )
    assert rejected_settings(text) == {"lc_monetary", "nothing"}
