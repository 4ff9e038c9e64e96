"""Which backups are kept and which expire, with every reason: a pure function.

Rules only ever keep. What no rule keeps expires, but for what is kept whatever the
policy says: the newest backup, the newest that was proven to restore, what is pinned,
and everything that a kept or a running backup builds on. Days, weeks, months and years
are those of UTC, weeks begin on Monday.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, timedelta
from typing import TYPE_CHECKING, NamedTuple

from drkit.model.clock import CLOCKS_DIFFER
from drkit.model.duration import format_duration
from drkit.model.label import BackupKind
from drkit.model.wal_retention import before, leading_backups

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
    from datetime import datetime

    from drkit.model.backup import BackupSummary
    from drkit.model.log import Pin
    from drkit.model.retention import Retention
    from drkit.model.timeline import TimelineHistory

_ALONE = {BackupKind.DUMP: "dump", BackupKind.FILES: "file set"}
_PERIODS: dict[str, Callable[[datetime], str]] = {
    "daily": lambda time: f"{time:%Y-%m-%d}",
    "weekly": lambda time: f"week {time:%G-W%V}",
    "monthly": lambda time: f"{time:%Y-%m}",
    "yearly": lambda time: f"{time:%Y}",
}


class Reason(NamedTuple):
    """Why a backup is kept, or that nothing keeps it.

    Attributes:
        rule: of the retention, by its name in a policy; or `newest`, `undamaged`,
            `proven`, `pin`, `parent`, `running`, `future`; `none` if it expires.
        text: in words.
    """

    rule: str
    text: str


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of a backup."""

    backup: BackupSummary
    parent: str | None
    kept: bool
    reasons: tuple[Reason, ...]

    @property
    def label(self) -> str:
        """The backup's label."""
        return self.backup.label


@dataclass(frozen=True, slots=True)
class Catalog:
    """What a log says of a cluster's backups, as far as it decides about them.

    Attributes:
        backups: the live ones, in the log's order.
        parents: of those that have one.
        pins: by label.
        proven: labels of those that were proven to restore.
        running: label of each running attempt's parent, and that attempt's own label.
        histories: of the timelines that are known; timeline 1 has none.
    """

    backups: tuple[BackupSummary, ...]
    parents: Mapping[str, str] = field(default_factory=dict)
    pins: Mapping[str, Pin] = field(default_factory=dict)
    proven: Collection[str] = ()
    running: Mapping[str, str] = field(default_factory=dict)
    histories: Mapping[int, TimelineHistory] = field(default_factory=dict)

    def ancestors(self, label: str) -> Iterator[str]:
        """Yield what a backup builds on, its parent first."""
        while (parent := self.parents.get(label)) is not None:
            yield parent
            label = parent


def fates(catalog: Catalog, retention: Retention, now: datetime) -> tuple[Fate, ...]:
    """Return each backup's fate, in the catalog's order.

    Args:
        now: a time that the caller has found plausible.
    """
    reasons: dict[str, list[Reason]] = {one.label: [] for one in catalog.backups}
    for group in _groups(catalog.backups):
        for label, reason in _reasons(catalog, group, retention, now):
            reasons[label].append(reason)
    for label, reason in _held(catalog, now):
        if label in reasons:
            reasons[label].append(reason)
    _keep_ancestors(catalog, reasons)
    nothing = (Reason("none", f"no rule keeps it ({_rules(retention)})"),)
    return tuple(
        Fate(
            one,
            catalog.parents.get(one.label),
            bool(reasons[one.label]),
            tuple(reasons[one.label]) or nothing,
        )
        for one in catalog.backups
    )


def lapsed(pin: Pin, now: datetime) -> bool:
    """Say whether a pin holds no longer."""
    return pin.until is not None and pin.until <= now


def _groups(backups: Iterable[BackupSummary]) -> list[list[BackupSummary]]:
    """Part base backups, dumps and file sets: one is no substitute for another."""
    groups: dict[str, list[BackupSummary]] = defaultdict(list)
    for one in backups:
        groups[_ALONE.get(one.kind, "backup")].append(one)
    return list(groups.values())


