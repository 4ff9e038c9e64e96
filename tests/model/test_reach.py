from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from drkit.model.lsn import Lsn
from drkit.model.reach import Gap, gaps, reach
from drkit.model.timeline import Switch, TimelineHistory
from drkit.model.wal import Segment

SIZE = 10
SEGMENTS = st.sets(st.builds(Segment, st.integers(1, 4), st.integers(0, 8)))


@st.composite
def histories(draw: st.DrawFn) -> TimelineHistory:
    ends = sorted(draw(st.sets(st.integers(1, 80), max_size=3)))
    switches = tuple(Switch(n + 1, Lsn(end)) for n, end in enumerate(ends))
    return TimelineHistory(len(ends) + 1, switches)


def byte_is_there(lsn: int, history: TimelineHistory, archived: set[Segment]) -> bool:
    """Say so by the definition: a file of the history whose stretch holds the byte.

    The first file of a timeline repeats its parent's bytes before the switch.
    """
    begins = [0, *(switch.end for switch in history.switches)]
    number = lsn // SIZE
    for timeline in range(1, history.timeline + 1):
        end = history.end_of(timeline)
        lives_here = (number + 1) * SIZE > begins[timeline - 1]
        before_end = end is None or lsn < end
        if lives_here and before_end and Segment(timeline, number) in archived:
            return True
    return False


@given(st.integers(0, 85), histories(), SEGMENTS)
@example(
    0,
    TimelineHistory(3, (Switch(1, Lsn(3)), Switch(2, Lsn(5)))),
    {Segment(1, 0), Segment(2, 0)},
)
@settings(max_examples=500)
def test_wal_reaches_as_far_as_every_byte_is_there(
    start: int, history: TimelineHistory, archived: set[Segment]
) -> None:
    expected = start
    while expected < 200 and byte_is_there(expected, history, archived):
        expected += 1
    found = reach(start, history, archived, SIZE)
    assert found.end == expected
    assert found.missing not in archived
    assert set(found.segments) <= archived


@given(histories(), st.integers(0, 6))
def test_a_gap_is_seen_when_later_segments_are_there(
    history: TimelineHistory, number: int
) -> None:
    complete = {
        Segment(timeline, one)
        for timeline in range(1, 5)
        for one in range(12)
        if history.contains(timeline, one * SIZE)
    }
    assert not reach(0, history, complete, SIZE).gap
    holed = {segment for segment in complete if segment.number != number}
    assert reach(0, history, holed, SIZE).gap
    assert reach(0, history, holed, SIZE).end <= number * SIZE


def test_a_segment_of_a_branch_that_was_left_is_no_gap() -> None:
    history = TimelineHistory(2, (Switch(1, Lsn(25)),))
    archived = {Segment(1, n) for n in range(9)} | {Segment(2, 2), Segment(2, 3)}
    found = reach(0, history, archived, SIZE)
    assert (found.end, found.gap, found.missing) == (40, False, Segment(2, 4))


@given(SEGMENTS)
def test_gaps_are_what_lacks_between_first_and_last(archived: set[Segment]) -> None:
    missing = {
        Segment(gap.first.timeline, number)
        for gap in gaps(archived)
        for number in range(gap.first.number, gap.last.number + 1)
    }
    assert not missing & archived
    for timeline in {segment.timeline for segment in archived}:
        numbers = [one.number for one in archived if one.timeline == timeline]
        whole = {Segment(timeline, n) for n in range(min(numbers), max(numbers) + 1)}
        assert {one for one in missing if one.timeline == timeline} == whole - archived


def test_a_gap_names_its_ends() -> None:
    archived = [Segment(1, 1), Segment(1, 5), Segment(2, 9)]
    assert gaps(archived) == [Gap(Segment(1, 2), Segment(1, 4))]
