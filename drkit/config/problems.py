"""Validation errors in the words of whoever writes the policy."""

from __future__ import annotations

import json
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel

from drkit.config.document import Path, Problem
from drkit.config.schema import PolicySchema

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pydantic.fields import FieldInfo
    from pydantic_core import ErrorDetails

_TEXTS = {
    "string_type": "must be text; put it in quotes",
    "int_type": "must be a whole number without quotes",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
    "model_type": "must be a section: keys with values, indented below it",
    "tuple_type": "must be a list; write each entry after a dash",
    "too_short": "needs at least {min_length} entry",
    "too_long": "has too many entries; at most {max_length} are allowed",
    "value_error": "{error}",
}


def dotted(path: Path) -> str:
    """Write a field's path as people do: `keys.trusted[0]`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")


def explain(
    errors: Iterable[ErrorDetails], lines: Mapping[Path, int]
) -> Iterator[Problem]:
    """Yield a problem for each of pydantic's errors that says something new.

    What the policy as a whole found is not told: `contradictions` tells it with its
    fields.
    """
    known = list(errors)
    for error in known:
        path = error["loc"]
        if not path:
            continue
        # A list counts its good entries only; the bad ones are told by themselves.
        inner = any(each["loc"][:-1] == path for each in known)
        if not (error["type"] == "too_short" and inner):
            yield Problem(line_of(path, lines), path, _text(error))


def misspelt(errors: Iterable[ErrorDetails]) -> set[Path]:
    """Return the fields that unknown keys were meant for; they are not missing."""
    return {
        (*error["loc"][:-1], suggestion)
        for error in errors
        if error["type"] == "extra_forbidden" and (suggestion := _nearest(error["loc"]))
    }


def line_of(path: Path, lines: Mapping[Path, int]) -> int:
    """Return the line of a field, or of the nearest section around it."""
    for length in range(len(path), 0, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return 1


def _text(error: ErrorDetails) -> str:
    kind, path = error["type"], error["loc"]
    if kind == "extra_forbidden":
        return _unknown(path)
    if kind == "missing":
        return f"is missing; write, for example, {path[-1]}: {_example(path)}"
    if kind == "string_pattern_mismatch":
        return f"does not look like {_example(path)} ({error['ctx']['pattern']})"
    if kind in _TEXTS:
        return _TEXTS[kind].format(**error.get("ctx", {}))
    return error["msg"]


def _unknown(path: Path) -> str:
    suggestion = _nearest(path)
    if suggestion:
        return f"is no known key; did you mean `{suggestion}`?"
    homes = [home for home in _sections() if path[-1] in _fields(home)]
    if homes:
        return f"is not known here; it belongs under `{dotted(homes[0]) or 'the top'}`"
    return f"is no known key; known here are {', '.join(_fields(path[:-1]))}"


def _nearest(path: Path) -> str | None:
    near = get_close_matches(str(path[-1]).lower(), _fields(path[:-1]), 1)
    return near[0] if near else None


def _example(path: Path) -> str:
    field = _fields(path[:-1]).get(str(path[-1]))
    examples = field.examples if field else None
    return json.dumps(examples[0]) if examples else "…"


def _fields(path: Path) -> dict[str, FieldInfo]:
    """Return the fields of the section at `path`; empty if there is none."""
    section: type[BaseModel] | None = PolicySchema
    for part in path:
        if isinstance(part, int):
            continue  # an entry of a list: what is known of the list holds for it
        field = section.model_fields.get(part) if section else None
        section = _section(field.annotation) if field else None
    return section.model_fields if section else {}


def _section(annotation: Any) -> type[BaseModel] | None:
    """Return the section class in a field's annotation, optional or not."""
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _sections(path: Path = ()) -> Iterator[Path]:
    """Yield the path of every section of a policy."""
    yield path
    for name, field in _fields(path).items():
        if _section(field.annotation):
            yield from _sections((*path, name))
