"""Records of evidence as in-toto statements; docs/repository-format.md, "Evidence"."""

from __future__ import annotations

import dataclasses
from datetime import date, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar

from drkit.model import members
from drkit.model.evidence import (
    Action,
    Actor,
    Check,
    CheckState,
    Cleanup,
    Forecast,
    Measure,
    Outcome,
    Phase,
    Record,
    RecordKind,
    Restored,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from drkit.model.members import Members

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:drkit:evidence:v1"
FORMAT = 1

_STATES = ("open", "done", "dropped")
T = TypeVar("T")


def statement_of(record: Record) -> Members:
    """Return a record as an in-toto statement.

    Its subjects are the restored manifests, by the labels of their backups. Where
    nothing was restored it is the record before, since a statement must have one.
    """
    predicate = {"drkit": "evidence", "format": FORMAT, **_plain(record)}
    if record.kind is RecordKind.ACTION:
        predicate["outcome"] = None  # it claims nothing
    return {
        "_type": STATEMENT_TYPE,
        "subject": _subjects(record),
        "predicateType": PREDICATE_TYPE,
        "predicate": predicate,
    }


def record_from_statement(found: Members) -> Record:
    """Read a statement.

    Raises:
        ValueError, KeyError, TypeError: it is of another kind, or a member is missing
            or malformed.
    """
    kinds = (found["_type"], found["predicateType"])
    if kinds != (STATEMENT_TYPE, PREDICATE_TYPE):
        raise ValueError("it is no statement about a drill or a verification")
    predicate = members.nested(found, "predicate")
    if (predicate["drkit"], predicate["format"]) != ("evidence", FORMAT):
        raise ValueError("it is of another format")
    record = _record(predicate)
    digests = [one["digest"]["sha256"] for one in members.listed(found, "subject")]
    if digests != [one["digest"]["sha256"] for one in _subjects(record)]:
        raise ValueError("its subjects are not what its predicate says")
    return record


def _subjects(record: Record) -> list[Members]:
    restored = record.restored
    if restored is None:
        before = f"{record.cluster}/evidence/{max(record.sequence - 1, 0):010d}"
        return [{"name": before, "digest": {"sha256": record.previous}}]
    return [
        {"name": label, "digest": {"sha256": digest}}
        for label, digest in zip(restored.chain, restored.manifests, strict=True)
    ]


def _plain(value: Any) -> Any:
    """Return a value of the model as JSON has it."""
    if dataclasses.is_dataclass(value):
        fields = dataclasses.fields(value)
        return {one.name: _plain(getattr(value, one.name)) for one in fields}
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, StrEnum) else value


def _record(found: Members) -> Record:
    kind = RecordKind(members.text(found, "kind"))
    action = _maybe(found, "action", _action)
    if (kind is RecordKind.ACTION) != (action is not None):
        raise ValueError("an action is missing, or out of place")
    return Record(
        kind=kind,
        sequence=members.count(found, "sequence"),
        previous=members.sha256(found, "previous"),
        cluster=members.text(found, "cluster"),
        system_identifier=members.text(found, "system_identifier"),
        started=members.moment(found, "started"),
        finished=members.moment(found, "finished"),
        outcome=_outcome(found, kind),
        scenario=members.text(found, "scenario"),
        chosen=members.text(found, "chosen"),
        restored=_maybe(found, "restored", _restored),
        actor=_maybe(found, "actor", _actor),
        phases=_each(found, "phases", _phase),
        rto=_maybe(found, "rto", _measure),
        rpo=_maybe(found, "rpo", _measure),
        checks=_each(found, "checks", _check),
        deviations=members.texts(found, "deviations"),
        forecast=_maybe(found, "forecast", _forecast),
        cleanup=_maybe(found, "cleanup", _cleanup),
        failure=members.text(found, "failure"),
        action=action,
        notes=members.texts(found, "notes"),
    )


def _outcome(found: Members, kind: RecordKind) -> Outcome:
    if kind is not RecordKind.ACTION:
        return Outcome(members.text(found, "outcome"))
    if found["outcome"] is not None:
        raise ValueError("an action has no outcome")
    return Outcome.MET


def _restored(found: Members) -> Restored:
    chain, manifests = members.texts(found, "chain"), members.texts(found, "manifests")
    if not chain or len(chain) != len(manifests):
        raise ValueError("`chain` and `manifests` don't belong together")
    if not all(map(members.is_sha256, manifests)):
        raise ValueError("`manifests` are no SHA-256")
    return Restored(
        label=members.text(found, "label"),
        chain=chain,
        manifests=manifests,
        key_ids=members.texts(found, "key_ids"),
        start_lsn=members.text(found, "start_lsn"),
        stop_lsn=members.text(found, "stop_lsn"),
        target=members.text(found, "target"),
        reached_lsn=_maybe_member(found, "reached_lsn", members.text),
        reached_time=_maybe_member(found, "reached_time", members.moment),
        timeline=_maybe_member(found, "timeline", members.count),
        wal_segments=members.count(found, "wal_segments"),
        bytes=members.count(found, "bytes"),
        fetched_bytes=members.count(found, "fetched_bytes"),
    )


def _actor(found: Members) -> Actor:
    names = [one.name for one in dataclasses.fields(Actor)]
    return Actor(**{name: members.text(found, name) for name in names})


def _phase(found: Members) -> Phase:
    return Phase(
        members.text(found, "name"),
        members.number(found, "begin"),
        members.number(found, "seconds"),
    )


def _check(found: Members) -> Check:
    return Check(
        members.text(found, "name"),
        CheckState(members.text(found, "state")),
        members.text(found, "detail"),
        members.number(found, "seconds"),
        members.count(found, "compared"),
    )


def _measure(found: Members) -> Measure:
    return Measure(
        _maybe_member(found, "target", members.number),
        _maybe_member(found, "measured", members.number),
        members.text(found, "meaning"),
    )


def _forecast(found: Members) -> Forecast:
    return Forecast(members.number(found, "seconds"), members.number(found, "error"))


def _cleanup(found: Members) -> Cleanup:
    return Cleanup(
        members.text(found, "directory"),
        members.count(found, "removed_bytes"),
        members.flag(found, "proven"),
        members.text(found, "detail"),
    )


def _action(found: Members) -> Action:
    due, state = members.text(found, "due"), members.text(found, "state")
    if date.fromisoformat(due).isoformat() != due or state not in _STATES:
        raise ValueError("`due` is no date, or `state` is unknown")
    return Action(
        members.count(found, "action"),
        members.text(found, "text"),
        members.text(found, "owner"),
        due,
        state,
        _maybe_member(found, "follows", members.count),
        members.text(found, "note"),
    )


def _maybe(found: Members, name: str, read: Callable[[Members], T]) -> T | None:
    return None if found[name] is None else read(members.nested(found, name))


def _maybe_member(
    found: Members, name: str, read: Callable[[Members, str], T]
) -> T | None:
    return None if found[name] is None else read(found, name)


def _each(found: Members, name: str, read: Callable[[Members], T]) -> tuple[T, ...]:
    return tuple(read(one) for one in members.listed(found, name))
