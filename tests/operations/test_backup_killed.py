"""Backups that die or are stopped at any moment, and what is left of them."""

from __future__ import annotations

import itertools
import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from drkit.errors import Interrupted
from drkit.model.log import AttemptState
from drkit.postgres import process
from tests.operations.backup_child import Backups
from tests.operations.backup_tools import (
    KINDS,
    assert_not_in_backup,
    assert_tidy,
    attempts,
    content,
    discard_whole,
    restored,
    site,
)
from tests.pg import drkit_command
from tests.protect import NAME, Protected

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.operations.scene import Scene

KILLED = -signal.SIGKILL


@pytest.fixture
def protected(scene: Scene, newest_version: int) -> Protected:
    made = scene.protect(newest_version)
    made.cluster.rows("CREATE TABLE t AS SELECT generate_series(1, 1000) AS n")
    return made


@pytest.fixture
def backups(protected: Protected, tmp_path: Path) -> Iterator[Backups]:
    with Backups(protected.policy_path, tmp_path) as running:
        yield running


@pytest.mark.parametrize("source", KINDS)
def test_kill_at_some_storage_calls(
    source: str,
    protected: Protected,
    backups: Backups,
    scene: Scene,
) -> None:
    """Each run also clears away what the one that was killed before it left."""
    before = content(protected.cluster)
    earlier = site(protected, source).take().label
    kept, killed = [earlier], 0
    for at in _moments(protected, every=4):
        ended = backups.run(source, kill=("any", at, False))
        if ended.status != KILLED:
            break
        kept = _still_there(kept, protected.labels())
        killed += 1
    assert ended.status == 0, ended.stderr
    assert killed >= 5
    assert len(protected.labels()) == len(kept) + 1
    discard_whole(site(protected))
    assert_tidy(site(protected))
    with restored(scene, protected, earlier) as found:
        assert content(found) == before


@pytest.mark.long
@pytest.mark.parametrize("source", KINDS)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_kill_at_every_storage_call(
    source: str, after: bool, protected: Protected, backups: Backups
) -> None:
    kept = [site(protected, source).take().label]
    killed = 0
    for at in _moments(protected, every=1):
        ended = backups.run(source, kill=("any", at, after))
        if ended.status != KILLED:
            break
        kept = _still_there(kept, protected.labels())
        kept = [*kept, site(protected, source).take().label]
        assert protected.labels() == kept
        discard_whole(site(protected))
        assert_tidy(site(protected))
        killed += 1
    assert ended.status == 0, ended.stderr
    assert killed > 20


@pytest.mark.parametrize("source", KINDS)
def test_kill_around_the_commit_leaves_the_backup_whole_or_absent(
    source: str,
    protected: Protected,
    backups: Backups,
    scene: Scene,
) -> None:
    assert backups.run(source).status == 0
    clean = backups.run(source)
    assert clean.status == 0, clean.stderr
    first = protected.labels()

    assert backups.run(source, kill=("put", clean.puts, False)).status == KILLED
    assert protected.labels() == first

    # It may have committed, for all that others can tell: it is left to a person.
    assert backups.run(source, kill=("put", clean.puts, True)).status == KILLED
    second = protected.labels()
    assert len(second) == 3
    with restored(scene, protected) as found:
        assert found.sql("SELECT count(*) FROM t") == 1000

    assert backups.run(source).status == 0
    assert protected.labels()[:3] == second
    assert len(discard_whole(site(protected))) == 1
    assert_tidy(site(protected))


@pytest.mark.parametrize("source", KINDS)
def test_sigterm_while_it_copies(
    source: str, protected: Protected, backups: Backups
) -> None:
    pid = backups.start(source, put_delay=0.5)
    _wait_until_begun(protected)
    _stop_and_check(protected, backups, pid)


def test_sigterm_while_the_server_is_silent(
    protected: Protected, backups: Backups
) -> None:
    protected.cluster.rows(
        "CREATE TABLE big AS SELECT repeat(md5(n::text), 60) FROM"
        " generate_series(1, 10000) AS n"
    )
    pid = backups.start("stream", put_delay=0.5)
    _wait_until_begun(protected)
    walsender = protected.cluster.sql(
        "SELECT pid FROM pg_stat_activity WHERE backend_type = 'walsender'"
    )
    os.kill(walsender, signal.SIGSTOP)
    try:
        time.sleep(2)  # it has stored its keys and waits for the server
        _stop_and_check(protected, backups, pid, sessions=False)
    finally:
        os.kill(walsender, signal.SIGCONT)
    assert_not_in_backup(protected.cluster)


def test_sigterm_while_it_waits_for_wal(protected: Protected) -> None:
    protected.cluster.rows("ALTER SYSTEM SET archive_command = '/bin/false'")
    protected.cluster.rows("SELECT pg_reload_conf()")
    command = drkit_command(
        "backup", NAME, "--type", "full", "--policy-dir", protected.home
    )
    running = process.spawn(command)
    with running:
        deadline = time.monotonic() + 30
        while not any(protected.repository_root.glob("*/backups/*/packs/*")):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        running.send_signal(signal.SIGTERM)
        _, errors = running.communicate(timeout=30)
    assert running.returncode == Interrupted.exit_code
    assert b"stopped by SIGTERM; nothing half-done is listed" in errors
    _check_swept(protected)


def _moments(protected: Protected, every: int) -> Iterator[int]:
    """Count storage calls; a log that has grown is more calls to read."""
    entries = len(list((protected.repository_root / NAME / "log").iterdir()))
    for number in itertools.count(1, every):
        now = len(list((protected.repository_root / NAME / "log").iterdir()))
        yield number + now - entries


def _still_there(before: list[str], now: list[str]) -> list[str]:
    """Check what is listed after a death, which may have come behind the commit."""
    assert now[: len(before)] == before
    assert len(now) <= len(before) + 1
    return now


def _wait_until_begun(protected: Protected) -> None:
    deadline = time.monotonic() + 30
    while not attempts(site(protected)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _stop_and_check(
    protected: Protected, backups: Backups, pid: int, *, sessions: bool = True
) -> None:
    began = time.monotonic()
    os.kill(pid, signal.SIGTERM)
    ended = backups.ended()
    assert ended.status == Interrupted.exit_code, ended.stderr
    assert time.monotonic() - began < 20
    assert "stopped by SIGTERM; nothing half-done is listed" in ended.stderr
    _check_swept(protected, sessions=sessions)


def _check_swept(protected: Protected, *, sessions: bool = True) -> None:
    assert protected.labels() == []
    assert attempts(site(protected)) == [AttemptState.ABANDONED]
    assert_tidy(site(protected))
    if sessions:
        assert_not_in_backup(protected.cluster)
