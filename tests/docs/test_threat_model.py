"""Each promise of docs/threat-model.md names the test that holds it."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
PAGE = (TOP / "docs/threat-model.md").read_text()
# `tests/a/test_b.py::test_c`, or `::test_d` for another one of the same file
_NAMED = re.compile(r"(tests/[\w/]+\.py)?(?:::(\w+))?")


def promises() -> list[tuple[str, str]]:
    """The rows of the tables of promises: the promise, and its tests."""
    rows, told = [], False
    for line in PAGE.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("| promise"):
            told = True
        elif not line.startswith("|"):
            told = False
        elif told and not line.startswith("|---"):
            assert len(cells) == 4, line
            rows.append((cells[0], cells[3]))
    return rows


@cache
def names_in(path: str) -> frozenset[str]:
    tree = ast.parse((TOP / path).read_text())
    return frozenset(
        node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)
    )


def test_there_are_promises() -> None:
    assert len(promises()) > 40


@pytest.mark.parametrize(("promise", "tests"), promises())
def test_its_tests_are_there(promise: str, tests: str) -> None:
    path, found = "", 0
    for match in _NAMED.finditer(tests):
        path = match[1] or path
        if not match[0]:
            continue
        assert (TOP / path).is_file(), path
        if match[2]:
            assert match[2] in names_in(path), f"{path}::{match[2]}"
        else:
            assert any(name.startswith("test_") for name in names_in(path)), path
        found += 1
    assert found, promise
