from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drkit.model.lsn import Lsn
from drkit.model.timeline import Switch, TimelineHistory

HISTORY = (
    "1\t0/3000110\tno recovery target specified\n\n2\t0/5000000\tat restore point\n"
)


def test_a_history_file_is_read() -> None:
    history = TimelineHistory.parse(3, HISTORY)
    assert history.switches == (Switch(1, Lsn(0x3000110)), Switch(2, Lsn(0x5000000)))


def test_comments_blanks_and_no_reason_are_read_as_the_server_does() -> None:
    text = "# made by hand\n   \n  1 0/3000110\n2\t0/5000000\twhy\n"
    assert len(TimelineHistory.parse(3, text).switches) == 2
    assert TimelineHistory.parse(1, "") == TimelineHistory(1)


@pytest.mark.parametrize("odd", ["\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\r"])
def test_a_restore_points_name_may_hold_any_character(odd: str) -> None:
    text = f'1\t0/3000110\tat restore point "a{odd}b"\n'
    assert TimelineHistory.parse(2, text).switches == (Switch(1, Lsn(0x3000110)),)


@pytest.mark.parametrize(
    "text",
    [
        "one\t0/1\twhy\n",
        "1\n",
        "1 0/xyz\n",
        "2\t0/1\twhy\n1\t0/2\twhy\n",
        "1\t0/1\twhy\n1\t0/2\twhy\n",
        "3\t0/1\twhy\n",
        "4\t0/1\twhy\n",
        "\u0661\t0/1\twhy\n",
    ],
)
def test_a_malformed_history_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="histor"):
        TimelineHistory.parse(3, text)


def test_positions_lie_on_a_history_up_to_the_switch() -> None:
    history = TimelineHistory.parse(3, HISTORY)
    assert history.contains(1, 0x3000110)
    assert not history.contains(1, 0x3000111)
    assert history.contains(3, 2**63)
    assert not history.contains(4, 0)
    assert history.end_of(3) is None
    with pytest.raises(KeyError):
        history.end_of(9)


@given(st.lists(st.integers(1, 50), max_size=4), st.integers(0, 250))
def test_each_byte_was_written_on_one_timeline(steps: list[int], lsn: int) -> None:
    ends = [sum(steps[: n + 1]) for n in range(len(steps))]
    switches = tuple(Switch(n + 1, Lsn(end)) for n, end in enumerate(ends))
    history = TimelineHistory(len(ends) + 1, switches)
    assert history.timeline_at(lsn) == 1 + sum(end <= lsn for end in ends)
    assert history.contains(history.timeline_at(lsn), lsn)
