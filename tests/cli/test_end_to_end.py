"""A real server, from backup to restored rows, by commands alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from drkit.errors import DrkitError
from tests.pg import drkit_command

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.site import ServedSite
    from tests.conftest import MakeCluster
    from tests.pg import Cluster

ROWS = "SELECT count(*) FROM t"
SESSIONS = """
    SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'drkit%'
"""


def found(served: ServedSite, *words: str | Path) -> dict[str, Any]:
    done = served.site.drkit(*words, "--output", "json")
    assert done.returncode == 0, done.stderr.decode()
    shape: dict[str, Any] = json.loads(done.stdout)
    return shape


def test_back_up_lose_everything_and_recover_to_a_moment(
    served: ServedSite,
    make_directory: Callable[[], Path],
    adopt_cluster: MakeCluster,
    newest_version: int,
) -> None:
    served.cluster.sql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS i")
    taken = served.site.drkit("backup", "alpha")
    assert taken.returncode == 0, taken.stderr
    assert b" of alpha is done\n" in taken.stdout
    served.cluster.sql("INSERT INTO t SELECT generate_series(1, 500)")
    moment = served.cluster.sql("SELECT clock_timestamp()::text")
    time.sleep(0.1)
    served.cluster.sql("DELETE FROM t")
    served.archive_now()
    served.cluster.kill()

    target = make_directory() / "restored"
    words = ("restore", "alpha", "--to", target, "--target-time", moment)
    planned = served.site.drkit(*words, "--plan")
    assert planned.returncode == 0, planned.stderr
    plan = planned.stdout.decode()
    assert not target.exists()
    assert f"--policy {served.site.policy} %f %p" in plan
    assert f"  to           {target}\n" in plan
    assert "then promote" in plan
    done = served.site.drkit(*words)
    assert done.returncode == 0, done.stderr
    told = done.stdout.decode()
    assert plan.strip().partition("\n  free")[0] in told
    assert f"-D {target} -l {target}.log start" in told
    written = (target / "postgresql.auto.conf").read_text()
    for line in plan.partition("postgresql.auto.conf:\n")[2].splitlines():
        if line.startswith("  "):
            assert line.strip() in written
    again = served.site.drkit(*words)
    assert again.returncode == 16, again.stderr

    restored = adopt_cluster(newest_version, str(target), {"archive_mode": "off"})
    restored.start()
    restored.wait_until_primary()
    assert restored.sql(ROWS) == 1500


def test_a_repository_out_of_reach_never_ends_a_recovery(
    served: ServedSite,
    make_directory: Callable[[], Path],
    adopt_cluster: MakeCluster,
    newest_version: int,
) -> None:
    """PostgreSQL must stop, not promote with what was committed missing."""
    assert served.site.drkit("backup", "alpha").returncode == 0
    served.cluster.sql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS i")
    served.archive_now()
    target = make_directory() / "restored"
    done = served.site.drkit("restore", "alpha", "--to", target)
    assert done.returncode == 0, done.stderr
    repository = served.site.root / "repository"
    repository.rename(served.site.root / "away")
    restored: Cluster = adopt_cluster(
        newest_version, str(target), {"archive_mode": "off"}
    )
    with pytest.raises(DrkitError, match=r"(?s)drkit: error: .*repository"):
        restored.start()
    assert (target / "recovery.signal").exists()
    (served.site.root / "away").rename(repository)
    restored.start()
    restored.wait_until_primary()
    assert restored.sql(ROWS) == 1000


def test_wal_status_tells_gaps(served: ServedSite) -> None:
    names = [served.archive_now() for _ in range(4)]
    whole = found(served, "wal", "status", "alpha")
    assert whole["timelines"][0]["last"] == names[-1]
    assert whole["timelines"][0]["gaps"] == []
    for name in names[1:3]:
        (path,) = served.site.wal.rglob(name)
        path.unlink()
    done = served.site.drkit("wal", "status", "--output", "json")
    assert done.returncode == 3
    (line,) = json.loads(done.stdout)["timelines"]
    (gap,) = line["gaps"]
    assert (gap["first"], gap["last"], gap["segments"]) == (names[1], names[2], 2)
    text = served.site.drkit("wal", "status")
    assert f"GAP: {names[1]} to {names[2]} missing".encode() in text.stdout


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_backup_cleanly(
    served: ServedSite, number: signal.Signals
) -> None:
    """It waits for WAL that nobody archives when the signal comes."""
    served.cluster.sql("ALTER SYSTEM SET archive_command = 'false'")
    served.cluster.sql("SELECT pg_reload_conf()")
    env = {"PATH": os.environ["PATH"], "DRKIT_LOG_FORMAT": "json"}
    process = subprocess.Popen(
        drkit_command("backup", served.site.policy),
        env=env,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if json.loads(line).get("phase") == "wal":
            break
    time.sleep(0.3)
    began = time.monotonic()
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert time.monotonic() - began < 30
    assert process.returncode == 26
    told = json.loads(errors.splitlines()[-1])
    assert (told["error"], told["exit_code"]) == ("Interrupted", 26)
    assert number.name in told["message"]
    repository = served.site.repository()
    assert repository.backups() == []
    assert repository.log.state.running() == []
    kept = set((served.site.root / "repository").rglob("*/packs/*"))
    assert kept == set()
    assert served.cluster.sql(SESSIONS) == 0


def test_wal_that_never_arrives_fails_the_backup_and_says_why(
    served: ServedSite,
) -> None:
    served.cluster.sql("ALTER SYSTEM SET archive_command = 'exit 7'")
    served.cluster.sql("SELECT pg_reload_conf()")
    env = {"DRKIT_BACKUP_WAL_TIMEOUT": "2 seconds"}
    done = served.site.drkit("backup", "alpha", env=env)
    assert done.returncode == 20, done.stderr
    assert b"archive_command is exit 7" in done.stderr
    assert served.site.repository().backups() == []


def test_a_damaged_page_is_loud(served: ServedSite) -> None:
    served.cluster.sql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS i")
    served.cluster.sql("CHECKPOINT")
    path = served.cluster.sql("SELECT pg_relation_filepath('t')")
    served.cluster.stop()
    with open(f"{served.cluster.data_directory}/{path}", "r+b") as file:
        file.seek(8192 + 4000)
        file.write(b"\xff" * 8)
    served.cluster.start()
    done = served.site.drkit("backup", "alpha")
    assert done.returncode == 3, done.stderr
    assert b"DAMAGED: 1 pages" in done.stdout
    assert path.encode() in done.stderr
