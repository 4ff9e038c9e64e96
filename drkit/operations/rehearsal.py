"""One rehearsed recovery: restore, replay, prove, clear away, and write the evidence.

A verification and a drill are the same run with another beginning: a verification
chooses a backup and a moment, a drill plays a disaster and decides as a person would.
Nothing of production's is written to but its chain of evidence and its log.
"""

from __future__ import annotations

import os
import platform
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from drkit import __version__
from drkit.errors import DrkitError, Interrupted, NotFound, NotProven
from drkit.model.evidence import (
    Actor,
    Check,
    CheckState,
    Cleanup,
    Forecast,
    Measure,
    Outcome,
    Record,
    RecordKind,
    Restored,
)
from drkit.model.log import Proven
from drkit.model.manifest import CONTROL_FILE
from drkit.model.owner import Owner
from drkit.model.recovery import TargetKind
from drkit.model.verification import CheckName
from drkit.operations.archive import archived_wal
from drkit.operations.forecasting import outlook_of_plan
from drkit.operations.heads import confirm_head
from drkit.operations.heartbeat import read_beat
from drkit.operations.limited import Limited
from drkit.operations.proving.checks import Subject, prove
from drkit.operations.rpo import check_beat, measure_rpo
from drkit.operations.scratch.instance import scratch_instance, sweep_left_overs
from drkit.operations.stage import Stage
from drkit.operations.stopwatch import UNTIL_READY
from drkit.operations.timestamps import stamp
from drkit.postgres.control import read_control
from drkit.repository.chain import lineage
from drkit.repository.evidence import append, head_digest
from drkit.repository.fingerprint import fingerprint_of
from drkit.repository.heads import head_of

if TYPE_CHECKING:
    from datetime import datetime

    from drkit.model.backup import BackupSummary
    from drkit.model.fingerprint import Fingerprint
    from drkit.model.log import LogState
    from drkit.operations.restore import RestorePlan
    from drkit.operations.scratch.instance import LeftOver, Recovered, Scratch
    from drkit.operations.stage import Aim, Site, Task
    from drkit.postgres.process import Account
    from drkit.protocols import Progress
    from drkit.repository.evidence import Place
    from drkit.repository.repository import Repository

READY = "ready"
CHECKS = "checks"
MISSED_EXIT = 3


class Rehearsed(NamedTuple):
    """How it ended.

    Attributes:
        error: what kept it from being carried through.
        left_overs: of runs that died; they were removed first.
    """

    record: Record
    place: Place
    error: DrkitError | None
    left_overs: tuple[LeftOver, ...]

    @property
    def exit_code(self) -> int:
        """0 if all objectives are met, 3 if one was missed, else the failure's own."""
        if self.record.outcome is Outcome.MET:
            return 0
        if self.record.outcome is Outcome.MISSED:
            return MISSED_EXIT
        return (self.error or NotProven("")).exit_code


