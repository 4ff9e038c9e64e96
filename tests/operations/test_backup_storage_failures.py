"""Backups into stores that fail, at one call or from some moment on."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from drkit.errors import DrkitError, NoSpace, StorageError
from drkit.model.log import AttemptState
from drkit.repository.lease import leases_of
from tests.faults import ANY, FOREVER
from tests.operations.backup_tools import (
    MOSTLY_LOCAL,
    MOSTLY_STREAM,
    Listener,
    Site,
    assert_not_in_backup,
    assert_tidy,
    attempts,
    content,
    discard_whole,
    restored,
    site,
)
from tests.operations.scene import drkit
from tests.pg import give_to
from tests.protect import NAME, Protected
from tests.storage.localtools import mounted, only_root

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.operations.scene import Scene

KINDS = ("leases", "begin", "keys", "packs", "manifest", "commit")


@pytest.fixture
def protected(scene: Scene, newest_version: int) -> Protected:
    made = scene.protect(newest_version)
    made.cluster.rows("CREATE TABLE t AS SELECT generate_series(1, 1000) AS n")
    return made


def puts_by_kind(site: Site) -> dict[str, int]:
    """Count a whole backup's puts: by kind of object, the number of its last put."""
    names = [name for method, name in site.storage.names if method == "put"]
    found = {}
    for number, name in enumerate(names, start=1):
        kinds = [kind for kind in KINDS if f"/{kind}" in name]
        if "/log/" in name:
            kinds = ["commit" if number == len(names) else "begin"]
        found[kinds[-1]] = number
    assert set(found) == set(KINDS)
    return found


@pytest.mark.parametrize(
    ("error", "source"),
    [
        (StorageError("the disk failed"), "local"),
        (NoSpace("the disk is full"), "stream"),
    ],
    ids=["EIO", "ENOSPC"],
)
def test_a_put_that_fails(source: str, error: DrkitError, protected: Protected) -> None:
    clean = site(protected, source)
    kept = [clean.take().label]
    for kind, number in puts_by_kind(clean).items():
        broken = site(protected, source)
        broken.storage.fail("put", error, at=number)
        with pytest.raises(type(error)) as raised:
            broken.take()
        assert raised.value is error, kind
        assert protected.labels() == kept, kind
        assert AttemptState.RUNNING not in attempts(broken), kind
        assert_tidy(site(protected))
        assert_not_in_backup(protected.cluster)


@pytest.mark.parametrize("source", MOSTLY_LOCAL)
def test_a_put_that_is_done_though_it_fails(source: str, protected: Protected) -> None:
    clean = site(protected, source)
    kept = [clean.take().label]
    for kind, number in puts_by_kind(clean).items():
        broken = site(protected, source)
        broken.storage.lose_reply("put", StorageError("no reply"), at=number)
        with pytest.raises(StorageError, match="no reply"):
            broken.take()
        labels = protected.labels()
        assert len(labels) == len(kept) + (kind == "commit"), kind
        assert labels[: len(kept)] == kept
        assert AttemptState.RUNNING not in attempts(broken), kind
        assert_tidy(site(protected))


@pytest.mark.parametrize("source", MOSTLY_STREAM)
def test_a_store_that_goes_away(source: str, protected: Protected) -> None:
    clean = site(protected, source)
    kept = [clean.take().label]
    for kind, number in puts_by_kind(clean).items():
        broken, listener = site(protected, source), Listener()
        gone = StorageError("the store is gone")

        def vanish(broken: Site = broken, gone: StorageError = gone) -> None:
            broken.storage.fail(ANY, gone, times=FOREVER)
            raise gone

        broken.storage.call("put", vanish, at=number)
        with pytest.raises(StorageError, match="the store is gone"):
            broken.take(listener)
        assert protected.labels() == kept, kind
        assert_not_in_backup(protected.cluster)
        told = [message for message, _ in listener.warnings]
        clearing = "could not clear away the failed backup; the next one will"
        assert (clearing in told) == (kind != "leases"), kind
        _forget_leases(protected)
    site(protected, source).take()
    discard_whole(site(protected))  # where the store went before the commit only
    assert_tidy(site(protected))


def _forget_leases(protected: Protected) -> None:
    """Do what the end of a process does: its leases count for nothing from then on."""
    repository = site(protected).repository()
    repository.log.read()
    leases = leases_of(repository)
    for attempt in leases.attempts():
        last = leases.last(attempt)
        assert last is not None
        leases.release(attempt)
        leases.renew(attempt, replace(last.holder, pid=4194305), 0)


@pytest.fixture
def small_disk(scene: Scene) -> Iterator[Path]:
    home = scene.directory()
    with mounted(home, "size=40m"):
        give_to(scene.factory.account, home)
        yield home


def fill(disk: Path, leave: int) -> Path:
    """Fill a file system but for `leave` bytes; return what fills it."""
    ballast = disk / "ballast"
    status = os.statvfs(disk)
    with ballast.open("wb") as file:
        for _ in range(status.f_bavail * status.f_frsize // 4096 - leave // 4096):
            file.write(bytes(4096))
    return ballast


@only_root
@pytest.mark.parametrize("source", MOSTLY_LOCAL)
def test_a_full_disk(
    source: str, scene: Scene, small_disk: Path, newest_version: int
) -> None:
    protected = scene.protect(newest_version, home=small_disk, source=source)
    cluster = protected.cluster
    cluster.rows("CREATE TABLE t AS SELECT generate_series(1, 1000) AS n")
    kept = [site(protected, source).take().label]
    ballast = fill(small_disk, leave=1 << 20)

    said = drkit(protected, "backup", NAME, "--type", "full")
    assert said.code == NoSpace.exit_code, said.err
    assert "has no room for it" in said.err
    assert protected.labels() == kept
    assert os.listdir(protected.repository_root / "+tmp") == []
    assert_tidy(site(protected))
    assert_not_in_backup(cluster)

    with ballast.open("ab") as file:
        file.write(bytes(os.statvfs(small_disk).f_bavail * 4096))
    cluster.rows("INSERT INTO t SELECT generate_series(1001, 100000)")
    waiting = cluster.switch_wal()
    _wait_for_failure(protected)
    assert cluster.wal_path(waiting).exists()

    ballast.unlink()
    cluster.rows("SELECT pg_reload_conf()")
    protected.archive_now()
    site(protected, source).take()
    assert_tidy(site(protected))
    with restored(scene, protected, kept[0]) as found:
        assert content(found) == content(cluster)


def _wait_for_failure(protected: Protected) -> None:
    cluster = protected.cluster
    for _ in range(300):
        if cluster.sql("SELECT failed_count > 0 FROM pg_stat_archiver"):
            return
        cluster.rows("SELECT pg_sleep(0.05)")
    raise AssertionError(f"archiving did not fail{cluster.log_tail()}")
