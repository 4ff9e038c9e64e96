"""Plain arguments of commands, turned into values without typer's machinery.

Typer has pydantic convert each value; importing that takes longer than most commands.
What is understood here is text, whole numbers, words of an enumeration and flags. The
words are told apart by typer's own parser all the same, and all that is not plainly
right is left to typer: only it says what is wrong.
"""

from __future__ import annotations

import inspect
from enum import StrEnum
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin

from typer.core import TyperCommand, TyperGroup

if TYPE_CHECKING:
    from collections.abc import Mapping

_MORE_THAN_A_TYPE = ("callback", "parser", "click_type", "envvar", "default_factory")
_MAX_DIGITS = 9


class PlainGroup(TyperGroup):
    """A group of typer's that converts nothing where a command comes at once."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the group's own options into the context; return what is left over."""
        # Even of its help, which nobody asked for then, typer converts the absence.
        self.add_help_option = not (args and args[0] in self.commands)
        try:
            return super().parse_args(ctx, args)
        finally:
            self.add_help_option = True


class PlainCommand(TyperCommand):
    """A command of typer's that converts plain arguments by itself."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the arguments' values into the context; return what is left over."""
        given, left, _ = self.make_parser(ctx).parse_args(args=list(args))
        asked_for_help = any(given.get(one) for one in given.keys() - self._names())
        values = None if left or asked_for_help else self._values(given)
        if values is None:
            return super().parse_args(ctx, args)
        ctx.params.update(values)
        ctx.args = []
        return []

    def _names(self) -> set[str]:
        return set(self._parameters())

    def _parameters(self) -> Mapping[str, inspect.Parameter]:
        assert self.callback is not None
        return inspect.signature(self.callback).parameters

    def _values(self, given: Mapping[str, object]) -> dict[str, Any] | None:
        """Return every parameter's value; None if one of them is not plain."""
        try:
            return {
                name: plain_value(parameter, given.get(name))
                for name, parameter in self._parameters().items()
            }
        except ValueError:
            return None


def plain_value(parameter: inspect.Parameter, given: object) -> Any:
    """Return a parameter's value.

    Args:
        parameter: of the command's function, with the annotation that typer reads.
        given: what the command line has for it; None for nothing.

    Raises:
        ValueError: none, where one is needed; a wrong one; or one of another kind than
            those that are plain.
    """
    kind, info = _declared(parameter.annotation)
    if any(getattr(info, one, None) for one in _MORE_THAN_A_TYPE):
        raise ValueError("not only converted")
    if given is None:
        if parameter.default is inspect.Parameter.empty:
            raise ValueError("missing")
        return parameter.default
    if kind is bool:
        return _flag(given)
    if not isinstance(given, str):
        raise ValueError("not one word")  # noqa: TRY004
    return _word(kind, info, given)


def _declared(annotation: Any) -> tuple[Any, Any]:
    """Return a parameter's type, None left out, and what typer is told of it."""
    info = None
    if get_origin(annotation) is Annotated:
        annotation, info = get_args(annotation)
    if get_origin(annotation) in {Union, UnionType}:
        (annotation,) = (one for one in get_args(annotation) if one is not type(None))
    return annotation, info


def _flag(given: object) -> bool:
    if not isinstance(given, bool):
        raise ValueError("not a flag")  # noqa: TRY004
    return given


def _word(kind: Any, info: Any, word: str) -> str | int:
    if kind is str:
        word.encode()  # refuses what is not text: an error that is a ValueError
        return word
    if kind is int:
        return _number(info, word)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return kind(word)
    raise ValueError("not plain")


def _number(info: Any, word: str) -> int:
    if not (word.isascii() and word.isdigit() and len(word) <= _MAX_DIGITS):
        raise ValueError("no plain number")
    number = int(word)
    least, most = getattr(info, "min", None), getattr(info, "max", None)
    if (least is not None and number < least) or (most is not None and number > most):
        raise ValueError("out of range")
    return number
