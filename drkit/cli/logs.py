"""Logs to standard error: text or JSON lines, correlated, without any secret."""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, MutableMapping

    from structlog.typing import FilteringBoundLogger

    Event = MutableMapping[str, Any]

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
        """Return a text in which nothing known or looking like a secret is left."""
        for secret in sorted(self._seen, key=len, reverse=True):
            if len(secret) >= _SHORTEST:
                text = text.replace(secret, HIDDEN)
        for pattern in _LOOKS_SECRET:
            text = pattern.sub(rf"\1{HIDDEN}", text)
        return text

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

    def __call__(self, _logger: object, _method: str, event: Event) -> Event:
        """Redact a whole line; a processor for structlog."""
        return {key: self.value(value) for key, value in event.items()}


def make_log(
    log_format: str, level: str, redactor: Redactor, **context: str
) -> FilteringBoundLogger:
    """Return a logger whose every line carries `context`.

    Args:
        log_format: `text` or `json`.
        level: the least level that is told.
    """
    import structlog

    log: FilteringBoundLogger = structlog.wrap_logger(
        _StandardError(),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            redactor,
            _as_json if log_format == "json" else _as_text,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_NUMBERS[level]),
    )
    return log.bind(**context)


class _StandardError:
    """Writes lines to what is standard error at that moment: a bar may stand there."""

    def msg(self, line: str) -> None:
        """Write one line."""
        if sys.stderr is not None:
            sys.stderr.write(line + "\n")
            sys.stderr.flush()

    debug = info = warning = error = critical = msg


def _as_json(_logger: object, _method: str, event: Event) -> str:
    first = {name: event.pop(name) for name in ("timestamp", "level", "event")}
    return json.dumps(first | dict(event))


def _as_text(_logger: object, _method: str, event: Event) -> str:
    trace = event.pop("exception", None)
    head = f"{event.pop('timestamp')} {event.pop('level'):<7} {event.pop('event')}"
    context = {name: event.pop(name) for name in _CONTEXT if name in event}
    line = f"{head} {_pairs({**event, **context})}".rstrip()
    return f"{line}\n{trace}" if trace else line


def _pairs(fields: Mapping[str, object]) -> str:
    return " ".join(f"{name}={_shown(value)}" for name, value in fields.items())


def _shown(value: object) -> str:
    text = str(value)
    plain = text and not re.search(r"[\s\"=\\]", text)
    return text if plain else json.dumps(text, ensure_ascii=False)
