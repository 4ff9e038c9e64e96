"""The database's host is gone: the latest state, elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drkit.model.recovery import RecoveryTarget
from drkit.operations.choice import choose
from drkit.operations.stage import Aim

if TYPE_CHECKING:
    from drkit.operations.stage import Stage

NAME = "host-loss"
SUMMARY = "The database's host is gone: recover the latest state elsewhere."


def aim(stage: Stage) -> Aim:
    """Look at what the repository has, and take all of it.

    The disaster is now: what the server has written and not archived yet would be lost,
    and counts as such.
    """
    repository = stage.repository
    with stage.watch.phase("detect"):
        commits = repository.backups()
        stage.notes.append(f"the repository answered; backups in it: {len(commits)}")
    with stage.watch.phase("decide"):
        choice = choose(repository, None, RecoveryTarget())
        stage.notes += choice.notes
    chosen = "the newest backup and all WAL behind it"
    return Aim(repository, None, RecoveryTarget(), chosen, stage.watch.began)
