"""The table of exit codes in the README is the one in the code."""

from __future__ import annotations

import re
from pathlib import Path

import drkit
from drkit.cli.backup import OBJECTIVE_MISSED
from drkit.cli.wal import OBJECTIVE_MISSED as WAL_OBJECTIVE_MISSED
from drkit.errors import DrkitError

README = Path(drkit.__file__).parents[1] / "README.md"
_ROW = re.compile(r"^\|\s*(\d+)\s*\|\s*([^|]*?)\s*\|\s*([^|]+?)\s*\|$", re.MULTILINE)
_CLASS = re.compile(r"\b[A-Z][A-Za-z]+\b")


def classes() -> dict[str, int]:
    found: dict[str, int] = {}
    left = [DrkitError]
    while left:
        each = left.pop()
        found[each.__name__] = each.exit_code
        left += each.__subclasses__()
    return found


def rows() -> dict[int, tuple[set[str], str]]:
    found = {}
    for code, names, meaning in _ROW.findall(README.read_text()):
        assert int(code) not in found, f"{code} has two rows"
        found[int(code)] = (set(_CLASS.findall(names)), meaning)
    return found


def test_every_class_stands_in_the_row_of_its_code() -> None:
    told = {name: code for code, (names, _) in rows().items() for name in names}
    assert told == classes()


def test_every_code_has_a_row_with_a_meaning() -> None:
    told = rows()
    assert set(told) >= {0, OBJECTIVE_MISSED, *classes().values()}
    assert OBJECTIVE_MISSED == WAL_OBJECTIVE_MISSED == 3
    assert all(len(meaning) > 3 for _, meaning in told.values())