def _reasons(
    catalog: Catalog, group: list[BackupSummary], retention: Retention, now: datetime
) -> Iterator[tuple[str, Reason]]:
    """Yield what rules say of backups of one group, in the log's order."""
    yield from _last_good(catalog, group)
    past = []
    for one in group:
        if one.stop_time <= now + CLOCKS_DIFFER:
            past.append(one)
        else:
            ended = one.stop_time.isoformat(sep=" ", timespec="seconds")
            text = f"it ended in the future, at {ended}: a clock is or was wrong"
            yield one.label, Reason("future", text)
    if retention.full is not None:
        yield from _full(catalog, group, retention.full)
    if retention.window is not None:
        yield from _window(catalog, past, retention.window, now)
    for rule, name_of in _PERIODS.items():
        count = getattr(retention, rule)
        if count is not None:
            yield from _periods(past, rule, count, name_of)


def _last_good(
    catalog: Catalog, group: list[BackupSummary]
) -> Iterator[tuple[str, Reason]]:
    """Yield the newest, the newest without damage and the newest proven backup."""
    word = _ALONE.get(group[-1].kind, "backup")
    yield group[-1].label, Reason("newest", f"the newest {word} is always kept")
    damaged = {one.label for one in group if one.damaged_pages}
    for one in reversed(group):
        if damaged.isdisjoint((one.label, *catalog.ancestors(one.label))):
            if one is not group[-1]:
                text = "the newest without damaged pages is always kept"
                yield one.label, Reason("undamaged", text)
            break
    proven = [one.label for one in group if one.label in catalog.proven]
    if proven:
        text = "the newest that was proven to restore is always kept"
        yield proven[-1], Reason("proven", text)


def _full(
    catalog: Catalog, group: list[BackupSummary], count: int
) -> Iterator[tuple[str, Reason]]:
    roots: dict[str, str] = {}
    for one in group:
        parent = catalog.parents.get(one.label, "")
        roots[one.label] = roots.get(parent, one.label)
    chosen = [label for label, root in roots.items() if label == root][-count:]
    word = _ALONE.get(group[-1].kind, "full backup")
    which = f"one of the {count} newest {word}s" if count > 1 else f"the newest {word}"
    for label, root in roots.items():
        if root in chosen:
            what = which if label == root else f"an incremental of {root}"
            yield label, Reason("full", f"full: {count}: {what}")


def _window(
    catalog: Catalog, past: list[BackupSummary], window: timedelta, now: datetime
) -> Iterator[tuple[str, Reason]]:
    cutoff = before(now, window)
    rule = f"window: {format_duration(window)}"
    for one in past:
        if one.stop_time > cutoff:
            yield one.label, Reason("window", f"{rule}: it ended within it")
    for one in leading_backups(past, catalog.histories, cutoff):
        text = f"{rule}: recovery to the window's first moments begins with it"
        yield one.label, Reason("window", text)


def _periods(
    past: list[BackupSummary], rule: str, count: int, name_of: Callable[[datetime], str]
) -> Iterator[tuple[str, Reason]]:
    """Yield the newest backup of each of the newest periods that have one."""
    newest = {name_of(one.stop_time.astimezone(UTC)): one.label for one in past}
    for name in sorted(newest, reverse=True)[:count]:
        yield newest[name], Reason(rule, f"{rule}: {count}: the newest of {name}")


def _held(catalog: Catalog, now: datetime) -> Iterator[tuple[str, Reason]]:
    """Yield what people and running backups hold."""
    for label, pin in catalog.pins.items():
        if not lapsed(pin, now):
            end = "" if pin.until is None else f" until {pin.until.isoformat(sep=' ')}"
            yield label, Reason("pin", f"pinned{end}: {pin.reason}")
    for parent, child in catalog.running.items():
        yield parent, Reason("running", f"{child}, which is running, builds on it")


def _keep_ancestors(catalog: Catalog, reasons: dict[str, list[Reason]]) -> None:
    """Keep what kept backups build on; children come behind their parents."""
    children: dict[str, list[str]] = defaultdict(list)
    for label in reversed(list(reasons)):
        building = children[label]
        if building:
            more = f" and {len(building) - 1} more" if len(building) > 1 else ""
            verb = "build" if more else "builds"
            reasons[label].append(Reason("parent", f"{building[0]}{more} {verb} on it"))
        parent = catalog.parents.get(label)
        if reasons[label] and parent in reasons:
            children[parent] += [label]


def _rules(retention: Retention) -> str:
    rules = {
        "full": retention.full,
        "window": retention.window and format_duration(retention.window),
        **{rule: getattr(retention, rule) for rule in _PERIODS},
    }
    return ", ".join(f"{rule}: {value}" for rule, value in rules.items() if value)
