"""Which WAL goes: never any that a kept or a running backup can need."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drkit.model.fingerprint import FingerprintPlace, Mode
from drkit.model.lsn import Lsn
from drkit.model.reach import reach
from drkit.model.timeline import Switch, TimelineHistory
from drkit.model.wal import Segment, WalFileName, parse_segment
from drkit.model.wal_retention import WalNeeds, before, wal_needs
from tests.builders import SEGMENT
from tests.catalogs import NOW, backup

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from drkit.model.backup import BackupSummary

DAY = timedelta(days=1)


def expired(needs: WalNeeds | None, names: Iterable[WalFileName]) -> list[WalFileName]:
    return [] if needs is None else list(filter(needs.test(), names))


def files(timeline: int, first: int, last: int) -> list[WalFileName]:
    return [
        WalFileName.parse(Segment(timeline, number).name(SEGMENT))
        for number in range(first, last + 1)
    ]


def going(
    archived: Iterable[WalFileName],
    kept: Sequence[BackupSummary],
    *,
    former: Sequence[BackupSummary] = (),
    running: Sequence[tuple[int, int]] = (),
    histories: Iterable[TimelineHistory] = (),
    window: timedelta | None = None,
) -> dict[int, list[int]]:
    """Return the numbers of the segments that expire, by timeline."""
    known = {history.timeline: history for history in histories}
    cutoff = None if window is None else NOW - window
    needs = wal_needs(kept, former, running, known, cutoff)
    found: dict[int, list[int]] = {}
    for file in expired(needs, archived):
        segment = parse_segment(file.name[:24], SEGMENT)
        found.setdefault(segment.timeline, []).append(segment.number)
    return found


def full(
    age: float, start: int, timeline: int = 1, stop: int | None = None
) -> BackupSummary:
    return backup(NOW - age * DAY, start=start, stop=stop, timeline=timeline)


def history(timeline: int, *switches: tuple[int, int]) -> TimelineHistory:
    """A history whose ancestors were left in the middle of these segments."""
    ends = (Switch(old, Lsn(at * SEGMENT + SEGMENT // 2)) for old, at in switches)
    return TimelineHistory(timeline, tuple(ends))


ALL = files(1, 0, 99)


def test_everything_before_the_oldest_kept_backup_goes() -> None:
    assert going(ALL, [full(9, 40), full(1, 80)]) == {1: list(range(40))}


def test_without_a_backup_nothing_goes() -> None:
    assert going(ALL, []) == {}
    assert going(ALL, [], former=[full(9, 40)], running=[(1, 50 * SEGMENT)]) == {}


def test_a_running_backup_keeps_wal_from_its_start() -> None:
    assert going(ALL, [full(9, 40)], running=[(1, 30 * SEGMENT + 5)]) == {
        1: list(range(30))
    }


def test_a_short_wal_window_leaves_older_backups_what_makes_them_consistent() -> None:
    kept = [full(30, 10, stop=12), full(20, 30), full(8, 50), full(1, 80)]
    gone = [*range(10), *range(13, 30), *range(31, 50)]
    assert going(ALL, kept, window=7 * DAY) == {1: gone}


def test_what_a_backup_is_compared_by_stays_with_it() -> None:
    taken = FingerprintPlace(Mode.SAMPLED, Lsn(14 * SEGMENT + 99))
    old = replace(full(30, 10, stop=12), fingerprint=taken)
    kept = [old, full(8, 50), full(1, 80)]
    gone = [*range(10), *range(15, 50)]
    assert going(ALL, kept, window=7 * DAY) == {1: gone}


def test_a_long_wal_window_keeps_more_than_backups_need() -> None:
    former = [full(50, 5), full(31, 20), full(20, 40)]
    kept = [full(2, 80)]
    assert going(ALL, kept, former=former, window=30 * DAY) == {1: list(range(20))}
    assert going(ALL, kept, former=former) == {1: list(range(80))}


def test_a_window_from_before_the_first_backup_keeps_everything() -> None:
    assert going(ALL, [full(9, 40)], window=10 * DAY) == {}


def test_backup_and_partial_files_go_with_their_segments() -> None:
    names = [
        "00000001.history",
        "00000002.history",
        "000000010000000000000027.00000028.backup",
        "000000010000000000000028.00000028.backup",
        "000000010000000000000027.partial",
        "000000010000000000000028.partial",
    ]
    needs = wal_needs([full(9, 0x28)], [], [], {}, None)
    gone = expired(needs, map(WalFileName.parse, names))
    assert [file.name for file in gone] == [names[2], names[4]]


def test_a_backup_before_the_switch_keeps_what_follows_on_both_timelines() -> None:
    archived = [*files(1, 0, 60), *files(2, 50, 99)]
    branches = [history(2, (1, 50))]
    kept = [full(9, 40), full(1, 80, timeline=2)]
    assert going(archived, kept, histories=branches) == {1: list(range(40))}


def test_a_stub_behind_the_switch_goes_when_no_backup_leads_there() -> None:
    """Timeline 1 went on to segment 70 after the recovery to the middle of 50."""
    archived = [*files(1, 0, 70), *files(2, 50, 99)]
    kept = [full(3, 60, timeline=2), full(1, 80, timeline=2)]
    told = going(archived, kept, histories=[history(2, (1, 50))])
    # The first segment of a kept backup stays on every timeline.
    assert told == {1: [*range(60), *range(61, 71)], 2: list(range(50, 60))}


def test_a_newer_timeline_without_a_backup_stays_whole() -> None:
    """A recovery to segment 30 is being backed up for the first time."""
    archived = [*files(1, 0, 70), *files(2, 30, 45)]
    kept = [full(3, 60)]
    for branches in ([], [history(2, (1, 30))]):
        assert going(archived, kept, histories=branches) == {1: list(range(60))}


def test_an_unknown_history_keeps_what_it_might_need() -> None:
    archived = [*files(1, 0, 99), *files(2, 0, 99), *files(3, 0, 99)]
    kept = [full(5, 20, timeline=2), full(1, 80, timeline=3)]
    known = {2: history(2, (1, 10)), 3: history(3, (1, 10))}
    told = going(archived, kept, histories=known.values())
    assert told == {
        1: [*range(20), *range(21, 80)],
        2: list(range(20)),
        3: [*range(20), *range(21, 80)],
    }
    told = going(archived, kept, histories=[known[2]])
    assert told[3] == list(range(20))


def bounds(
    archived: list[WalFileName], kept: list[BackupSummary], *known: TimelineHistory
) -> dict[int, float]:
    """What bounds say of what goes, in segments."""
    histories = {one.timeline: one for one in known}
    needs = wal_needs(kept, [], [], histories, None)
    assert needs is not None
    found = needs.bounds(filter(needs.test(), archived))
    return {timeline: bound / SEGMENT for timeline, bound in found.items()}


def test_bounds_lie_behind_the_last_that_goes_and_not_before_what_is_lacking() -> None:
    kept = [full(1, 80)]
    assert bounds(ALL, kept) == {1: 80}
    assert bounds(files(1, 0, 49), kept) == {1: 50}
    assert bounds(files(1, 80, 99), kept) == {}


def test_what_goes_of_a_timeline_bounds_those_that_lead_to_it() -> None:
    """Of timeline 1 nothing is listed: what begins there can't go on on 2 or 3."""
    branches = [history(2, (1, 50)), history(3, (1, 50), (2, 60))]
    kept = [full(1, 80, timeline=3)]
    archived = [*files(3, 60, 99)]
    assert bounds(archived, kept, *branches) == {1: 50.5, 2: 60.5, 3: 80}
    archived = [*files(1, 0, 70), *files(2, 50, 99)]
    kept = [full(1, 80, timeline=2)]
    assert bounds(archived, kept, branches[0]) == {1: 71, 2: 80}


