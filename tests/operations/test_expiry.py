"""Backups that expire under their readers, and WAL that expires under writers."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from drkit.errors import AttemptFenced, BackupExpired, Corrupt
from drkit.model.log_wal import ExpireWal
from drkit.model.lsn import Lsn
from drkit.model.recovery import RecoveryTarget
from drkit.model.retention import Retention
from drkit.operations.expire import execute_expire, plan_expire
from drkit.operations.restore import RestoreRequest, execute_restore, plan_restore
from drkit.postgres.target_checks import is_incomplete
from tests.faults import FaultyStorage
from tests.operations.scene import Scene, backup, drkit
from tests.operations.verify_tools import Quiet
from tests.pg import give_to
from tests.protect import NAME, Protected

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from drkit.operations.restore import RestorePlan
    from drkit.repository.repository import Repository


class Source:
    """Two full backups of a small cluster, of which the older may expire."""

    def __init__(self, scene: Scene, version: int) -> None:
        self.scene = scene
        self.protected: Protected = scene.protect(version)
        self.labels = [backup(self.protected)]

    def back_up(self) -> None:
        """Have just two backups, the first of which may be of the test before."""
        self.expire()
        self.labels = [*self.labels[-1:], backup(self.protected)]

    def reading(self, storage: FaultyStorage | None = None) -> Repository:
        repository = self.protected.repository()
        return repository if storage is None else replace(repository, storage=storage)

    def faulty(self) -> FaultyStorage:
        return FaultyStorage(self.protected.repository().storage)

    def plan(
        self, repository: Repository, to: Path, *, delta: bool = False
    ) -> RestorePlan:
        request = RestoreRequest(
            to=str(to),
            label=self.labels[0],
            target=RecoveryTarget(),
            tablespaces={},
            jobs=2,
            restore_command="false",
            owner=None,
            delta=delta,
        )
        return plan_restore(repository, request)

    def expire(self) -> None:
        """Do what another host does; the second time there is nothing left to do."""
        repository = self.protected.repository()
        now = repository.clock.now()
        planned = plan_expire(repository, Retention(full=1), now, accept_clock=True)
        execute_expire(repository, planned, "host-b", Quiet())

    def says_so(self, error: BackupExpired) -> None:
        host = self.protected.repository().log.identity.host
        assert error.exit_code == 14
        assert error.message.startswith(
            f"backup {self.labels[0]} was expired by {host} at 20"
        )
        assert error.hint is not None
        assert f"take {self.labels[1]} instead" in error.hint


@pytest.fixture(scope="module")
def shared(scene: Scene, newest_version: int) -> Source:
    return Source(scene, newest_version)


@pytest.fixture
def source(shared: Source) -> Source:
    shared.back_up()
    return shared


class Watcher(Quiet):
    """Calls back when a phase begins."""

    def __init__(self, at: str, act: Callable[[], None]) -> None:
        super().__init__()
        self._at, self._act = at, act

    def phase(self, name: str, total: int | None = None) -> None:
        if name == self._at:
            self._act()


def test_a_backup_that_expires_while_it_is_restored(source: Source) -> None:
    storage, target = source.faulty(), source.scene.target()
    repository = source.reading(storage)
    plan = source.plan(repository, target)
    storage.call("get", source.expire, at=storage.calls["get"] + 2)
    with pytest.raises(BackupExpired) as caught:
        execute_restore(repository, plan, Quiet())
    source.says_so(caught.value)
    assert f"{target} is incomplete" in caught.value.message
    assert isinstance(caught.value.__cause__, Corrupt)
    assert is_incomplete(str(target))
    give_to(source.protected.account, target)  # whom the command restores for
    said = drkit(source.protected, "restore", NAME, "--to", target)
    assert said.code == 0, said.err


def test_a_backup_that_expires_while_it_is_restored_in_place(source: Source) -> None:
    target = source.scene.target()
    repository = source.reading()
    execute_restore(repository, source.plan(repository, target), Quiet())
    relation = next(one for one in target.glob("base/*/1259"))
    relation.write_bytes(bytes(relation.stat().st_size))
    plan = source.plan(repository, target, delta=True)
    progress = Watcher("prepare", source.expire)
    with pytest.raises(BackupExpired) as caught:
        execute_restore(repository, plan, progress)
    source.says_so(caught.value)
    assert not (target / "global/pg_control").exists()


@pytest.mark.parametrize("part", ["/manifest", "/packs/"])
def test_a_backup_that_expires_while_its_restore_is_planned(
    source: Source, part: str
) -> None:
    storage, target = source.faulty(), source.scene.target()
    repository = source.reading(storage)
    source.plan(repository, target)
    names = {name for _, name in storage.names if part in name}
    for name in names:
        storage.call("get", source.expire, name=name, times=1 << 20)
    with pytest.raises(BackupExpired) as caught:
        source.plan(repository, target)
    source.says_so(caught.value)
    assert not target.exists()


def test_a_backup_that_expires_as_its_restore_ends(source: Source) -> None:
    """Its files are all here; whoever starts it lacks its WAL."""
    target, repository = source.scene.target(), source.reading()
    plan = source.plan(repository, target)
    progress = Watcher("finish", source.expire)
    execute_restore(repository, plan, progress)
    assert not is_incomplete(str(target))
    (warning,) = progress.warnings
    assert "the WAL that it needs may be gone" in warning
    assert f"take {source.labels[1]} instead" in warning


def test_what_is_missing_of_a_live_backup_is_damage(source: Source) -> None:
    target, repository = source.scene.target(), source.reading()
    plan = source.plan(repository, target)
    attempt = plan.choice.commit.attempt
    pack = repository.layout.pack(source.labels[0], attempt, 0)
    repository.storage.delete(pack)
    with pytest.raises(Corrupt, match="missing, though its backup was committed"):
        execute_restore(repository, plan, Quiet())


def test_a_backup_of_a_server_that_is_behind_what_has_expired(source: Source) -> None:
    """A standby that lags, as far as the log can tell."""
    protected = source.protected
    repository = protected.repository()
    repository.log.read()
    size = repository.log.state.opened.segment_size  # type: ignore[union-attr]
    newest = repository.backups()[-1].backup
    bound = Lsn((newest.stop_lsn // size + 12) * size)
    repository.log.append(lambda _: ExpireWal(((1, bound),)))
    said = drkit(protected, "backup", NAME, "--output", "json")
    assert said.code == AttemptFenced.exit_code
    assert f"what lies before {bound} has expired" in said.error["message"]
    assert "catch up" in said.error["hint"]
    assert protected.labels() == source.labels
    for _ in range(13):
        protected.archive_now()
    source.labels.append(backup(protected))
    assert protected.labels() == source.labels
