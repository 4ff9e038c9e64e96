"""Taking a backup: the lease, then the server, then all that is stored of it."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from drkit.errors import DrkitError
from drkit.model.label import new_label
from drkit.operations.alarms import warn_of_log
from drkit.operations.attempts import abandon_dead, give_up, leased
from drkit.operations.backup_options import Begun
from drkit.operations.heads import confirm_head

if TYPE_CHECKING:
    from collections.abc import Iterator

    from drkit.model.copied import Present
    from drkit.model.due import Due
    from drkit.operations.backup_options import BackupOptions, Taken
    from drkit.protocols import BaseBackupSource, Progress
    from drkit.repository.repository import Repository


def take_backup(
    repository: Repository,
    present: Present,
    source: BaseBackupSource,
    wanted: Due,
    options: BackupOptions,
    progress: Progress,
) -> Taken:
    """Take a backup; it is listed only when it is whole.

    An incremental becomes a full backup where there is nothing to build on that can be
    trusted; `Taken.reason` says why.

    Raises:
        Locked: another backup of this cluster is running.
        WalMissing: the WAL that it needs did not arrive; the backup is given up.
        AttemptFenced: another host declared this attempt dead, expired its parent, or
            finished a later backup before this one was in the log.
        RolledBack: the log's newest entries are gone or hidden; nothing is written.
    """
    confirm_head(repository)
    warn_of_log(repository, progress)
    abandon_dead(repository, options.host, progress)
    attempt = os.urandom(16).hex()
    with (
        leased(repository, attempt, options.host, progress),
        _abandoned_on_failure(repository, attempt, progress),
    ):
        progress.phase("start")
        begun = Begun(attempt, repository.clock.now())
        last = repository.log.state.last_label
        source.begin(f"drkit {new_label(begun.at, wanted.kind, last)}")
        # The server makes a checkpoint. Meanwhile there is time for what only has to be
        # done before the backup's end, and for importing what the rest takes.
        with _heartbeat(options, progress):
            from drkit.operations.storing import store_backup  # noqa: PLC0415

        return store_backup(
            repository, present, source, begun, wanted, options, progress
        )


@contextmanager
def _heartbeat(options: BackupOptions, progress: Progress) -> Iterator[None]:
    """Have a heartbeat written, if one is wanted, while the block runs."""
    written = options.heartbeat() if options.heartbeat else None
    yield
    error = written() if written else None
    if error is not None:
        progress.warning(
            f"no heartbeat was written for the backup: {error.message}",
            hint=error.hint,
        )


@contextmanager
def _abandoned_on_failure(
    repository: Repository, attempt: str, progress: Progress
) -> Iterator[None]:
    """Abandon and sweep the attempt if the block fails; what failed is raised on."""
    try:
        yield
    except BaseException as error:
        try:
            reason = str(error) or type(error).__name__
            give_up(repository, attempt, reason, progress)
        except DrkitError as other:
            progress.warning(
                "could not clear away the failed backup; the next one will",
                error=str(other),
            )
        raise
