"""The newest backup is damaged: recovery falls back on an older one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drkit.errors import Corrupt, NotFound
from drkit.model.recovery import RecoveryTarget
from drkit.operations.stage import Aim

if TYPE_CHECKING:
    from drkit.model.log import Commit
    from drkit.operations.stage import Stage

NAME = "corruption"
SUMMARY = "The newest backup is damaged: fall back on an older one."


def aim(stage: Stage) -> Aim:
    """Try the newest backup, in which a bit is wrong; take the next one that is good.

    How long the attempt takes until it fails is the time to detect.

    Raises:
        NotFound: every backup is damaged, or there is only one.
        Corrupt: the damaged backup was restored as if it were good.
    """
    commits = stage.repository.backups()
    newest = commits[-1]
    damaged = _choose(stage, newest)
    repository = stage.site.overlay((), (damaged,))
    repository.backups()
    stage.notes.append(f"for this drill a bit of {damaged} reads wrong")
    everything = RecoveryTarget()
    chosen = "the newest backup that is not damaged, and all WAL behind it"

    def aim_at(commit: Commit) -> Aim:
        label, began = commit.backup.label, stage.watch.began
        return Aim(repository, label, everything, chosen, began)

    with stage.watch.phase("detect"):
        found = _damage_of(stage, aim_at(newest))
    if found is None:
        raise Corrupt(
            f"{damaged} reads wrong, and the backup was restored all the same"
        )
    stage.notes.append(f"the newest backup was refused: {found.message}")
    with stage.watch.phase("decide"):
        for commit in commits[-2::-1]:
            other = aim_at(commit)
            if stage.refusal(other) is None:
                return other
    raise NotFound(
        f"no backup is left beside the damaged {newest.backup.label}",
        hint="keep more than one full backup: `retention.full`, and take another now",
    )


def _choose(stage: Stage, commit: Commit) -> str:
    """Choose an object of a backup that a bit shall be wrong in: a pack, if it has."""
    layout, label = stage.repository.layout, commit.backup.label
    folder = layout.backup(label, commit.attempt)
    names = [one.name for one in stage.repository.storage.list(folder)]
    packs = [name for name in names if name in _packs(stage, commit, len(names))]
    return stage.random.choice(packs or [commit.manifest.name])


def _packs(stage: Stage, commit: Commit, count: int) -> set[str]:
    layout, label = stage.repository.layout, commit.backup.label
    return {layout.pack(label, commit.attempt, number) for number in range(count)}


def _damage_of(stage: Stage, aim: Aim) -> Corrupt | None:
    """Restore until damage is met; leave no trace of the attempt."""
    try:
        stage.fetch(aim, stage.plan(aim))
    except Corrupt as error:
        return error
    finally:
        stage.empty()
    return None
