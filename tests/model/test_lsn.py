from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drkit.model.lsn import Lsn

LSNS = st.integers(0, 2**64 - 1)


@given(LSNS)
def test_an_lsn_is_read_as_it_is_written(value: int) -> None:
    assert Lsn.parse(str(Lsn(value))) == value


def test_it_is_written_as_postgresql_does() -> None:
    assert str(Lsn(0x16B374D848)) == "16/B374D848"
    assert str(Lsn(0)) == "0/0"
    assert repr(Lsn(1)) == "Lsn('0/1')"


@given(LSNS, LSNS)
def test_lsns_compare_as_positions(first: int, second: int) -> None:
    assert (Lsn(first) < Lsn(second)) == (first < second)


@pytest.mark.parametrize(
    "text",
    ["", "16", "16/", "/1", "1/123456789", "g/0", "1/0\n", " 1/0", "-1/0", "1/2/3"],
)
def test_what_is_no_lsn_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no LSN"):
        Lsn.parse(text)
