"""What every session of drkit has in common, whoever owns the database."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import drkit

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCES = sorted(Path(*drkit.__path__).rglob("*.py"))
ASKING = [path for path in SOURCES if {"postgres", "operations"} & set(path.parts)]
# What follows these words is a relation's name, a function's, or a query in brackets.
_NAMED = re.compile(
    r"\b(?:FROM|JOIN|INTO|UPDATE|LOCK TABLE(?: ONLY)?|TABLE(?: IF EXISTS)?|COPY)\s+"
    r"(?:ONLY\s+)?([a-z_][a-z0-9_.]*)\b(?!\s*=)"
)
_STATEMENT = re.compile(r"^\s*(?:SELECT|WITH|INSERT|UPDATE|DELETE|LOCK|CREATE TABLE)\b")
# Names that a query gives itself, words of the grammar, and tables of the demo's own.
_OWN_NAMES = {
    *("changing", "part", "one", "public.payments", "only"),
    *("drkit.heartbeat", "unnest", "generate_series", "clock_timestamp"),
}


def statements(path: Path) -> Iterator[str]:
    """Yield the texts of a module that are SQL; f-strings put in names of catalogs."""
    for node in ast.walk(ast.parse(path.read_text())):
        text = ""
        if isinstance(node, ast.JoinedStr):
            parts = [getattr(part, "value", None) for part in node.values]
            text = "".join(x if isinstance(x, str) else "pg_put_in" for x in parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = node.value
        if _STATEMENT.match(text):
            yield text


@pytest.mark.parametrize(
    "path", ASKING, ids=lambda path: str(path.relative_to(Path(*drkit.__path__)))
)
def test_what_is_not_pg_catalogs_is_named_with_its_schema(path: Path) -> None:
    for text in statements(path):
        for name in _NAMED.findall(re.sub(r"--[^\n]*", "", text)):
            known = name.startswith(("pg_", "pg_catalog.")) or name in _OWN_NAMES
            assert known, f"{name} in {path.name}: {text}"


def test_there_is_one_place_that_opens_sessions() -> None:
    """What pins their settings is called there."""
    opening = re.compile(r"(?:psycopg|Connection|PGconn)\.connect\(")
    found = [path.name for path in SOURCES if opening.search(path.read_text())]
    assert found == ["connection.py"]
    text = Path(*drkit.__path__, "postgres", "connection.py").read_text()
    assert "if pin(connection)" in text


def test_the_first_statement_hangs_on_no_search_path() -> None:
    """No name without a schema, and no operator: both would be looked up."""
    from drkit.postgres import session_settings

    first = session_settings._FIRST
    assert re.findall(r"(?<![.\w])[a-z_]+\(", first) == []
    assert re.findall(r"[=<>+*/|~-]|\bFROM\b|::", first) == []
