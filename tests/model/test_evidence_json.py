"""Records as in-toto statements: nothing is lost, and nothing else is taken."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import replace
from typing import Any

import pytest

from drkit.model.evidence import (
    Action,
    Actor,
    Check,
    Cleanup,
    Forecast,
    Measure,
    Outcome,
    Phase,
    Record,
    RecordKind,
    Restored,
)
from drkit.model.evidence_json import record_from_statement, statement_of
from tests.evidence import ACTION, NOTHING, bare, record

ACTED = replace(bare(4, "ab" * 32, ""), kind=RecordKind.ACTION, action=ACTION)
ACTED = replace(ACTED, outcome=Outcome.MET)


def again(one: Record) -> Record:
    return record_from_statement(json.loads(json.dumps(statement_of(one))))


@pytest.mark.parametrize(
    "one", [record(), record(7, "ab" * 32), bare(0, NOTHING), bare(3, "cd" * 32), ACTED]
)
def test_a_record_comes_back_as_it_was(one: Record) -> None:
    assert again(one) == one


def test_every_field_of_every_part_comes_back() -> None:
    """A field that the reader forgot would come back as its default."""
    full = record(5, "ab" * 32)
    parts: list[Any] = [full.restored, full.actor, full.phases[1], full.rto]
    parts += [full.checks[0], full.forecast, full.cleanup, ACTION, full]
    kinds = (Restored, Actor, Phase, Measure, Check, Forecast, Cleanup, Action, Record)
    for part, kind in zip(parts, kinds, strict=True):
        assert isinstance(part, kind)
        for one in dataclasses.fields(kind):
            usual = one.default
            if one.name == "action" and kind is Record:
                continue
            assert getattr(part, one.name) not in (usual, ()), (kind, one.name)
    assert again(full) == full
    assert again(ACTED).action == ACTION


def test_a_statement_is_one_of_in_toto() -> None:
    found = statement_of(record())
    assert list(found) == ["_type", "subject", "predicateType", "predicate"]
    assert found["_type"] == "https://in-toto.io/Statement/v1"
    assert found["subject"] == [
        {"name": "20260115-103000-full", "digest": {"sha256": "ab" * 32}},
        {"name": "20260115-113000-incr", "digest": {"sha256": "cd" * 32}},
    ]
    assert found["predicate"]["started"] == "2026-01-15T10:30:00+00:00"


def test_what_restored_nothing_is_about_the_record_before() -> None:
    found = statement_of(bare(3, "cd" * 32))["subject"]
    name = "alpha/evidence/0000000002"
    assert found == [{"name": name, "digest": {"sha256": "cd" * 32}}]


def test_an_action_claims_no_outcome() -> None:
    assert statement_of(ACTED)["predicate"]["outcome"] is None


def test_members_of_later_versions_are_passed_over() -> None:
    found = statement_of(record())
    found["later"] = found["predicate"]["later"] = 1
    found["predicate"]["restored"]["later"] = found["subject"][0]["uri"] = "x"
    assert record_from_statement(found) == record()


def put(found: dict[str, Any], path: str, value: Any) -> None:
    *way, last = path.split(".")
    at: Any = found
    for part in way:
        at = at[int(part) if part.isdigit() else part]
    at[last] = value


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("_type", "https://in-toto.io/Statement/v0.1"),
        ("predicateType", "https://slsa.dev/provenance/v1"),
        ("predicate", []),
        ("subject", []),
        ("subject", None),
        ("subject.0.digest", {"sha256": "ef" * 32}),
        ("subject.0.digest", {}),
        ("predicate.drkit", "log"),
        ("predicate.format", 2),
        ("predicate.kind", "rehearsal"),
        ("predicate.kind", "action"),
        ("predicate.sequence", -1),
        ("predicate.sequence", True),
        ("predicate.sequence", 1.5),
        ("predicate.previous", "AB" * 32),
        ("predicate.started", "2026-01-15T10:30:00"),
        ("predicate.finished", 1768473000),
        ("predicate.outcome", None),
        ("predicate.outcome", "passed"),
        ("predicate.scenario", None),
        ("predicate.restored", []),
        ("predicate.restored.manifests", ["ab" * 32]),
        ("predicate.restored.manifests", ["ab" * 32, "x"]),
        ("predicate.restored.chain", []),
        ("predicate.restored.bytes", -1),
        ("predicate.restored.timeline", "2"),
        ("predicate.restored.reached_time", "yesterday"),
        ("predicate.actor.host", None),
        ("predicate.phases", {}),
        ("predicate.phases", ["fetch"]),
        ("predicate.phases.0.seconds", "12"),
        ("predicate.phases.0.seconds", float("nan")),
        ("predicate.phases.0.seconds", float("inf")),
        ("predicate.phases.0.seconds", True),
        ("predicate.phases.0.seconds", 10**400),
        ("predicate.rto.target", "60"),
        ("predicate.checks.0.state", "skipped"),
        ("predicate.checks.0.compared", 0.5),
        ("predicate.deviations", "none"),
        ("predicate.cleanup.proven", 1),
        ("predicate.forecast.error", None),
        ("predicate.action", {}),
        ("predicate.notes", [1]),
    ],
)
def test_what_no_writer_makes_is_refused(path: str, value: Any) -> None:
    found = json.loads(json.dumps(statement_of(record())))
    put(found, path, value)
    with pytest.raises((ValueError, KeyError, TypeError)):
        record_from_statement(found)


@pytest.mark.parametrize(
    ("name", "value"),
    [("due", "soon"), ("due", "20260215"), ("state", "late"), ("follows", -1)],
)
def test_an_action_that_no_writer_makes_is_refused(name: str, value: Any) -> None:
    found = statement_of(ACTED)
    put(found, f"predicate.action.{name}", value)
    with pytest.raises(ValueError, match=r"due|state|follows|isoformat"):
        record_from_statement(found)


@pytest.mark.parametrize("name", [one.name for one in dataclasses.fields(Record)])
def test_no_member_may_be_missing(name: str) -> None:
    found = statement_of(record())
    del found["predicate"][name]
    with pytest.raises(KeyError):
        record_from_statement(found)
