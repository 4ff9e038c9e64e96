"""Logs to standard error: text or JSON lines, correlated, without any secret."""

from __future__ import annotations

import json
import re
import sys
import traceback
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from drkit.printing import page, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    Event = dict[str, object]

LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("text", "json")

HIDDEN = "***"
_CONTEXT = ("command", "policy", "run")  # told last: it is the same on every line
_NUMBERS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_SHORTEST = 4  # a shorter secret would blot out half of every line
_LOOKS_SECRET = (
    re.compile(r"(drkit-(?:kek|signing)-\d+:)\S+"),
    re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s/:@?#]*:)[^\s/@]+(?=@)"),
    re.compile(r"(\bpassword\s*=\s*)(?:'(?:[^'\\]|\\.)*'|[^\s&'\"]+)", re.IGNORECASE),
)


class Redactor:
    """Takes secrets out of texts.

    Args:
        seen: values that were handed out as secrets; may grow.
    """

    def __init__(self, seen: Collection[str]) -> None:
        self._seen = seen

    def text(self, text: str) -> str:
        """Return a text in which nothing known or looking like a secret is left.

        `Lines` stay `Lines`.
        """
        kind = type(text)
        for secret in sorted(self._seen, key=len, reverse=True):
            if len(secret) >= _SHORTEST:
                text = text.replace(secret, HIDDEN)
        for pattern in _LOOKS_SECRET:
            text = pattern.sub(rf"\1{HIDDEN}", text)
        return kind(text)

    def value(self, value: object) -> object:
        """Return a value of a log line, redacted through and through."""
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, dict):
            return {self.text(str(key)): self.value(one) for key, one in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self.value(one) for one in value]
        if isinstance(value, bytes):
            return self.text(value.decode(errors="backslashreplace"))
        return self.text(str(value))


class Log:
    """Writes one line for each event, with the run it belongs to.

    A library for this takes a tenth of a second to import, which every command by hand
    and every timer would pay.

    Args:
        context: fields that every line carries.
    """

    def __init__(
        self,
        render: Callable[[Event], str],
        least: int,
        redactor: Redactor,
        context: Event,
    ) -> None:
        self._render = render
        self._least = least
        self._redactor = redactor
        self._context = context

    def bind(self, **context: object) -> Log:
        """Return a log whose lines carry `context` as well."""
        more = self._context | context
        return Log(self._render, self._least, self._redactor, more)

    def failed(self, event: str, error: BaseException) -> None:
        """Show those who debug where an error came from."""
        trace = "".join(traceback.format_exception(error)).rstrip()
        self._tell("debug", event, {"exception": trace})

    def debug(self, event: str, **fields: object) -> None:
        """Tell those who debug."""
        self._tell("debug", event, fields)

    def info(self, event: str, **fields: object) -> None:
        """Tell what happens."""
        self._tell("info", event, fields)

    def warning(self, event: str, **fields: object) -> None:
        """Tell what a person must read."""
        self._tell("warning", event, fields)

    def error(self, event: str, **fields: object) -> None:
        """Tell what failed."""
        self._tell("error", event, fields)

    def _tell(self, level: str, event: str, fields: Event) -> None:
        """Write a line to what is standard error at that moment: a bar may stand there.

        One write for line and end, or those of several threads would mix.
        """
        if _NUMBERS[level] < self._least or sys.stderr is None:
            return
        now = datetime.now(UTC).isoformat(timespec="microseconds")
        head = {"timestamp": now.replace("+00:00", "Z"), "level": level, "event": event}
        line = head | self._context | fields
        safe = {key: self._redactor.value(value) for key, value in line.items()}
        sys.stderr.write(self._render(safe) + "\n")
        sys.stderr.flush()


def make_log(log_format: str, level: str, redactor: Redactor, **context: str) -> Log:
    """Return a log whose every line carries `context`.

    Args:
        log_format: `text` or `json`.
        level: the least level that is told.
    """
    render = json.dumps if log_format == "json" else _as_text
    return Log(render, _NUMBERS[level], redactor, dict(context))


def _as_text(event: Event) -> str:
    trace = event.pop("exception", None)
    level = str(event.pop("level"))
    told = printable(str(event.pop("event")))
    head = f"{event.pop('timestamp')} {level:<7} {told}"
    context = {name: event.pop(name) for name in _CONTEXT if name in event}
    line = f"{head} {_pairs({**event, **context})}".rstrip()
    if trace is None:
        return line
    return page([line, *(f"  | {part}" for part in str(trace).splitlines())])


def _pairs(fields: Mapping[str, object]) -> str:
    return " ".join(f"{name}={_shown(value)}" for name, value in fields.items())


def _shown(value: object) -> str:
    text = str(value)
    plain = text and not re.search(r"[\s\"=\\]", text)
    return printable(text if plain else json.dumps(text, ensure_ascii=False))
