"""Types of policy fields: text that becomes a checked value and text again."""

from __future__ import annotations

import os
import re
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    PlainSerializer,
    PlainValidator,
    WithJsonSchema,
)

from drkit.config.database_url import check_database_url
from drkit.config.repository_url import split_repository_url
from drkit.config.zones import read_zone
from drkit.model.duration import format_duration, parse_duration
from drkit.model.schedule import Schedule
from drkit.model.size import format_size, parse_size

if TYPE_CHECKING:
    from collections.abc import Callable

_MAX_SYSTEM_IDENTIFIER = (1 << 64) - 1
_DECIMAL = re.compile(r"[1-9][0-9]{0,19}")
_PUBLIC_KEY = re.compile(r"ed25519:[0-9a-f]{64}")
_UNIT = r"([wdhs]|hr|min|sec|week|day|hour|minute|second)s?"


def _from_text(parse: Callable[[str], Any], kind: type, example: str) -> Any:
    """Return a validator that parses text and lets a ready value pass."""

    def validate(value: object) -> object:
        if isinstance(value, kind):
            return value
        if isinstance(value, int) and not isinstance(value, bool) and kind is timedelta:
            raise ValueError(f"{value} has no unit; write, for example, {example}")
        if not isinstance(value, str):
            raise ValueError(f"must be text, such as {example}")  # noqa: TRY004
        return parse(value)

    return PlainValidator(validate)


def _zone(name: str) -> str:
    read_zone(name)
    return name


def _system_identifier(value: object) -> object:
    """Take the number with or without quotes."""
    return str(value) if type(value) is int else value


def _u64(text: str) -> str:
    if not _DECIMAL.fullmatch(text) or int(text) > _MAX_SYSTEM_IDENTIFIER:
        raise ValueError(
            "is no system identifier; copy it from pg_controldata or from "
            "`SELECT system_identifier FROM pg_control_system()`"
        )
    return text


def _absolute(path: str) -> str:
    if not os.path.isabs(path) or "\0" in path:
        raise ValueError("must be an absolute path, such as /var/lib/postgresql/data")
    return os.path.normpath("/" + path.lstrip("/"))


def _size(value: object) -> int:
    """Take text only: a bare number would be bytes to one and pages to another."""
    if isinstance(value, str):
        return parse_size(value)
    if type(value) is int:
        raise ValueError(f"{value} has no unit; write, for example, 1 GB")
    raise ValueError("must be text, such as 1 GB")


def _repository(url: str) -> str:
    scheme, place, prefix = split_repository_url(url)
    return f"{scheme}://{place}/{prefix}".rstrip("/")


def _endpoint(url: str) -> str:
    complaint = "is no address of a server; write https://host or https://host:port"
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname)
        plain = parts.port is None or parts.port > 0
    except ValueError:
        raise ValueError(complaint) from None
    if "@" in parts.netloc:
        raise ValueError("must not hold keys; put references to them beside it")
    if not (usable and plain) or parts.query or parts.fragment:
        raise ValueError(complaint)
    return url.rstrip("/")


def _public_key(text: str) -> str:
    if not _PUBLIC_KEY.fullmatch(text.lower()):
        raise ValueError(
            "is no public key; write ed25519: and 64 hexadecimal digits, "
            "as `drkit keys list` shows them"
        )
    return text.lower()


Duration = Annotated[
    timedelta,
    _from_text(parse_duration, timedelta, "15 minutes"),
    PlainSerializer(format_duration),
    WithJsonSchema({"type": "string", "pattern": rf"^([0-9]+ *{_UNIT} *)+$"}),
]
Size = Annotated[
    int,
    PlainValidator(_size),
    PlainSerializer(format_size),
    WithJsonSchema({"type": "string", "pattern": "^[0-9]+ *[kKmMgGtT]?i?[bB](ytes)?$"}),
]
When = Annotated[
    Schedule,
    _from_text(Schedule.parse, Schedule, "sunday at 02:00"),
    PlainSerializer(str),
    WithJsonSchema(
        {"type": "string", "pattern": "^(hourly|every .+|.+ at [0-9]{2}:[0-9]{2})$"}
    ),
]
Zone = Annotated[str, AfterValidator(_zone)]
SystemIdentifier = Annotated[
    str, AfterValidator(_u64), BeforeValidator(_system_identifier)
]
AbsolutePath = Annotated[str, AfterValidator(_absolute)]
DatabaseUrl = Annotated[str, AfterValidator(check_database_url)]
RepositoryUrl = Annotated[str, AfterValidator(_repository)]
EndpointUrl = Annotated[str, AfterValidator(_endpoint)]
PublicKey = Annotated[str, AfterValidator(_public_key)]
