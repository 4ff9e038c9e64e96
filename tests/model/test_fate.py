"""What retention keeps, and why: golden tables, and what must always hold."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drkit.model.fate import Catalog, Fate, fates, lapsed
from drkit.model.label import BackupKind
from drkit.model.log import Pin
from drkit.model.lsn import Lsn
from drkit.model.retention import Retention
from drkit.model.timeline import Switch, TimelineHistory
from tests.builders import SEGMENT
from tests.catalogs import DUMP, FILES, FULL, INCR, NOW, backup

if TYPE_CHECKING:
    from drkit.model.backup import BackupSummary

DAY = timedelta(days=1)


@dataclass
class Made:
    """A catalog that is made backup by backup, oldest first; names stand for labels."""

    backups: dict[str, BackupSummary]
    parents: dict[str, str]

    def catalog(self, **more: object) -> Catalog:
        summaries = [replace(one, label=name) for name, one in self.backups.items()]
        return Catalog(tuple(summaries), self.parents, **more)  # type: ignore[arg-type]


def made(text: str) -> Made:
    """Read backups like `f1@30 i1<f1@29.5 f2@2!`: name, parent, days ago, damage."""
    kinds = {"f": FULL, "i": INCR, "d": DUMP, "s": FILES}
    found = Made({}, {})
    for number, word in enumerate(text.split()):
        name, _, age = word.rstrip("!").partition("@")
        name, _, parent = name.partition("<")
        ended = NOW - float(age) * DAY
        kind = kinds[name[0]]
        damaged = int(word.endswith("!"))
        found.backups[name] = backup(ended, kind, start=number + 1, damaged=damaged)
        if parent:
            found.parents[name] = parent
    return found


def rules(judged: tuple[Fate, ...]) -> dict[str, str]:
    """By name the rules that keep a backup; empty where it expires."""
    return {
        fate.label: " ".join(reason.rule for reason in fate.reasons)
        if fate.kept
        else ""
        for fate in judged
    }


# backups; retention; what keeps each of them
GOLDEN = [
    (
        "f1@30 i1<f1@29 f2@20 i2<f2@19 f3@10 i3<f3@9 i4<i3@8",
        Retention(full=2),
        {
            "f1": "",
            "i1": "",
            "f2": "full parent",
            "i2": "full",
            "f3": "full parent",
            "i3": "full parent",
            "i4": "newest full",
        },
    ),
    ("f1@3 f2@2 f3@1", Retention(full=1), {"f1": "", "f2": "", "f3": "newest full"}),
    ("f1@3", Retention(full=7), {"f1": "newest full"}),
    (  # recovery to any moment of the last week begins with f2, which is older
        "f1@20 f2@10 i1<f2@8 f3@6 f4@1",
        Retention(window=7 * DAY),
        {
            "f1": "",
            "f2": "parent",
            "i1": "window",
            "f3": "window",
            "f4": "newest window",
        },
    ),
    (  # exactly as old as the window: it is the one that recovery begins with
        "f1@8 f2@7 f3@1",
        Retention(window=7 * DAY),
        {"f1": "", "f2": "window", "f3": "newest window"},
    ),
    (  # nobody backed up for a year
        "f1@400 f2@380",
        Retention(window=7 * DAY),
        {"f1": "", "f2": "newest window"},
    ),
    (
        "f1@3.5 f2@3.2 f3@2.2 f4@1.2 f5@1.1 f6@0.1",
        Retention(daily=3),
        {
            "f1": "",
            "f2": "",
            "f3": "daily",
            "f4": "",
            "f5": "daily",
            "f6": "newest daily",
        },
    ),
    (  # days without a backup don't count
        "f1@300 f2@200 f3@100",
        Retention(daily=2),
        {"f1": "", "f2": "daily", "f3": "newest daily"},
    ),
    (  # 15 June 2026 is a Monday: f3 is of another week than f4
        "f1@8 f2@3 f3@1 f4@0.1",
        Retention(weekly=2),
        {"f1": "", "f2": "", "f3": "weekly", "f4": "newest weekly"},
    ),
    (  # 14.6 days before noon of the 15th is still 31 May, in UTC 21:36
        "f1@40 f2@14.6 f3@14.4 f4@2",
        Retention(monthly=2),
        {"f1": "", "f2": "monthly", "f3": "", "f4": "newest monthly"},
    ),
    (
        "f1@900 f2@600 f3@300 f4@2",
        Retention(yearly=2),
        {"f1": "", "f2": "", "f3": "yearly", "f4": "newest yearly"},
    ),
    (  # grandfather, father, son: an incremental keeps its chain
        "f1@60 i1<f1@50 f2@16 i2<f2@15 f3@1 i3<f3@0.1",
        Retention(monthly=3, daily=1),
        {
            "f1": "parent",
            "i1": "monthly",
            "f2": "parent",
            "i2": "monthly",
            "f3": "parent",
            "i3": "newest daily monthly",
        },
    ),
    (  # the newest is damaged, so the newest that is not stays as well
        "f1@9 f2@8 f3@7! f4@6!",
        Retention(full=1),
        {"f1": "", "f2": "undamaged", "f3": "", "f4": "newest full"},
    ),
    (  # an incremental is no better than what it builds on
        "f1@9 f2@8! i1<f2@7",
        Retention(full=1),
        {"f1": "undamaged", "f2": "full parent", "i1": "newest full"},
    ),
    (  # dumps and file sets stand for themselves
        "f1@9 d1@8 s1@7 f2@6 d2@5 s2@4",
        Retention(full=1),
        {
            "f1": "",
            "d1": "",
            "s1": "",
            "f2": "newest full",
            "d2": "newest full",
            "s2": "newest full",
        },
    ),
    (
        "d1@9 d2@8 d3@1 f1@0.5",
        Retention(window=2 * DAY),
        {"d1": "", "d2": "window", "d3": "newest window", "f1": "newest window"},
    ),
    (  # what ended in the future can't be judged, and displaces nothing
        "f1@3 f2@-3650 f3@2 f4@1",
        Retention(daily=2),
        {"f1": "", "f2": "future", "f3": "daily", "f4": "newest daily"},
    ),
]


@pytest.mark.parametrize(("text", "retention", "expected"), GOLDEN)
def test_golden(text: str, retention: Retention, expected: dict[str, str]) -> None:
    assert rules(fates(made(text).catalog(), retention, NOW)) == expected


def test_the_rules_say_what_keeps_a_backup() -> None:
    text = "f1@45 i1<f1@44 f2@10 i2<f2@9 i3<f2@8"
    until = NOW + 9 * DAY
    catalog = made(text).catalog(
        pins={"f1": Pin("f1", "before the migration", until)},
        proven={"f2", "f1"},
        running={"i3": "20260615-120000-incr"},
    )
    retention = Retention(full=1, window=9.5 * DAY, monthly=2)
    window = "window: 9 days 12 hours"
    told = {
        fate.label: [reason.text for reason in fate.reasons]
        for fate in fates(catalog, retention, NOW)
    }
    assert told == {
        "f1": [
            "pinned until 2026-06-24 12:00:00+00:00: before the migration",
            "i1 builds on it",
        ],
        "i1": ["monthly: 2: the newest of 2026-05"],
        "f2": [
            "the newest that was proven to restore is always kept",
            "full: 1: the newest full backup",
            f"{window}: recovery to the window's first moments begins with it",
            "i3 and 1 more build on it",
        ],
        "i2": [
            "full: 1: an incremental of f2",
            f"{window}: it ended within it",
        ],
        "i3": [
            "the newest backup is always kept",
            "full: 1: an incremental of f2",
            f"{window}: it ended within it",
            "monthly: 2: the newest of 2026-06",
            "20260615-120000-incr, which is running, builds on it",
        ],
    }


def test_what_expires_says_by_which_rules() -> None:
    retention = Retention(full=1, window=3 * DAY, weekly=1)
    first, *_ = fates(made("f1@30 f2@20 f3@1").catalog(), retention, NOW)
    (reason,) = first.reasons
    assert reason.text == "no rule keeps it (full: 1, window: 3 days, weekly: 1)"


def test_a_pin_holds_until_its_end() -> None:
    pin = Pin("f1", "audit", NOW)
    assert lapsed(pin, NOW)
    assert not lapsed(pin, NOW - timedelta(seconds=1))
    assert not lapsed(replace(pin, until=None), datetime.max.replace(tzinfo=UTC))
    catalog = made("f1@30 f2@1").catalog(pins={"f1": pin})
    for now, kept in ((NOW - timedelta(seconds=1), "pin"), (NOW, "")):
        assert rules(fates(catalog, Retention(full=1), now))["f1"] == kept


def test_no_backups_have_no_fates() -> None:
    assert fates(Catalog(()), Retention(full=1), NOW) == ()


def on(timeline: int, age: float, start: int, name: str) -> BackupSummary:
    ended = NOW - age * DAY
    return replace(backup(ended, start=start, timeline=timeline), label=name)


def history(timeline: int, *switches: tuple[int, int]) -> TimelineHistory:
    """A history whose ancestors were left in the middle of these segments."""
    ends = [
        Switch(before, Lsn(number * SEGMENT + SEGMENT // 2))
        for before, number in switches
    ]
    return TimelineHistory(timeline, tuple(ends))


def test_a_window_follows_the_branch_that_was_recovered_to() -> None:
    """A recovery went back to segment 50; what was backed up behind that is a stub."""
    backups = (
        on(1, 20, 10, "old"),
        on(1, 12, 40, "base"),
        on(1, 11, 60, "lost"),
        on(2, 3, 70, "new"),
    )
    histories = {2: history(2, (1, 50))}
    kept = rules(
        fates(Catalog(backups, histories=histories), Retention(window=7 * DAY), NOW)
    )
    assert kept == {
        "old": "",
        "base": "window",
        "lost": "",
        "new": "newest window",
    }
    without = rules(fates(Catalog(backups), Retention(window=7 * DAY), NOW))
    assert without["lost"] == "window", "an unknown history keeps what may be needed"


def test_both_branches_of_the_window_are_kept() -> None:
    backups = (
        on(1, 12, 40, "before the switch"),
        on(1, 11, 60, "behind it"),
        on(1, 6, 80, "of the old branch"),
        on(2, 3, 70, "of the new one"),
    )
    histories = {2: history(2, (1, 50))}
    judged = fates(
        Catalog(backups, histories=histories), Retention(window=7 * DAY), NOW
    )
    assert all(fate.kept for fate in judged)


@st.composite
def catalogs(draw: st.DrawFn) -> Catalog:
    """Draw any catalog that a log can come to hold; clocks may have lied."""
    count = draw(st.integers(0, 14))
    backups: list[BackupSummary] = []
    parents: dict[str, str] = {}
    for number in range(count):
        kind = draw(st.sampled_from(list(BackupKind)))
        bases = [one.label for one in backups if one.kind in (FULL, INCR)]
        if kind is INCR and not bases:
            kind = FULL
        name = f"{number:02d}-{kind}"
        if kind is INCR:
            parents[name] = draw(st.sampled_from(bases))
        age = (
            draw(st.integers(-3000, 30_000)) / 24
            if draw(st.booleans())
            else 60 - number
        )
        summary = backup(
            NOW - age * DAY,
            kind,
            start=number,
            timeline=draw(st.integers(1, 3)),
            damaged=draw(st.sampled_from([0, 0, 1])),
        )
        backups.append(replace(summary, label=name))
    labels = [one.label for one in backups]
    some = st.sets(st.sampled_from(labels)) if labels else st.just(set())
    ends = st.none() | st.integers(-100, 100).map(lambda days: NOW + days * DAY)
    return Catalog(
        tuple(backups),
        parents,
        pins={label: Pin(label, "why", draw(ends)) for label in draw(some)},
        proven=draw(some),
        running=dict.fromkeys(draw(some), "running"),
        histories={2: history(2, (1, draw(st.integers(0, 14))))},
    )


COUNTS = st.none() | st.integers(1, 5)
SPANS = st.none() | st.integers(1, 10**4).map(lambda hours: timedelta(hours=hours))
RULES: dict[str, st.SearchStrategy[Any]] = {
    "full": COUNTS,
    "window": SPANS,
    "daily": COUNTS,
    "weekly": COUNTS,
    "monthly": COUNTS,
    "yearly": COUNTS,
}
RETENTIONS = (st.fixed_dictionaries(RULES).filter(lambda one: any(one.values()))).map(
    lambda one: Retention(**one)
)


@given(catalogs(), RETENTIONS)
def test_whatever_the_rules_nothing_that_matters_expires(
    catalog: Catalog, retention: Retention
) -> None:
    judged = fates(catalog, retention, NOW)
    kept = {fate.label for fate in judged if fate.kept}
    assert [fate.backup for fate in judged] == list(catalog.backups)
    assert all(fate.reasons for fate in judged)
    for label in kept:
        assert kept.issuperset(catalog.ancestors(label))
    groups = ((FULL, INCR), (DUMP,), (FILES,))
    for kinds in groups:
        group = [one for one in catalog.backups if one.kind in kinds]
        if group:
            assert group[-1].label in kept
        good = [one.label for one in group if not damaged(catalog, one.label)]
        assert set(good[-1:]) <= kept
        proven = [one.label for one in group if one.label in catalog.proven]
        assert set(proven[-1:]) <= kept
    assert {
        label for label, pin in catalog.pins.items() if not lapsed(pin, NOW)
    } <= kept
    assert catalog.running.keys() <= kept


def damaged(catalog: Catalog, label: str) -> bool:
    chain = {label, *catalog.ancestors(label)}
    return any(one.damaged_pages for one in catalog.backups if one.label in chain)


@given(catalogs(), RETENTIONS, RETENTIONS)
def test_another_rule_never_expires_more(
    catalog: Catalog, one: Retention, other: Retention
) -> None:
    def kept(retention: Retention) -> set[str]:
        return {fate.label for fate in fates(catalog, retention, NOW) if fate.kept}

    both: dict[str, Any] = {
        name: getattr(one, name) or getattr(other, name) for name in RULES
    }
    assert kept(one) <= kept(Retention(**both))
    larger: dict[str, Any] = {
        name: max(
            filter(None, (getattr(one, name), getattr(other, name))), default=None
        )
        for name in RULES
    }
    assert kept(one) | kept(other) <= kept(Retention(**larger))


@given(catalogs(), RETENTIONS, st.integers(0, 5000))
def test_a_moment_of_the_window_has_its_backup(
    catalog: Catalog, retention: Retention, minutes: int
) -> None:
    """The newest backup that had ended by any moment of the window is kept."""
    if retention.window is None:
        return
    moment = NOW - min(timedelta(minutes=minutes), retention.window)
    only = [
        replace(one, timeline=1) for one in catalog.backups if one.kind in (FULL, INCR)
    ]
    only.sort(key=lambda one: one.stop_time)
    judged = fates(Catalog(tuple(only)), retention, NOW)
    ended = [fate for fate in judged if fate.backup.stop_time <= moment]
    assert all(fate.kept for fate in ended[-1:])
