"""Expiring backups and WAL: a plan that can be printed, then its execution."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from drkit.errors import ClockImplausible, Retained
from drkit.model.clock import clock_doubt
from drkit.model.fate import fates, lapsed
from drkit.model.log import AttemptState, ExpireDone, ExpireIntent, Unpin
from drkit.operations.alarms import log_alarms
from drkit.operations.attempts import abandon_dead
from drkit.operations.deleting import delete_all, delete_backup, needed_keys
from drkit.operations.expire_wal import NothingToWrite, expire_wal
from drkit.operations.heads import confirm_head
from drkit.operations.retaining import catalog_of, needs_of, read_histories

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from drkit.model.fate import Catalog, Fate
    from drkit.model.log import Begin, Entry, LogState
    from drkit.model.retention import Retention
    from drkit.model.timeline import TimelineHistory
    from drkit.protocols import Progress
    from drkit.repository.repository import Repository
    from drkit.repository.wal import StoredWal

Labels = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ExpirePlan:
    """What an expiry would do; nothing is done yet.

    Attributes:
        time: the moment that retention was judged at.
        fates: of every live backup, in the log's order.
        chains: what this run deletes, oldest chain first; children before parents.
        deferred: what expires as well but is left to later runs, by the limit.
        unfinished: what an earlier run has expired and not deleted to the end.
        wal: the archived files that nothing needs once `chains` are gone.
        notes: what a person should know.
    """

    cluster: str
    time: datetime
    retention: Retention
    fates: tuple[Fate, ...]
    chains: tuple[Labels, ...]
    deferred: Labels
    unfinished: Labels
    wal: tuple[StoredWal, ...]
    histories: dict[int, TimelineHistory]
    notes: tuple[str, ...]

    @property
    def wal_bytes(self) -> int:
        """What the WAL that goes takes in the repository."""
        return sum(stored.size for stored in self.wal)


@dataclass(slots=True)
class Expired:
    """What an expiry has done.

    Attributes:
        labels: backups whose objects are deleted, those of earlier runs included.
        kept: what was to go and stays, because the log has changed since the plan.
        retained: expired backups of which the store keeps objects; later runs try on.
        wal_files, wal_bytes: deleted WAL.
        wal_retained: WAL files that the store keeps.
    """

    labels: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    retained: list[str] = field(default_factory=list)
    wal_files: int = 0
    wal_bytes: int = 0
    wal_retained: int = 0


def plan_expire(
    repository: Repository,
    retention: Retention,
    now: datetime,
    *,
    most: int | None = None,
    accept_clock: bool = False,
) -> ExpirePlan:
    """Judge every backup and all archived WAL; change nothing.

    Args:
        most: how many backups to delete at most; None: as the retention says.
        accept_clock: whether to believe `now` whatever the log says.

    Raises:
        RepositoryMissing: this cluster was never set up here.
        ClockImplausible: `now` can't be right.
        RolledBack: the log's newest entries are gone or hidden.
    """
    confirm_head(repository)
    if not accept_clock:
        refuse_clock(repository, now)
    state = repository.log.state
    histories, unreadable = read_histories(repository)
    catalog = catalog_of(state, histories)
    judged = fates(catalog, retention, now)
    chains = _chains(catalog, judged)
    limit = retention.max_deletions if most is None else most
    going, deferred = _limited(chains, limit)
    notes = [*log_alarms(repository)]
    if unreadable:
        notes.append(
            f"{unreadable} timeline histories can't be read: more WAL is kept than may "
            "be needed"
        )
    return ExpirePlan(
        cluster=repository.layout.cluster,
        time=now,
        retention=retention,
        fates=judged,
        chains=going,
        deferred=deferred,
        unfinished=tuple(sorted(state.expiring)),
        wal=_expired_wal(repository, retention, histories, now, going),
        histories=histories,
        notes=tuple(notes),
    )


def refuse_clock(repository: Repository, now: datetime) -> None:
    """Refuse a time that the log, as it was read, speaks against.

    Raises:
        ClockImplausible: says why.
    """
    written = (logged.time for logged in reversed(repository.log.entries))
    doubt = clock_doubt(now, written)
    if doubt is not None:
        raise ClockImplausible(
            f"nothing of {repository.layout.cluster} is expired: {doubt}",
            hint="see whether this host's clock is right (`timedatectl`); if it is, "
            "run `drkit expire` with --accept-clock, or wait until backups have gone "
            "on for a week",
        )


def execute_expire(
    repository: Repository, plan: ExpirePlan, host: str, progress: Progress
) -> Expired:
    """Do what a plan says, as far as the log still allows it.

    Each chain's fate is judged again as its intent is written. Whatever interrupts
    this, running it again goes on where it stopped.

    Raises:
        RolledBack: the log's newest entries are gone or hidden; nothing is deleted.
    """
    done = Expired()
    progress.phase("backups")
    confirm_head(repository)
    _delete(repository, sorted(repository.log.state.expiring, reverse=True), done)
    for chain in plan.chains:
        labels = _intend(repository, plan, chain)
        done.kept += [label for label in chain if label not in labels]
        _delete(repository, labels, done)
        if labels:
            progress.event("backups expired", labels=list(labels))
    progress.phase("wal")
    _delete_wal(repository, plan, done)
    _tell(done, progress)
    progress.phase("left-overs")
    abandon_dead(repository, host, progress)
    return done


def _tell(done: Expired, progress: Progress) -> None:
    """Tell what stays though it was to go."""
    for label in done.kept:
        progress.event("kept after all: the log has changed", label=label)
    for label in done.retained:
        progress.warning("the store keeps objects of an expired backup", label=label)
    if done.wal_retained:
        progress.warning("the store keeps expired WAL", files=done.wal_retained)


def _chains(catalog: Catalog, judged: Iterable[Fate]) -> list[list[str]]:
    """Return what expires, by the full backup it builds on, children first."""
    chains: dict[str, list[str]] = {}
    for fate in judged:
        root = [fate.label, *catalog.ancestors(fate.label)][-1]
        chain = chains.setdefault(root, [])
        if not fate.kept:
            chain.insert(0, fate.label)
    return [chain for chain in chains.values() if chain]


def _limited(chains: list[list[str]], most: int) -> tuple[tuple[Labels, ...], Labels]:
    """Part what a run may delete from what has to wait for the next."""
    going: list[Labels] = []
    deferred: list[str] = []
    for chain in chains:
        taken, most = chain[:most], most - min(most, len(chain))
        deferred += chain[len(taken) :]
        if taken:
            going.append(tuple(taken))
    return tuple(going), tuple(sorted(deferred))


def _expired_wal(
    repository: Repository,
    retention: Retention,
    histories: dict[int, TimelineHistory],
    now: datetime,
    chains: Iterable[Labels],
) -> tuple[StoredWal, ...]:
    going = {label for chain in chains for label in chain}
    needs = needs_of(repository, retention, histories, now, going)
    if needs is None:
        return ()
    expired = needs.test()
    return tuple(one for one in repository.wal.list() if expired(one.file))


def _intend(repository: Repository, plan: ExpirePlan, chain: Labels) -> Labels:
    """Write the intent to expire what still expires of a chain; return that."""
    for label in chain:
        _lift_pin(repository, label, plan.time)

    def decide(state: LogState) -> Entry:
        labels = _still_expiring(plan, state, chain)
        if not labels:
            raise NothingToWrite
        return ExpireIntent(labels)

    try:
        entry = repository.log.append(decide).entry
    except NothingToWrite:
        return ()
    return entry.labels if isinstance(entry, ExpireIntent) else ()


def _lift_pin(repository: Repository, label: str, now: datetime) -> None:
    """Unpin a backup whose pin has lapsed: the log lets nothing pinned expire."""

    def decide(state: LogState) -> Entry:
        pin = state.pins.get(label)
        if pin is None or not lapsed(pin, now):
            raise NothingToWrite
        return Unpin(label)

    if label in repository.log.state.pins:
        try:
            repository.log.append(decide)
        except NothingToWrite:
            return


def _still_expiring(plan: ExpirePlan, state: LogState, chain: Sequence[str]) -> Labels:
    """Return what of a chain expires by what the log says now."""
    catalog = catalog_of(state, plan.histories)
    judged = fates(catalog, plan.retention, plan.time)
    expiring = {fate.label for fate in judged if not fate.kept}
    children: dict[str, list[str]] = defaultdict(list)
    for child, parent in catalog.parents.items():
        children[parent].append(child)
    going: dict[str, None] = {}
    for label in chain:  # children before parents
        alone = all(child in going for child in children[label])
        if label in expiring and label not in state.pins and alone:
            going[label] = None
    return tuple(going)


def _delete(repository: Repository, labels: Sequence[str], done: Expired) -> None:
    """Delete what an intent names, and write that it is done."""
    if not labels:
        return
    begun = _begun(repository.log.state)
    needed = needed_keys(repository)
    deleted = []
    for label in labels:
        try:
            delete_backup(repository, begun[label], needed)
        except Retained:
            done.retained.append(label)
        else:
            deleted.append(label)
    _write_done(repository, deleted)
    done.labels += deleted


def _begun(state: LogState) -> dict[str, Begin]:
    return {
        attempt.begin.label: attempt.begin
        for attempt in state.attempts.values()
        if attempt.state is AttemptState.COMMITTED
    }


def _write_done(repository: Repository, labels: Sequence[str]) -> None:
    """Write that backups are deleted, unless another host has written it meanwhile."""

    def decide(state: LogState) -> Entry:
        left = tuple(label for label in labels if label in state.expiring)
        if not left:
            raise NothingToWrite
        return ExpireDone(left)

    try:
        repository.log.append(decide)
    except NothingToWrite:
        return


def _delete_wal(repository: Repository, plan: ExpirePlan, done: Expired) -> None:
    """Delete the plan's WAL that nothing needs, as the log says now."""
    going = expire_wal(
        repository,
        plan.wal,
        lambda: needs_of(repository, plan.retention, plan.histories, plan.time),
    )
    sizes = {repository.wal.name(one.file, one.number): one.size for one in going}
    retained = delete_all(repository.storage, list(sizes))
    done.wal_retained = len(retained)
    done.wal_files = len(sizes) - len(retained)
    done.wal_bytes = sum(sizes.values()) - sum(sizes[name] for name in retained)
