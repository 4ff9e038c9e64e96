"""Fingerprints to and from JSON; read strictly, as everything that was stored."""

from __future__ import annotations

import json
import re
from typing import Any

from drkit.model import members
from drkit.model.fingerprint import (
    Content,
    DatabaseFingerprint,
    Facts,
    Fingerprint,
    Mode,
    SequenceState,
    Unstable,
)
from drkit.model.lsn import Lsn

_FORMAT = 1
_DIGEST = re.compile(r"[0-9a-f]{32}\Z")


def dump(fingerprint: Fingerprint) -> bytes:
    """Return a fingerprint as UTF-8 JSON."""
    found = {
        "drkit": "fingerprint",
        "format": _FORMAT,
        "mode": str(fingerprint.mode),
        "taken_at": fingerprint.taken_at.isoformat(),
        "lsn": fingerprint.lsn,
        "restore_point": fingerprint.restore_point,
        "seed": fingerprint.seed,
        "facts": fingerprint.facts,
        "databases": [_dump_database(one) for one in fingerprint.databases],
        "unread": fingerprint.unread,
        "unstable": sorted(fingerprint.unstable),
        "held_seconds": fingerprint.held_seconds,
        "limits": fingerprint.limits,
    }
    return json.dumps(found, ensure_ascii=False, separators=(",", ":")).encode()


def load(data: bytes) -> Fingerprint:
    """Read a fingerprint.

    Raises:
        ValueError: it is malformed, or of another format.
        KeyError: a member is missing.
        TypeError: a member is of another type.
    """
    found = members.parse_object(data)
    if (found["drkit"], found["format"]) != ("fingerprint", _FORMAT):
        raise ValueError("it is no fingerprint of this format")
    return Fingerprint(
        mode=Mode(members.text(found, "mode")),
        taken_at=members.moment(found, "taken_at"),
        lsn=str(Lsn.parse(members.text(found, "lsn"))),
        restore_point=_text_or_none(found, "restore_point"),
        seed=members.count(found, "seed"),
        facts=_facts(found),
        databases=tuple(map(_database, members.listed(found, "databases"))),
        unread=_text_map(members.nested(found, "unread")),
        unstable=_unstable(found),
        held_seconds=_number(found["held_seconds"]),
        limits=members.texts(found, "limits"),
    )


def _dump_database(database: DatabaseFingerprint) -> members.Members:
    return {
        "name": database.name,
        "facts": database.facts,
        "tables": {
            name: [one.rows, one.digest, one.percent, list(one.skipped)]
            for name, one in database.tables.items()
        },
        "sequences": {
            name: [one.reached, one.until, one.increment, one.cache, one.cycle]
            for name, one in database.sequences.items()
        },
        "unread": database.unread,
        "unstable": sorted(database.unstable),
    }


def _database(found: Any) -> DatabaseFingerprint:
    tables, sequences = (members.nested(found, key) for key in ("tables", "sequences"))
    return DatabaseFingerprint(
        name=members.text(found, "name"),
        facts=_facts(found),
        tables={name: _content(*row) for name, row in tables.items()},
        sequences={name: _sequence(*row) for name, row in sequences.items()},
        unread=_text_map(members.nested(found, "unread")),
        unstable=_unstable(found),
    )


def _content(rows: Any, digest: Any, percent: Any, skipped: Any) -> Content:
    if not isinstance(digest, str) or not _DIGEST.match(digest):
        raise ValueError("a digest is none")
    blocks = tuple(map(_whole, skipped))
    return Content(_whole(rows), digest, _number(percent), blocks)


def _sequence(
    reached: Any, until: Any, increment: Any, cache: Any, cycle: Any
) -> SequenceState:
    step = _whole(increment)
    if not isinstance(cycle, bool) or step == 0:
        raise ValueError("a sequence is malformed")
    return SequenceState(_whole(reached), _whole(until), step, _whole(cache), cycle)


def _facts(found: members.Members) -> Facts:
    return {
        section: {name: _text_map(attributes) for name, attributes in objects.items()}
        for section, objects in members.nested(found, "facts").items()
    }


def _unstable(found: members.Members) -> Unstable:
    pairs = [tuple(pair) for pair in members.listed(found, "unstable")]
    if not all(len(pair) == 2 and set(map(type, pair)) == {str} for pair in pairs):
        raise ValueError("`unstable` is malformed")
    return frozenset(pairs)


def _text_map(found: Any) -> dict[str, str]:
    if not isinstance(found, dict) or set(map(type, found.values())) - {str}:
        raise ValueError("an object holds other values than texts")
    return found


def _text_or_none(found: members.Members, name: str) -> str | None:
    return None if found[name] is None else members.text(found, name)


def _whole(value: Any) -> int:
    if type(value) is not int:
        raise ValueError("a number is none")
    return value


def _number(value: Any) -> float:
    if type(value) not in (int, float) or not 0 <= value < float("inf"):
        raise ValueError("a number is none")
    return float(value)
