"""Verifying a repository: what is there, what is in it, and what can be restored.

Nothing is written but what was found damaged, for the next backup to store it anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from drkit.errors import (
    Corrupt,
    DrkitError,
    KeyUnavailable,
    NotFound,
    StorageError,
    WalMissing,
)
from drkit.model.damage import Damage, DamageKind
from drkit.model.depth import Depth
from drkit.model.wal import WalFileKind, parse_segment
from drkit.operations.blame import blamed
from drkit.operations.expiry import backup_expired, expiry_of
from drkit.operations.heads import log_standing
from drkit.operations.known import known_losses, known_objects
from drkit.operations.verifying.data import DataCheck, DataFound
from drkit.operations.verifying.evidence import check_evidence
from drkit.operations.verifying.names import unexpected
from drkit.operations.verifying.objects import verify_objects, with_ancestors
from drkit.operations.verifying.record import Recorded, record
from drkit.operations.verifying.wal import (
    expired_wal,
    lost_histories,
    wal_to_open,
    with_wal_backups,
)
from drkit.operations.wal_status import wal_status
from drkit.operations.windows import Lost, restorable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from drkit.model.log import Commit
    from drkit.model.log_head import LogHead
    from drkit.model.sample import Sample
    from drkit.model.wal import WalFileName
    from drkit.operations.heads import LogStanding
    from drkit.operations.journal import Journal
    from drkit.operations.verifying.objects import ObjectsFound
    from drkit.operations.windows import Restorable
    from drkit.protocols import Progress
    from drkit.repository.repository import Repository


@dataclass(frozen=True, slots=True)
class Request:
    """What to verify.

    Attributes:
        label: one backup with all that it builds on; None for everything.
        sample: the share of packs and WAL files whose content is looked at.
        jobs: threads that look at content.
        expected: a head that the log must have had.
    """

    label: str | None = None
    depth: Depth = Depth.DATA
    sample: Sample | None = None
    jobs: int = 2
    expected: LogHead | None = None


@dataclass(frozen=True, slots=True)
class Resumed:
    """What an interrupted verification had found sound already."""

    since: datetime
    objects: int


@dataclass(frozen=True, slots=True)
class Checked:
    """How much was looked at.

    Attributes:
        objects: that were looked for.
        opened: packs, fingerprints and WAL files whose content was checked, of `bytes`
            together;
            `pages` page checksums in it were verified.
    """

    objects: int
    opened: int = 0
    bytes: int = 0
    pages: int = 0


@dataclass(frozen=True, slots=True)
class Verification:
    """What a verification found.

    Attributes:
        log: its head, and what speaks against its being the last one.
        labels: the backups that were verified.
        restorable: given the damage; None if the timelines' histories are damaged.
        findings: name of the object that tells the next backup; None if there is
            nothing to tell, or it could not be written.
    """

    request: Request
    log: LogStanding
    time: datetime
    labels: tuple[str, ...]
    checked: Checked
    resumed: Resumed | None
    damage: tuple[Damage, ...]
    notes: tuple[str, ...]
    restorable: Restorable | None
    findings: str | None

    @property
    def exit_code(self) -> int:
        """0 if all is well; else that of damage, or of missing WAL."""
        codes = {one.exit_code for one in self.damage}
        codes |= {one.exit_code for one in self.log.alarms}
        if codes:
            return Corrupt.exit_code if Corrupt.exit_code in codes else min(codes)
        found = self.restorable
        if found is None:
            return Corrupt.exit_code
        lost = any(one.damaged for one in found.windows)
        if lost or any(one.damaged for one in found.unrestorable):
            return Corrupt.exit_code  # known from before, and not looked at again
        lacking = [one for one in found.windows if one.missing and not one.expired]
        return WalMissing.exit_code if lacking or found.unrestorable else 0


def verify(
    repository: Repository,
    request: Request,
    journal: Journal | None,
    progress: Progress,
) -> Verification:
    """Verify backups and WAL.

    Args:
        journal: what to go on with, and where to remember how far it came.

    Raises:
        NotFound: there is no such backup, or none at all, or it has just expired.
        Corrupt: not even the log's first entry can be believed.
        RolledBack: there is no backup, and the log's newest entries are gone.
        StorageError: the store failed in a way that may pass.
    """
    standing = _told_standing(repository, request, progress)
    chosen = _chosen(repository, request.label)
    commits = with_ancestors(repository, chosen)
    progress.phase("objects")
    objects = verify_objects(repository, chosen, progress)
    evidence, passed = _evidence(repository, request)
    data = DataFound()
    if request.depth is Depth.DATA:
        sealed = {one.backup for one in objects.damage if one.kind is DamageKind.KEY}
        openable = [one for one in commits if one.backup.label not in sealed]
        data = _data(repository, request, (chosen, openable), journal, progress)
    lost = Lost() if request.depth is Depth.DATA else known_losses(repository)
    doubtful = [*objects.damage, *data.damage, *filter(None, [evidence])]
    damage, found, notes = _concluded(repository, chosen, doubtful, data.segments, lost)
    _refuse_expired(repository, request, chosen)
    notes += [*objects.notes, *_notes(repository, request, objects, data), *passed]
    looked = data.looked | (frozenset() if journal is None else journal.done)
    recorded = Recorded(None, [], [])
    if not standing.alarms:  # else what was told for hidden backups would go
        recorded = record(repository, damage, looked, complete=_complete(request))
    if journal is not None:
        journal.finish()
    return Verification(
        request=request,
        log=standing,
        time=repository.clock.now(),
        labels=tuple(one.backup.label for one in commits),
        checked=Checked(objects.objects, len(data.looked), data.bytes, data.pages),
        resumed=_resumed(journal),
        damage=(*damage, *recorded.damage),
        notes=(*notes, *recorded.notes),
        restorable=found,
        findings=recorded.name,
    )


def _told_standing(
    repository: Repository, request: Request, progress: Progress
) -> LogStanding:
    """Say at once if the log's newest entries are gone: the rest may take hours.

    Raises:
        RolledBack: they are, and no backup is left.
    """
    standing = log_standing(repository, request.expected)
    for alarm in standing.alarms:
        if not repository.log.state.backups:
            raise alarm
        progress.warning(alarm.message, hint=alarm.hint)
    return standing


def _evidence(
    repository: Repository, request: Request
) -> tuple[Damage | None, tuple[str, ...]]:
    """Check the chain of evidence, unless one backup alone is verified."""
    return (None, ()) if request.label is not None else check_evidence(repository)


def _complete(request: Request) -> bool:
    """Say whether the content of every object is looked at."""
    whole = request.sample is None or request.sample.share == request.sample.of
    return request.depth is Depth.DATA and request.label is None and whole


def _chosen(repository: Repository, label: str | None) -> list[Commit]:
    if label is not None:
        return [repository.find(label)]
    commits = repository.backups()
    if not commits:
        raise NotFound(
            f"{repository.layout.cluster} has no backup that could be verified",
            hint=f"take one: drkit backup {repository.layout.cluster}",
        )
    return commits


def _data(
    repository: Repository,
    request: Request,
    commits: tuple[list[Commit], list[Commit]],
    journal: Journal | None,
    progress: Progress,
) -> DataFound:
    """Check the content of packs and WAL files whose turn it is."""
    chosen, all_commits = commits
    done = frozenset[str]() if journal is None else journal.done
    # Interrupted over midnight, a sample stays the one that it was begun as.
    begun = repository.clock.now() if journal is None else journal.begun
    day, sample = begun.toordinal(), request.sample
    known = known_objects(repository)  # their turn is every day

    def turn(name: str) -> bool:
        chosen = sample is None or name in known or sample.holds(name, day)
        return chosen and name not in done

    wal = wal_to_open(repository, chosen, everything=request.label is None)
    total = sum(one.backup.stored_bytes for one in all_commits)
    total += sum(wal.values())
    share = 1.0 if sample is None else sample.share / sample.of
    progress.phase("content", int(total * share))
    sound = (lambda _: None) if journal is None else journal.sound
    check = DataCheck(repository, turn, sound, progress)
    return check.run(all_commits, wal, request.jobs)


def _concluded(
    repository: Repository,
    chosen: Sequence[Commit],
    doubtful: Sequence[Damage],
    files: Sequence[WalFileName],
    lost: Lost,
) -> tuple[list[Damage], Restorable | None, list[str]]:
    """Say what is damaged and what can be restored, both by one state of the log."""
    while True:
        damage, notes = _settled(repository, doubtful)
        count, names = len(repository.log.entries), {one.name for one in damage}
        bad = [file for file in files if repository.wal.name(file) in names]
        damage, found = _restorable(repository, chosen, damage, bad, lost)
        repository.log.read()
        if len(repository.log.entries) == count:
            return damage, found, notes


def _refuse_expired(
    repository: Repository, request: Request, chosen: Sequence[Commit]
) -> None:
    """Refuse to call a backup sound, or damaged, that is gone.

    Raises:
        BackupExpired: the one that was asked for has expired meanwhile.
    """
    if request.label is not None:
        label = chosen[0].backup.label
        expired = expiry_of(repository, label)
        if expired is not None:
            raise backup_expired(repository, label, expired, "verified")


def _settled(
    repository: Repository, damage: Sequence[Damage]
) -> tuple[list[Damage], list[str]]:
    """Return damage once each, with whom it touches, without what expired meanwhile."""
    live = repository.log.read().backups
    once = {one.name: one for one in reversed(damage)}
    kept = [one for one in once.values() if one.backup is None or one.backup in live]
    kept = [one for one in kept if not expired_wal(repository, one)]
    gone = {one.backup for one in once.values() if one.backup} - live.keys()
    notes = [f"{label} expired while it was verified" for label in sorted(gone)]
    return sorted(blamed(repository, kept), key=lambda one: one.name), notes


def _restorable(
    repository: Repository,
    chosen: Sequence[Commit],
    damage: list[Damage],
    files: Sequence[WalFileName],
    known: Lost,
) -> tuple[list[Damage], Restorable | None]:
    """Say what can be restored in spite of the damage, and whom damaged WAL touches.

    Args:
        files: damaged WAL.
        known: what was found lost before, and was not looked at again.
    """
    live = repository.log.state.backups
    backups = [one.backup for one in chosen if one.backup.label in live]
    told = [with_wal_backups(repository, one, files, backups) for one in damage]
    why = {label: f"{one.name} {one.what}" for one in told for label in one.backups}
    size = chosen[0].backup.wal_segment_size
    segments = {
        parse_segment(file.name, size)
        for file in files
        if file.kind is WalFileKind.SEGMENT
    }
    try:
        lost = Lost(segments | set(known.segments), {**known.backups, **why})
        return told, restorable(repository, backups, lost)
    except (Corrupt, KeyUnavailable, NotFound, StorageError) as error:
        if isinstance(error, StorageError) and error.transient:
            raise
        return [*told, *_unknown(repository, error, told)], None


def _unknown(
    repository: Repository, error: DrkitError, told: Sequence[Damage]
) -> Iterator[Damage]:
    """Yield why what can be restored is not known, unless other damage tells it."""
    if all(one.exit_code != error.exit_code for one in told):
        opened = repository.log.state.opened
        name = repository.layout.wal(opened.system_identifier if opened else "")
        what = f"can't be followed: {error.message}"
        yield Damage(name, DamageKind.CONTENT, what, error.exit_code)


def _notes(
    repository: Repository, request: Request, objects: ObjectsFound, data: DataFound
) -> Iterator[str]:
    if request.label is None:
        yield from unexpected(repository, objects.packs)
        yield from lost_histories(repository)
        unsigned = wal_status(repository).unsigned
        if unsigned is not None:
            yield unsigned
    if data.split:
        yield f"{data.split} pages lie in two runs; their checksums were not verified"


def _resumed(journal: Journal | None) -> Resumed | None:
    if journal is None or not journal.done:
        return None
    return Resumed(journal.begun, len(journal.done))
