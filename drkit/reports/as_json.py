"""A report as JSON, for programs; docs/json-output.md shows its shape."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from drkit.model.quarter import Quarter
from drkit.reports.report import VERSION

if TYPE_CHECKING:
    from drkit.reports.report import Report


def json_text(report: Report) -> str:
    """Return the JSON document; its bytes are ASCII."""
    members = plain(report)
    version = members.pop("drkit")
    head = {"drkit": "drill report file", "version": VERSION, "drkit_version": version}
    return json.dumps(head | members, indent=2) + "\n"


def content_digest(report: Report) -> str:
    """Return the SHA-256 of the JSON document, in hex: it names what all forms say."""
    return hashlib.sha256(json_text(report).encode()).hexdigest()


def plain(value: Any) -> Any:
    """Return what JSON knows: members have their fields' names, times ISO 8601."""
    if isinstance(value, Quarter):
        return str(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, Mapping):
        return {str(name): plain(member) for name, member in value.items()}
    if isinstance(value, (tuple, list)):
        return [plain(one) for one in value]
    return _scalar(value)


def _scalar(value: Any) -> Any:
    if isinstance(value, StrEnum):
        return str(value)
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    return value
