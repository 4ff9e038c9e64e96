"""Shares of objects: deterministic, and complete in turn."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drkit.model.sample import Sample

shares = st.integers(1, 40).flatmap(
    lambda of: st.builds(Sample, st.integers(1, of), st.just(of))
)


@given(shares, st.text(max_size=50), st.integers(1, 1_000_000))
def test_every_object_has_its_turn_within_the_days_that_it_takes(
    sample: Sample, name: str, day: int
) -> None:
    days = -(-sample.of // sample.share)
    turns = [sample.holds(name, day + offset) for offset in range(days)]
    assert any(turns)
    if sample.of % sample.share == 0:
        assert sum(turns) == 1


def test_a_seventh_is_about_a_seventh() -> None:
    names = [f"alpha/backups/x/packs/{number:06d}" for number in range(7000)]
    chosen = sum(Sample(1, 7).holds(name, 739000) for name in names)
    assert 850 < chosen < 1150


@pytest.mark.parametrize("text", ["", "1", "0/7", "8/7", "1/0", "-1/7", "1/7/2", "a/b"])
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="share"):
        Sample.parse(text)


def test_a_share_is_written_as_it_is_read() -> None:
    assert str(Sample.parse("2/7")) == "2/7"
    assert all(Sample.parse("3/3").holds(name, 1) for name in "abcdef")
