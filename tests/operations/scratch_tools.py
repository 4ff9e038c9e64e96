"""Scratch instances over real repositories, for tests."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drkit import wiring
from drkit.model.owner import Owner
from drkit.model.recovery import RecoveryTarget
from drkit.operations.archive import archived_wal
from drkit.operations.restore import RestoreRequest, execute_restore, plan_restore
from drkit.operations.scratch.instance import Scratch, ScratchOptions, scratch_instance
from tests.operations.backup_tools import Listener

if TYPE_CHECKING:
    from collections.abc import Iterator

    from drkit.operations.scratch.instance import Recovered
    from tests.protect import Protected

MEMORY = 64 << 20
CLOCK = wiring.SystemClock()


@contextmanager
def restored_scratch(
    protected: Protected,
    directory: Path,
    target: RecoveryTarget | None = None,
    *,
    restore_command: str | None = None,
    **options: Any,
) -> Iterator[Scratch]:
    """Make a scratch instance and restore the newest backup into it."""
    account = protected.account
    chosen = ScratchOptions(
        str(directory), protected.cluster.binaries, account, MEMORY, **options
    )
    with scratch_instance(chosen, CLOCK) as scratch:
        fill(scratch, protected, target or RecoveryTarget(), restore_command)
        yield scratch


def fill(
    scratch: Scratch,
    protected: Protected,
    target: RecoveryTarget,
    restore_command: str | None = None,
) -> None:
    """Restore into a scratch instance, tablespaces inside of it."""
    repository = protected.repository()
    newest = repository.backups()[-1]
    places = {
        one.path: scratch.tablespace_place(one.oid)
        for one in wiring_manifest(repository, newest).head.tablespaces
        if not one.in_place
    }
    command = restore_command or scratch.restore_command
    account = scratch.server.account
    owner = Owner(account.uid, account.gid) if os.geteuid() == 0 else None
    request = RestoreRequest(
        None, target, scratch.data_directory, places, 2, command, owner
    )
    execute_restore(repository, plan_restore(repository, request), Listener())


def recover(scratch: Scratch, protected: Protected, timeout: float = 60) -> Recovered:
    """Recover with the WAL of the repository."""
    wal = protected.repository().wal
    system = protected.policy().cluster.system_identifier
    return scratch.recover(timeout, lambda name: archived_wal(wal, name, system))


def wiring_manifest(repository: Any, commit: Any) -> Any:
    """Read a backup's manifest."""
    from drkit.repository.manifests import read_manifest

    return read_manifest(repository, commit.manifest)


def main(policy_home: str, data_directory: str, directory: str) -> None:
    """Recover in a scratch instance, say where, and wait to be killed."""
    from types import SimpleNamespace

    from drkit.config.loading import load_policy
    from drkit.postgres.binaries import ServerBinaries
    from drkit.postgres.process import server_account
    from tests.protect import NAME

    major = int(Path(data_directory, "PG_VERSION").read_text())
    policy = load_policy(Path(policy_home, f"{NAME}.yaml"), {})
    protected: Any = SimpleNamespace(
        account=server_account(),
        cluster=SimpleNamespace(binaries=ServerBinaries.locate(major)),
        policy=lambda: policy,
        repository=lambda: wiring.open_repository(policy, wiring.Secrets({})),
    )
    with restored_scratch(protected, Path(directory)) as scratch:
        recover(scratch, protected)
        print(scratch.directory, scratch.server.pid, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
