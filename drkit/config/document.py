"""A policy file as plain values with the line of every key.

Only the part of YAML that says one thing in one way is read: mappings, lists and
scalars. Anchors, aliases, merge keys, tags, duplicate keys and empty values are
refused, and nothing but whole numbers, `true` and `false` is anything but text (so
that `02:00` stays a time and `no` a word).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

Path = tuple[str | int, ...]

MAX_DEPTH = 16
MAX_ENTRIES = 1000  # of one mapping or list
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,19})")
_BOOLEANS = {"true": True, "True": True, "false": False, "False": False}
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})


class Problem(NamedTuple):
    """What is wrong at a line, counted from 1, of a file."""

    line: int
    path: Path
    text: str


class Document(NamedTuple):
    """What a file holds, as far as it could be read.

    Attributes:
        value: the outermost mapping; refused values are absent from it.
        lines: the line of every key and list entry.
        problems: what was refused.
        whole: False if reading had to stop at a problem.
    """

    value: dict[str, Any]
    lines: dict[Path, int]
    problems: list[Problem]
    whole: bool


class _Unreadable(Exception):
    """Reading can't go on past this line."""

    def __init__(self, line: int, text: str) -> None:
        super().__init__(text)
        self.problem = Problem(line, (), text)


def read_document(data: bytes) -> Document:
    """Read a file's bytes; whatever is wrong with them is in the document."""
    reader = _Reader()
    try:
        value = reader.read(_decode(data))
    except _Unreadable as error:
        problems = [*reader.problems, error.problem]
        return Document({}, reader.lines, problems, whole=False)
    return Document(value, reader.lines, reader.problems, whole=True)


def _decode(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
    raise _Unreadable(line, "is not text in UTF-8; save the file in that encoding")


def _events(text: str) -> Iterator[Any]:
    """Yield the parser's events; its errors are told without the file's content."""
    try:
        yield from yaml.parse(text, Loader=_LOADER)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        what = error.problem or error.context or "syntax error"
    except yaml.reader.ReaderError as error:
        line = text.encode().count(b"\n", 0, error.position) + 1
        what = error.reason
    else:
        return
    raise _Unreadable(line, f"is no YAML: {what}; check indentation and quotes")


class _Reader:
    """Turns the parser's events into values, and collects lines and problems."""

    def __init__(self) -> None:
        self.lines: dict[Path, int] = {}
        self.problems: list[Problem] = []
        self._events: Iterator[Any] = iter(())

    def read(self, text: str) -> dict[str, Any]:
        self._events = _events(text)
        next(self._events)  # the stream's start
        event = next(self._events)
        if isinstance(event, yaml.StreamEndEvent):
            raise _Unreadable(1, "is empty; a policy begins with name: …")
        root = next(self._events)
        value = self._node(root, ())
        next(self._events)  # the document's end
        following = next(self._events)
        if isinstance(following, yaml.DocumentStartEvent):
            raise _Unreadable(
                _line(following), "begins a second document; write one policy per file"
            )
        if isinstance(root, yaml.MappingStartEvent):
            return value or {}
        raise _Unreadable(_line(root), "must be keys with values; begin with name: …")

    def _node(self, event: Any, path: Path) -> Any:
        """Return the value that begins with `event`; None if it was refused."""
        if len(path) > MAX_DEPTH:
            raise _Unreadable(_line(event), "is nested too deeply for a policy")
        refusal = _refusal(event)
        if refusal:
            self._refuse(event, path, refusal)
        value = self._content(event, path)
        if value is None and not refusal:
            self._refuse(event, path, "has no value; write one or remove the key")
        return None if refusal else value

    def _content(self, event: Any, path: Path) -> Any:
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(path)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(path)
        if isinstance(event, yaml.ScalarEvent):
            return _scalar(event)
        return None  # an alias, refused already

    def _mapping(self, path: Path) -> dict[str, Any]:
        value: dict[str, Any] = {}
        seen: set[str] = set()
        for event in self._until(yaml.MappingEndEvent):
            known = len(self.problems)
            key = self._key(event, path)
            usable = len(self.problems) == known
            inner = (*path, key)
            if key in seen:
                text = f"appears twice, first on line {self.lines[inner]}; remove one"
                self.problems.append(Problem(_line(event), inner, text))
            seen.add(key)
            self.lines.setdefault(inner, _line(event))
            content = self._node(next(self._events), inner)
            if usable and content is not None:
                value.setdefault(key, content)
        return value

    def _key(self, event: Any, path: Path) -> str:
        if not isinstance(event, yaml.ScalarEvent):
            raise _Unreadable(_line(event), "has a key that is no plain word")
        refusal = _refusal(event)
        if event.value == "<<" and event.implicit[0]:
            refusal = "is a merge key; write the keys out"
        if refusal:
            self._refuse(event, (*path, event.value), refusal)
        return str(event.value)

    def _sequence(self, path: Path) -> list[Any]:
        values: list[Any] = []
        for event in self._until(yaml.SequenceEndEvent):
            inner = (*path, len(values))
            self.lines.setdefault(inner, _line(event))
            values.append(self._node(event, inner))
        return values

    def _until(self, end: type[Any]) -> Iterator[Any]:
        for count, event in enumerate(self._events):
            if isinstance(event, end):
                return
            if count == MAX_ENTRIES:
                raise _Unreadable(_line(event), "has too many entries for a policy")
            yield event

    def _refuse(self, event: Any, path: Path, text: str) -> None:
        self.problems.append(Problem(_line(event), path, text))


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


def _scalar(event: Any) -> str | int | bool | None:
    text = str(event.value)
    if not event.implicit[0]:  # quoted, or a block of text
        return text
    if text in _NULLS:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    return int(text) if _INTEGER.fullmatch(text) else text


def _refusal(event: Any) -> str | None:
    """Say why a node must not be written like that; None if it may."""
    if isinstance(event, yaml.AliasEvent):
        return "is an alias (*); write the value out"
    if event.anchor is not None:
        return "has an anchor (&); write the value out where it is needed"
    if event.tag is not None:
        return "has a tag (!); write the value without it"
    return None
