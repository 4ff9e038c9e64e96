"""`verify --depth restore`: a backup is good when it was restored and looked at."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from drkit.model.evidence import RecordKind
from drkit.model.recovery import RecoveryTarget, TargetKind
from drkit.model.verification import Choice
from drkit.operations.rehearsal import rehearse
from drkit.operations.stage import Aim, Task
from drkit.operations.windows import restorable
from drkit.repository.evidence import read_chain
from drkit.repository.fingerprint import fingerprint_of
from drkit.repository.manifests import read_manifest

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from drkit.model.log import Commit
    from drkit.operations.rehearsal import Rehearsed
    from drkit.operations.stage import Site, Stage
    from drkit.operations.windows import Window
    from drkit.protocols import Progress
    from drkit.repository.repository import Repository


def verify_restore(site: Site, label: str | None, progress: Progress) -> Rehearsed:
    """Restore a backup into a scratch instance, prove it, and write the evidence.

    Args:
        label: of the backup; None lets the policy's choices take their turns.

    Raises:
        NotFound: there is no such backup.
        DrkitError: as `rehearse` does.
    """
    aim = partial(_named, label) if label else partial(_next, _turn(site))
    if label:
        site.repository.find(label)
    return rehearse(site, Task(RecordKind.VERIFICATION, "", aim), progress)


def _turn(site: Site) -> Choice:
    """Return whose turn it is: the records so far are counted."""
    records = read_chain(site.repository).records
    count = sum(one.record.kind is RecordKind.VERIFICATION for one in records)
    choices = site.rules.choose
    return choices[count % len(choices)]


def _next(choice: Choice, stage: Stage) -> Aim:
    repository = stage.repository
    if choice is Choice.LATEST:
        return latest(repository, "latest", repository.clock.now())
    if choice is Choice.RANDOM_BACKUP:
        commit = stage.random.choice(repository.backups())
        return _at_its_end(repository, commit, "random backup")
    return _random_moment(stage)


def latest(repository: Repository, chosen: str, disaster: datetime | None) -> Aim:
    """Return the aim of having all there is back."""
    return Aim(repository, None, RecoveryTarget(), chosen, disaster)


def _named(label: str, stage: Stage) -> Aim:
    commit = stage.repository.find(label)
    return _at_its_end(stage.repository, commit, f"backup {commit.backup.label}")


def _at_its_end(repository: Repository, commit: Commit, chosen: str) -> Aim:
    """Aim at the moment of a backup's fingerprint; without one, at its end."""
    backup = commit.backup
    target = RecoveryTarget(TargetKind.IMMEDIATE, timeline=backup.timeline)
    head = read_manifest(repository, commit.manifest).head
    found = fingerprint_of(repository, head)
    if found is not None and found.restore_point is not None:
        target = RecoveryTarget(
            TargetKind.NAME, name=found.restore_point, timeline=backup.timeline
        )
    return Aim(repository, backup.label, target, chosen, None)


def _random_moment(stage: Stage) -> Aim:
    """Aim at a moment that lies before some commit, or recovery could not stop there.

    On a cluster where nothing was committed since the oldest backup there is none: the
    newest backup's end is taken then, and the record says so.
    """
    repository = stage.repository
    commits = repository.backups()
    found = restorable(repository, [commit.backup for commit in commits])
    spans = [span for one in found.windows if (span := _span(one)) is not None]
    if not spans:
        chosen = "random moment: none lies behind a backup, so the newest backup's end"
        return _at_its_end(repository, commits[-1], chosen)
    lengths = [span.length.total_seconds() for span in spans]
    span = stage.random.choices(spans, lengths)[0]
    moment = span.start + span.length * stage.random.random()
    target = RecoveryTarget(TargetKind.TIME, time=moment, timeline=span.timeline)
    return Aim(repository, None, target, "random moment", None)


class _Span(NamedTuple):
    """Moments of a timeline that recovery can stop at."""

    start: datetime
    length: timedelta
    timeline: int


def _span(window: Window) -> _Span | None:
    if window.end_time is None or window.end_time <= window.start_time:
        return None
    return _Span(
        window.start_time, window.end_time - window.start_time, window.timeline
    )
