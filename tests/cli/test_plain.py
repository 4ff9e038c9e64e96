"""Plain arguments mean to drkit what they mean to typer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.core import TyperCommand

from drkit.cli.app import COMMANDS, make_app
from drkit.cli.plain import PlainCommand, PlainGroup

if TYPE_CHECKING:
    from collections.abc import Iterator

WHOLE: Any = typer.main.get_command(make_app())
VALUES = (
    *("", "x", "json", "text", "latest", "full", "0", "1", "007", "65", "9" * 12),
    *("-1", "é", "\udcff", "\u0662", "true", "--", "-q", "a b", "file.yaml"),
)


def commands(group: Any = WHOLE, path: tuple[str, ...] = ()) -> Iterator[Any]:
    for name, one in group.commands.items():
        below = getattr(one, "commands", None)
        if below is None:
            yield pytest.param(one, id=" ".join((*path, name)))
        else:
            assert isinstance(one, PlainGroup)
            yield from commands(one, (*path, name))


ALL = list(commands())


def words(command: Any) -> st.SearchStrategy[list[str]]:
    """Return command lines that make sense more often than not."""
    options = [
        name for one in command.params for name in (*one.opts, *one.secondary_opts)
    ]
    flags = [name for name in options if name.startswith("-")]
    value = st.sampled_from(VALUES)
    option = st.sampled_from([*flags, "--nope"])
    return st.lists(
        st.one_of(
            value.map(lambda one: [one]),
            option.map(lambda one: [one]),
            st.tuples(option, value).map(list),
            st.tuples(option, value).map(lambda two: ["=".join(two)]),
        ),
        max_size=5,
    ).map(lambda parts: [word for part in parts for word in part])


def parsed(command: Any, parse: Any, arguments: list[str]) -> Any:
    """Return the values, or the error."""
    context = command.context_class(command, info_name="x")
    try:
        left = parse(command, context, list(arguments))
    except Exception as error:
        return type(error), getattr(error, "message", str(error))
    # To the callback an empty list is none, where none is the default.
    values = {name: None if one == () else one for name, one in context.params.items()}
    kinds = {name: type(one) for name, one in values.items()}
    return left, context.args, values, kinds


@pytest.mark.parametrize("command", ALL)
def test_what_typer_makes_of_it(command: Any) -> None:
    assert isinstance(command, PlainCommand)

    @settings(max_examples=60, deadline=None)
    @given(words(command))
    def check(arguments: list[str]) -> None:
        ours = parsed(command, type(command).parse_args, arguments)
        assert ours == parsed(command, TyperCommand.parse_args, arguments)

    check()


def test_the_table_of_modules_is_that_of_the_commands() -> None:
    for module, names in COMMANDS.items():
        group: Any = typer.main.get_command(make_app([module]))
        assert tuple(group.commands) == names
    found = [name for names in COMMANDS.values() for name in names]
    assert sorted(WHOLE.commands) == sorted(found)


@pytest.mark.parametrize(
    "arguments",
    [
        "info production",
        "backup production --type full --jobs 2 --output json -q",
        "wal status production",
        "restore production latest --to /x --target-time=2026-01-01 --plan",
        "drill list production",
        "expire production --plan --log-level debug",
    ],
)
def test_commands_import_neither_pydantic_nor_each_other(
    arguments: str, tmp_path: Path
) -> None:
    program = (
        "import sys\n"
        "from drkit.cli.app import run\n"
        "code = run(sys.argv[1:])\n"
        "print(code, *sorted(sys.modules))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments.split(), "--policy-dir", tmp_path],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    code, *modules = done.stdout.split()
    assert code == "10" or "there is no policy named" in done.stderr, done.stderr
    assert {"pydantic", "pydantic_core", "yaml"}.isdisjoint(modules)
    others = {"drkit.cli.demo", "drkit.cli.init", "drkit.cli.heartbeat"}
    assert others.isdisjoint(modules)