def test_an_unknown_history_bounds_all_earlier_timelines() -> None:
    kept = [full(1, 80, timeline=3)]
    assert bounds(files(3, 60, 99), kept) == {1: 80, 2: 80, 3: 80}


def test_a_branch_from_far_back_is_not_bounded() -> None:
    """Recovery to an old moment makes a timeline that begins before the bound."""
    archived = [*ALL, *files(2, 20, 30)]
    assert bounds(archived, [full(1, 80)], history(2, (1, 20))) == {1: 80}


def test_segments_of_another_size_are_told_by_their_place_alone() -> None:
    """`pg_resetwal --wal-segsize` leaves two numberings in one archive."""
    old = replace(full(9, 0x180), wal_segment_size=1 << 20)  # LSN 1/80000028
    kept = [old, full(1, 0x400)]
    names = [
        "00000001" + high + low
        for high, low in (
            ("00000000", "000000FF"),
            ("00000001", "00000000"),
            ("00000001", "00000FFF"),
        )
    ]
    needs = wal_needs(kept, [], [], {}, None)
    gone = [file.name for file in expired(needs, map(WalFileName.parse, names))]
    assert gone == names[:1]
    assert needs is not None
    assert needs.bounds([WalFileName.parse(names[0])]) == {1: 1 << 32}


def test_a_span_longer_than_time_reaches_to_its_beginning() -> None:
    assert before(NOW, timedelta.max).year == 1
    assert before(NOW, DAY) == datetime(2026, 6, 14, 12, tzinfo=NOW.tzinfo)


