"""Checked policies as JSON and back, for the cache.

What JSON has itself stands for itself; anything else is a pair of its kind's name and
what it is made of. Nothing is ever made but the kinds that are listed here.
"""

from __future__ import annotations

from dataclasses import fields
from datetime import time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from drkit.config.policy import (
    BackupRules,
    BackupSchedules,
    ClusterAddress,
    HeartbeatRules,
    KeyReferences,
    Policy,
    RepositoryAddress,
    S3Access,
    WalRules,
)
from drkit.config.secrets import SecretReference
from drkit.config.zones import read_zone
from drkit.model.fingerprint import Mode
from drkit.model.objectives import Objectives
from drkit.model.retention import Retention
from drkit.model.schedule import Schedule
from drkit.model.verification import (
    Assertion,
    CheckName,
    Choice,
    Comparison,
    TimestampAuthority,
    Tolerance,
    VerificationRules,
)

if TYPE_CHECKING:
    from collections.abc import Callable

_PLAIN = (type(None), bool, int, str)

# Values of fields, each made again from the same fields.
_RECORDS: dict[str, Any] = {
    kind.__name__: kind
    for kind in (
        Policy,
        ClusterAddress,
        RepositoryAddress,
        S3Access,
        KeyReferences,
        BackupRules,
        BackupSchedules,
        Schedule,
        Retention,
        Objectives,
        HeartbeatRules,
        VerificationRules,
        Assertion,
        Tolerance,
        TimestampAuthority,
        WalRules,
    )
}


def encode(value: object) -> Any:
    """Return a value of a policy as JSON has it.

    Raises:
        KeyError: its kind is not known here.
    """
    kind = type(value)
    if kind in _PLAIN:
        return value
    name = kind.__name__
    if name in _RECORDS:
        named = {one: encode(getattr(value, one)) for one in _names(kind)}
        return [name, named]
    return [name, _LEAVES[name][0](value)]


def decode_policy(value: object) -> Policy:
    """Return the policy that `encode` wrote.

    Raises:
        ValueError, TypeError, LookupError: it was something else.
    """
    policy = _decode(value)
    if not isinstance(policy, Policy):
        raise TypeError("no policy")
    return policy


def _decode(value: Any) -> Any:
    if isinstance(value, _PLAIN):
        return value
    name, content = value
    if name not in _RECORDS:
        return _LEAVES[name][1](content)
    kind = _RECORDS[name]
    if not isinstance(content, dict) or content.keys() != _names(kind):
        raise ValueError("other fields")
    return kind(**{one: _decode(inner) for one, inner in content.items()})


def _names(kind: Any) -> set[str]:
    return {one.name for one in fields(kind)}


def _write_duration(span: timedelta) -> list[int]:
    return [span.days, span.seconds, span.microseconds]


def _read_duration(parts: list[int]) -> timedelta:
    days, seconds, microseconds = parts
    return timedelta(days, seconds, microseconds)


def _write_reference(reference: SecretReference) -> list[str]:
    return [str(reference), reference.field]


def _read_reference(parts: list[str]) -> SecretReference:
    text, field = parts
    return SecretReference.parse(text, field=field)


def _write_all(values: Any) -> list[Any]:
    return [encode(one) for one in values]


def _write_set(values: Any) -> list[Any]:
    return sorted(_write_all(values))  # the same text from every process


# Kind → how it is written as JSON, and read.
_LEAVES: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "tuple": (_write_all, lambda values: tuple(_decode(one) for one in values)),
    "frozenset": (_write_set, lambda values: frozenset(_decode(one) for one in values)),
    "timedelta": (_write_duration, _read_duration),
    "time": (time.isoformat, time.fromisoformat),
    "timezone": (str, read_zone),  # only UTC is none of the next
    "ZoneInfo": (str, read_zone),
    "Decimal": (str, Decimal),
    "SecretReference": (_write_reference, _read_reference),
    **{kind.__name__: (str, kind) for kind in (Mode, Choice, CheckName, Comparison)},
}
