"""Part of the repository is gone: what can still be had."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drkit.errors import NotFound
from drkit.model.depth import Depth
from drkit.model.recovery import RecoveryTarget, TargetKind
from drkit.model.wal import WalFileName
from drkit.operations.choice import choose
from drkit.operations.stage import Aim
from drkit.operations.verifying.repository import Request, verify

if TYPE_CHECKING:
    from drkit.operations.stage import Stage
    from drkit.operations.windows import Restorable
    from drkit.repository.repository import Repository

NAME = "repository-loss-partial"
SUMMARY = "Objects of the repository are gone: recover what can still be had."


def aim(stage: Stage) -> Aim:
    """Hide a backup's objects and a WAL segment; find out what is left, and take it.

    Raises:
        NotFound: nothing can be restored any more.
    """
    hidden = [*_of_a_backup(stage), *_wal(stage)]
    repository = stage.site.overlay(hidden, ())
    stage.notes.append(f"for this drill these objects are gone: {', '.join(hidden)}")
    with stage.watch.phase("detect"):
        jobs = stage.site.jobs
        request = Request(depth=Depth.OBJECTS, jobs=jobs)
        found = verify(repository, request, None, stage.progress)
        lost = {one.name for one in found.damage}
        stage.notes.append(f"found missing: {', '.join(sorted(lost)) or 'WAL only'}")
    with stage.watch.phase("decide"):
        label, target = _newest(repository, found.restorable)
    chosen = "the newest moment that can still be had"
    return Aim(repository, label, target, chosen, stage.watch.began)


def _of_a_backup(stage: Stage) -> list[str]:
    """Choose a backup, not the only one, and one of its objects."""
    commits = stage.repository.backups()
    if len(commits) < 2:
        stage.notes.append("there is one backup only, so none of its objects is hidden")
        return []
    commit = stage.random.choice(commits)
    layout, label = stage.repository.layout, commit.backup.label
    listed = stage.repository.storage.list(layout.backup(label, commit.attempt))
    needed = {one.name for one in listed} - {layout.fingerprint(label, commit.attempt)}
    return [stage.random.choice(sorted(needed))]


def _wal(stage: Stage) -> list[str]:
    """Choose a WAL segment behind the newest backup's end, if there is one."""
    choice = choose(stage.repository, None, RecoveryTarget())
    backup = choice.commit.backup
    size = backup.wal_segment_size
    behind = [one for one in choice.reach.segments if one.start(size) > backup.stop_lsn]
    if not behind:
        stage.notes.append("no WAL lies behind the newest backup, so none is hidden")
        return []
    chosen = stage.random.choice(behind)
    return [stage.repository.wal.name(WalFileName.parse(chosen.name(size)))]


def _newest(
    repository: Repository, found: Restorable | None
) -> tuple[str, RecoveryTarget]:
    """Return the newest backup that is whole, and the last record behind it.

    The target is given as an LSN, so that a recovery that ends before it has failed:
    the server is handed the WAL of the repository as it is for this drill.

    Raises:
        NotFound: nothing is left.
    """
    windows = found.windows if found is not None else ()
    if not windows:
        raise NotFound(
            "with these objects gone, no backup can be restored any more",
            hint="keep a copy of the repository elsewhere, and more than one backup",
        )
    newest = max(windows, key=lambda one: (one.timeline, one.end_lsn))
    label = newest.labels[-1]
    choice = choose(repository, label, RecoveryTarget(timeline=newest.timeline))
    timeline, last = choice.history.timeline, choice.last_record
    if last < choice.commit.backup.stop_lsn:
        return label, RecoveryTarget(TargetKind.IMMEDIATE, timeline=timeline)
    return label, RecoveryTarget(TargetKind.LSN, lsn=last, timeline=timeline)