@st.composite
def branches(draw: st.DrawFn) -> dict[int, TimelineHistory]:
    """Draw timelines that each leave an earlier one somewhere."""
    found = {1: TimelineHistory(1)}
    for timeline in range(2, draw(st.integers(1, 4)) + 1):
        parent = found[draw(st.sampled_from(sorted(found)))]
        lowest = int(parent.switches[-1].end) if parent.switches else 0
        end = lowest + draw(st.integers(1, 12)) * SEGMENT // 2
        switches = (*parent.switches, Switch(parent.timeline, Lsn(end)))
        found[timeline] = TimelineHistory(timeline, switches)
    return found


@given(branches(), st.data())
def test_recoveries_reach_as_far_as_before(
    histories: dict[int, TimelineHistory], data: st.DataObject
) -> None:
    """Wherever a kept backup led to before WAL was expired, it still does."""
    backups = []
    for number in range(data.draw(st.integers(1, 6))):
        timeline = data.draw(st.sampled_from(sorted(histories)))
        switches = histories[timeline].switches
        first = int(switches[-1].end) // SEGMENT + 1 if switches else 0
        start = first + data.draw(st.integers(0, 15))
        stop = start + data.draw(st.integers(0, 2))
        backups.append(full(60 - number * 10, start, timeline, stop=stop))
    chosen = data.draw(st.sets(st.sampled_from(range(len(backups)))))
    kept = [
        one for place, one in enumerate(backups) if place in {*chosen, len(backups) - 1}
    ]
    former = [one for one in backups if one not in kept]
    window = data.draw(st.none() | st.integers(1, 80))
    cutoff = None if window is None else NOW - window * DAY
    running = data.draw(
        st.lists(
            st.tuples(
                st.sampled_from(sorted(histories)),
                st.integers(0, 40).map(lambda n: n * SEGMENT),
            ),
            max_size=1,
        )
    )
    lacking = data.draw(st.sets(st.sampled_from(sorted(histories))))
    known = {one: history for one, history in histories.items() if one not in lacking}

    archived = {
        Segment(timeline, number)
        for timeline, history in histories.items()
        for number in range(
            int(history.switches[-1].end) // SEGMENT if history.switches else 0, 45
        )
    }
    needs = wal_needs(kept, former, running, known, cutoff)
    names = [WalFileName.parse(one.name(SEGMENT)) for one in sorted(archived)]
    gone = {parse_segment(file.name, SEGMENT) for file in expired(needs, names)}
    left = archived - gone

    for one in kept:
        for history in histories.values():
            if not history.contains(one.timeline, one.stop_lsn):
                continue
            full_reach = reach(one.start_lsn, history, archived, SEGMENT)
            still = reach(one.start_lsn, history, left, SEGMENT)
            assert still.end >= min(one.stop_lsn, full_reach.end)
            if cutoff is None or one.stop_time > cutoff:
                assert still.end == full_reach.end
    newest = kept[-1].start_lsn // SEGMENT
    assert all(segment.number < newest for segment in gone)
    for timeline, start in running:
        assert all(segment.number < start // SEGMENT for segment in gone), timeline
    limits = {} if needs is None else needs.bounds(expired(needs, names))
    assert all(start >= limits.get(timeline, 0) for timeline, start in running)
    whole = [one for one in kept if cutoff is None or one.stop_time > cutoff]
    assert all(one.start_lsn >= limits.get(one.timeline, 0) for one in whole)
    lost = data.draw(st.tuples(st.sampled_from(sorted(histories)), st.integers(0, 44)))
    begins_at_the_bound(lost, histories, limits, archived, left)


def begins_at_the_bound(
    place: tuple[int, int],
    histories: dict[int, TimelineHistory],
    limits: dict[int, Lsn],
    archived: set[Segment],
    left: set[Segment],
) -> None:
    """Whatever begins at or behind the bound can go on as far as it could before."""
    timeline, number = place
    start = number * SEGMENT + 0x28
    switches = histories[timeline].switches
    exists = not switches or start >= switches[-1].end
    if not exists or start < limits.get(timeline, 0):
        return
    for history in histories.values():
        if history.contains(timeline, start):
            before_it = reach(start, history, archived, SEGMENT)
            assert reach(start, history, left, SEGMENT).end == before_it.end


@pytest.mark.parametrize("window", [1, 7, 15, 25, 40])
def test_any_moment_of_the_wal_window_is_reached(window: int) -> None:
    """From the newest backup that ended before the moment, when all are kept."""
    kept = [full(40 - 5 * number, 10 * number) for number in range(8)]
    needs = wal_needs(kept, [], [], {}, NOW - window * DAY)
    gone = {file.name for file in expired(needs, ALL)}
    base = [one for one in kept if one.stop_time <= NOW - window * DAY][-1]
    first = base.start_lsn // SEGMENT
    assert gone.isdisjoint(file.name for file in files(1, first, 99))
    assert bool(gone) == (window < 40)