def rehearse(site: Site, task: Task, progress: Progress) -> Rehearsed:
    """Rehearse a recovery and write its record, whatever came of it.

    Raises:
        NotFound: there is no backup, or no server of its version to run.
        Corrupt, KeyUnavailable: the chain of evidence can't be gone on with.
        RolledBack: the log's newest entries are gone or hidden.
        Interrupted: a signal came; there is no record then, and nothing is left behind.
    """
    confirm_head(site.repository)
    newest = _newest(site.repository)
    _need_evidence(site.repository)
    options = site.scratch(newest.server_version // 10000)
    left = tuple(sweep_left_overs(options.directory))
    for one in left:
        progress.warning(
            f"removed {one.path}, which a run that died on {one.since:%Y-%m-%d %H:%M} "
            "left behind",
            path=one.path,
            bytes=one.bytes,
        )
    run = _Run(site, task, progress, version=str(options.binaries.major))
    with scratch_instance(options, site.repository.clock) as scratch:
        run.carry_out(scratch, _owner(options.account))
    run.cleanup = scratch.cleanup
    place, record = run.write_evidence()
    return Rehearsed(record, place, run.error, left)


@dataclass(slots=True)
class _Run:
    """What one run has found so far."""

    site: Site
    task: Task
    progress: Progress
    version: str
    error: DrkitError | None = None
    stage: Stage | None = None
    aim: Aim | None = None
    restored: Restored | None = None
    rto: Measure | None = None
    rpo: Measure | None = None
    forecast: Forecast | None = None
    cleanup: Cleanup | None = None
    checks: list[Check] = field(default_factory=list)
    deviations: list[str] = field(default_factory=list)

    def carry_out(self, scratch: Scratch, owner: Owner | None) -> None:
        """Restore and prove; a failure is kept for the record."""
        limit = self.site.rules.time_limit.total_seconds()
        clock = self.site.repository.clock
        progress = Limited(self.progress, clock, limit)
        self.stage = Stage(self.site, scratch, owner, progress)
        try:
            self._recover(self.stage, scratch, progress)
        except Interrupted:
            raise
        except DrkitError as error:
            self.error = error
        self.deviations += scratch.deviations
        if scratch.confined_by:
            self.stage.notes.append(scratch.confined_by)

    def _recover(self, stage: Stage, scratch: Scratch, progress: Limited) -> None:
        watch = stage.watch
        aim = self.aim = self.task.aim(stage)
        with watch.phase("plan"):
            plan = stage.plan(aim)
        self.forecast = self._forecast(plan)
        with watch.phase("fetch"):
            stage.fetch(aim, plan)
        self.restored = _restored(aim.repository, plan, None)
        begin, since = watch.elapsed(), stage.repository.clock.now()
        progress.phase("recover")
        wal = aim.repository.wal
        system = plan.page_map.head.server.system_identifier
        recovered = scratch.recover(
            progress.left(), lambda name: archived_wal(wal, name, system)
        )
        watch.recovery(begin, since, recovered)
        self.restored = _restored(aim.repository, plan, recovered)
        with watch.phase(READY):
            self.version = _write_something(scratch)
        ready = watch.elapsed()
        with watch.phase(CHECKS):
            self._prove(aim, plan, scratch, recovered, progress)
        self._measure_rto(ready, watch.seconds((CHECKS,)))

    def _prove(
        self,
        aim: Aim,
        plan: RestorePlan,
        scratch: Scratch,
        recovered: Recovered,
        progress: Limited,
    ) -> None:
        head = plan.page_map.head
        if self._latest():
            self.checks.append(_wal(plan, aim.repository.log.state))
        expected, at_it = self._expected(aim, plan)
        subject = Subject(
            server=scratch.server,
            data_directory=scratch.data_directory,
            connect=lambda name: scratch.connect(name or ""),
            database=self.site.database,
            system_identifier=head.server.system_identifier,
            timeline=_timeline(scratch),
            segment_blocks=head.server.relation_segment_size,
            checksums=head.server.data_checksums,
        )
        clock = self.site.repository.clock
        deadline = clock.monotonic() + progress.left()
        proof = prove(
            subject,
            self.site.rules,
            expected,
            clock,
            progress,
            deadline,
            at_fingerprint=at_it,
        )
        self.checks += proof.checks
        self.deviations += proof.deviations
        if aim.proofs is not None:
            self.checks += aim.proofs(scratch, recovered)
        if aim.disaster is not None:
            self._measure_rpo(aim.disaster, scratch, recovered)

    def _expected(self, aim: Aim, plan: RestorePlan) -> tuple[Fingerprint | str, bool]:
        """Return the backup's fingerprint, and whether recovery stops just there."""
        try:
            found = fingerprint_of(aim.repository, plan.page_map.head)
        except DrkitError as error:
            return error.message, False
        if found is None:
            return "no fingerprint was taken with this backup", False
        target = aim.target
        at_it = target.kind is TargetKind.NAME and target.name == found.restore_point
        return found, at_it

    def _measure_rto(self, ready: float, checks: float) -> None:
        watch = self.stage.watch if self.stage else None
        assert watch is not None
        spent = watch.seconds((*UNTIL_READY, READY))
        target = self.site.objectives.rto
        counts = self.task.kind is RecordKind.DRILL or self._latest()
        self.rto = Measure(
            target.total_seconds() if target and counts else None,
            spent,
            f"from the loss to a server that takes writes, {ready:.1f} s after the "
            f"start; the checks behind it took {checks:.1f} s more. What people take "
            "to notice and to decide is not in it",
        )

    def _measure_rpo(
        self, disaster: datetime, scratch: Scratch, recovered: Recovered
    ) -> None:
        with closing(scratch.connect(self.site.heartbeat_database)) as connection:
            beat = read_beat(connection)
        target = self.site.objectives.rpo
        every = self.site.heartbeat_every
        self.rpo = measure_rpo(
            beat,
            recovered.reached_time,
            disaster,
            target.total_seconds() if target else None,
            every,
        )
        if CheckName.HEARTBEAT in self.site.rules.checks:
            check = check_beat(beat, disaster, every, recovered.reached_time)
            self.checks.append(check)
            if check.state is CheckState.NOT_DONE:
                self.deviations.append(f"{check.name} was not checked: {check.detail}")

    def _latest(self) -> bool:
        return self.aim is not None and self.aim.target.kind is TargetKind.LATEST

    def _forecast(self, plan: RestorePlan) -> Forecast | None:
        found = outlook_of_plan(self.site.repository, plan)
        return None if found is None else found.forecast

    def _outcome(self) -> Outcome:
        cleaned = self.cleanup is not None and self.cleanup.proven
        accepted = self.site.rules.accepts(self.checks)
        if self.error is not None or not (accepted and cleaned):
            return Outcome.FAILED
        missed = any(one is not None and one.missed for one in (self.rto, self.rpo))
        return Outcome.MISSED if missed else Outcome.MET

    def write_evidence(self) -> tuple[Place, Record]:
        """Sign the record, and mark the backup as proven if all checks passed."""
        repository, finished = self.site.repository, self.site.repository.clock.now()
        made: list[Record] = []

        def build(sequence: int, previous: str) -> Record:
            made.append(self._record(sequence, previous, finished))
            return made[-1]

        try:
            place = append(repository, build)
        except DrkitError:
            self.progress.warning(
                f"no record of this run could be written; it ended as "
                f"{self._outcome()}: {self._summary()}"
            )
            raise
        stamp(repository, place, self.site.rules, self.progress)
        record = made[-1]
        if record.outcome is not Outcome.FAILED and record.restored is not None:
            label = record.restored.label
            repository.log.append(lambda _: Proven(label, finished, place.digest))
        return place, record

    def _summary(self) -> str:
        """Say how it ended, for where no record does."""
        if self.error is not None:
            return _told(self.error)
        failed = [one for one in self.checks if one.state is CheckState.FAILED]
        told = "; ".join(f"{one.name}: {one.detail}" for one in failed)
        return told or f"{len(self.checks)} checks, none failed"

    def _record(self, sequence: int, previous: str, finished: datetime) -> Record:
        stage, opened = self.stage, self.site.repository.log.state.opened
        assert stage is not None
        assert opened is not None
        return Record(
            kind=self.task.kind,
            sequence=sequence,
            previous=previous,
            cluster=self.site.repository.layout.cluster,
            system_identifier=opened.system_identifier,
            started=stage.watch.began,
            finished=finished,
            outcome=self._outcome(),
            scenario=self.task.scenario,
            chosen=self.aim.chosen if self.aim else "",
            restored=self.restored,
            actor=self._actor(),
            phases=tuple(stage.watch.phases),
            rto=self.rto,
            rpo=self.rpo,
            checks=tuple(self.checks),
            deviations=tuple(self.deviations),
            forecast=self.forecast,
            cleanup=self.cleanup,
            failure="" if self.error is None else _told(self.error),
            notes=(*stage.notes, self._head()),
        )

    def _head(self) -> str:
        return f"the log's head was {head_of(self.site.repository.log.entries)}"

    def _actor(self) -> Actor:
        return Actor(
            drkit=__version__,
            python=platform.python_version(),
            postgresql=self.version,
            host=self.site.host,
            system=f"{platform.system()} {platform.release()}",
            configuration=self.site.configuration,
        )


def _need_evidence(repository: Repository) -> None:
    """Refuse a run that could not be recorded, before it takes its hours.

    Raises:
        KeyUnavailable: the signing key can't be read.
        Corrupt: the chain of evidence can't be gone on with.
    """
    repository.log.identity.signer()
    head_digest(repository)


def _newest(repository: Repository) -> BackupSummary:
    commits = repository.backups()
    if not commits:
        cluster = repository.layout.cluster
        raise NotFound(
            f"{cluster} has no backup to restore",
            hint=f"take one: drkit backup {cluster}",
        )
    return commits[-1].backup


def _restored(
    repository: Repository, plan: RestorePlan, recovered: Recovered | None
) -> Restored:
    layers, backup = plan.page_map.layers, plan.backup
    commits = lineage(repository.log.state, plan.choice.commit)
    return Restored(
        label=backup.label,
        chain=tuple(layer.head.label for layer in layers),
        manifests=tuple(one.manifest.sha256 for one in commits),
        key_ids=tuple(layer.head.dek_id for layer in layers),
        start_lsn=str(backup.start_lsn),
        stop_lsn=str(backup.stop_lsn),
        target=str(plan.request.target),
        reached_lsn=recovered.reached_lsn if recovered else None,
        reached_time=recovered.reached_time if recovered else None,
        timeline=recovered.timeline if recovered else None,
        wal_segments=recovered.wal_segments if recovered else 0,
        bytes=plan.write_bytes,
        fetched_bytes=plan.fetch_bytes,
    )


def _wal(plan: RestorePlan, state: LogState) -> Check:
    """Look whether all archived WAL was replayed: a hole in it hides the rest."""
    reached, size = plan.choice.reach, plan.backup.wal_segment_size
    count = len(reached.segments)
    if not reached.gap:
        detail = f"{count} segments behind {plan.backup.label}, without a hole"
        return Check("wal", CheckState.PASSED, detail, 0.0, count)
    missing = reached.missing.name(size)
    if state.wal_expired(reached.missing, size):
        detail = f"{count} segments behind {plan.backup.label}; the next have expired"
        return Check("wal", CheckState.PASSED, detail, 0.0, count)
    detail = f"segment {missing} is missing or damaged; what was archived behind it "
    detail += f"can't be had: recovery ends at {reached.end}"
    return Check("wal", CheckState.FAILED, detail, 0.0, count)


def _write_something(scratch: Scratch) -> str:
    """Commit a transaction, or the server is not ready; return its version."""
    asked = "SELECT pg_current_xact_id(), current_setting('server_version')"
    with closing(scratch.connect()) as connection:
        return str(connection.query(asked)[0][1])


def _owner(account: Account) -> Owner | None:
    """Return to whom root gives the restored files; None: they stay the caller's."""
    return Owner(account.uid, account.gid) if os.geteuid() == 0 else None


def _timeline(scratch: Scratch) -> int:
    """Return the timeline that the promotion began."""
    path = os.path.join(scratch.data_directory, os.fsdecode(CONTROL_FILE))
    return read_control(path)[0].timeline


def _told(error: DrkitError) -> str:
    return f"{error.message} ({error.hint})" if error.hint else error.message
