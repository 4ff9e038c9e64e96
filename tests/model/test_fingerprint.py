"""Fingerprints as values: stored and read, held against each other, made stable."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drkit.model.fingerprint import (
    Content,
    DatabaseFingerprint,
    Fingerprint,
    Mode,
    SequenceState,
)
from drkit.model.fingerprint_compare import Severity, compare
from drkit.model.fingerprint_json import dump, load
from drkit.model.fingerprint_stable import (
    Block,
    content,
    stable_content,
    stable_facts,
    stable_sequences,
)

WHOLE = Content(3, "0" * 31 + "1")
SEQUENCE = SequenceState(10, 12, 1, 1, cycle=False)
DATABASE = DatabaseFingerprint(
    name="app",
    facts={"functions": {"public.f()": {"owner": "a", "definition": "x"}}},
    tables={"public.t": WHOLE, "public.u": Content(9, "f" * 32, 2.5, (3, 8))},
    sequences={"public.s": SEQUENCE},
    unread={"public.v": "it is unlogged"},
    unstable=frozenset({("functions", "public.g()")}),
)
FINGERPRINT = Fingerprint(
    mode=Mode.EXACT,
    taken_at=datetime(2026, 1, 15, 10, 30, tzinfo=UTC),
    lsn="1/A0000028",
    restore_point="p",
    seed=7,
    facts={
        "roles": {"a": {"superuser": "true"}},
        "settings": {"TimeZone": {"value": "Asia/Tokyo"}},
    },
    databases=(DATABASE,),
    unread={"template0": "it allows no connections"},
    held_seconds=0.25,
    limits=("Something.",),
)

names = st.text(max_size=8)
attributes = st.dictionaries(names, names, max_size=3)
facts = st.dictionaries(names, st.dictionaries(names, attributes, max_size=3))


def with_database(**changes: Any) -> Fingerprint:
    return replace(FINGERPRINT, databases=(replace(DATABASE, **changes),))


def differing(found: Fingerprint) -> list[tuple[str, str]]:
    return [(one.check, one.text) for one in compare(FINGERPRINT, found)]


@given(facts, facts, st.dictionaries(names, names))
def test_is_read_as_it_was_written(
    cluster: dict[str, Any], database: dict[str, Any], unread: dict[str, str]
) -> None:
    made = replace(with_database(facts=database), facts=cluster, unread=unread)
    assert load(dump(made)) == made


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("drkit", "manifest"),
        ("format", 2),
        ("mode", "rough"),
        ("taken_at", "2026-01-15T10:30:00"),
        ("lsn", "here"),
        ("seed", -1),
        ("facts", {"roles": {"a": {"superuser": True}}}),
        ("unread", ["template0"]),
        ("unstable", [["one"]]),
        ("held_seconds", float("nan")),
        ("limits", [1]),
        ("databases", [{"name": "app"}]),
    ],
)
def test_a_malformed_one_is_refused(member: str, value: object) -> None:
    changed = json.loads(dump(FINGERPRINT)) | {member: value}
    with pytest.raises((ValueError, KeyError, TypeError)):
        load(json.dumps(changed).encode())


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("tables", {"t": [1, "short", 100, []]}),
        ("tables", {"t": [1, "0" * 32]}),
        ("tables", {"t": [1.5, "0" * 32, 100, []]}),
        ("sequences", {"s": [1, 1, 0, 1, False]}),
        ("sequences", {"s": [1, 1, 1, 1, 0]}),
    ],
)
def test_a_malformed_database_is_refused(member: str, value: object) -> None:
    changed = json.loads(dump(FINGERPRINT))
    changed["databases"][0][member] = value
    with pytest.raises((ValueError, TypeError)):
        load(json.dumps(changed).encode())


def test_equal_ones_do_not_differ() -> None:
    assert compare(FINGERPRINT, FINGERPRINT) == []


def test_a_missing_database_is_found() -> None:
    assert differing(replace(FINGERPRINT, databases=())) == [
        ("databases", "database app is missing")
    ]


def test_objects_that_differ_are_named_with_what_was_and_is() -> None:
    other = {"functions": {"public.f()": {"owner": "b", "definition": "y"}}}
    assert differing(with_database(facts=other)) == [
        (
            "functions",
            "public.f() in database app has another definition; has owner b, not a",
        )
    ]


def test_objects_that_came_and_went_are_found() -> None:
    found = differing(with_database(facts={"functions": {"public.h()": {}}}))
    assert [text.split(" ", 3)[3] for _, text in found] == [
        "app is missing",
        "app was not there when the backup was taken",
    ]


def test_what_changed_while_it_was_taken_is_not_compared() -> None:
    more = {"functions": {**DATABASE.facts["functions"], "public.g()": {}}}
    assert differing(with_database(facts=more)) == []


def test_other_settings_are_deviations() -> None:
    facts = {**FINGERPRINT.facts, "settings": {"TimeZone": {"value": "UTC"}}}
    (found,) = compare(FINGERPRINT, replace(FINGERPRINT, facts=facts))
    assert (found.check, found.severity) == ("settings", Severity.DEVIATION)


def test_what_a_weaker_role_could_not_see_is_no_difference() -> None:
    seen = {"superuser": "true", "password set": "true"}
    facts = {**FINGERPRINT.facts, "roles": {"a": seen}}
    assert differing(replace(FINGERPRINT, facts=facts)) == []
    seen["superuser"] = "false"
    assert [check for check, _ in differing(replace(FINGERPRINT, facts=facts))] == [
        "roles"
    ]


def test_a_table_that_could_be_read_and_now_cannot_is_a_failure() -> None:
    tables = {"public.u": DATABASE.tables["public.u"]}
    found = with_database(tables=tables, unread={"public.t": "no right"})
    assert differing(found) == [
        ("tables", "public.t in database app could not be read: no right")
    ]


def test_a_section_that_cannot_be_read_fails_its_own_check() -> None:
    found = with_database(facts={}, unread={"functions": "no right"})
    assert [check for check, _ in differing(found)] == ["functions"]


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (Content(2, WHOLE.digest), "has 2 rows, not 3"),
        (Content(3, "0" * 32), "other content"),
        (Content(3, WHOLE.digest, 50), "other blocks"),
    ],
)
def test_other_content_is_found(other: Content, said: str) -> None:
    ((check, text),) = differing(
        with_database(tables={**DATABASE.tables, "public.t": other})
    )
    assert check == "tables"
    assert said in text


@pytest.mark.parametrize(
    ("reached", "said"),
    [(9, "lags"), (10, ""), (12, ""), (13, ""), (12 + 33, ""), (12 + 34, "further")],
)
def test_a_sequence_may_be_ahead_as_recovery_makes_it_and_never_behind(
    reached: int, said: str
) -> None:
    state = replace(SEQUENCE, reached=reached, until=reached)
    found = differing(with_database(sequences={"public.s": state}))
    assert [check for check, _ in found] == (["sequences"] if said else [])
    assert said in "".join(text for _, text in found)


def test_a_sequence_may_be_anywhere_between_the_two_readings() -> None:
    far = replace(SEQUENCE, until=1000)
    expected = with_database(sequences={"public.s": far})
    for reached in (10, 500, 1000):
        state = replace(SEQUENCE, reached=reached)
        assert compare(expected, with_database(sequences={"public.s": state})) == []


def test_a_descending_sequence_lags_when_it_is_higher() -> None:
    down = SequenceState(-10, -12, -2, 1, cycle=False)
    expected = with_database(sequences={"public.s": down})
    for reached, count in ((-8, 1), (-10, 0), (-12 - 66, 0), (-12 - 68, 1)):
        state = replace(down, reached=reached)
        found = with_database(sequences={"public.s": state})
        assert len(compare(expected, found)) == count, reached


def test_a_sequence_that_was_set_back_meanwhile_is_not_compared() -> None:
    moved = replace(SEQUENCE, until=1)
    expected = with_database(sequences={"public.s": moved})
    other = with_database(sequences={"public.s": replace(SEQUENCE, reached=3)})
    assert compare(expected, other) == []


def test_what_two_readings_agree_on_is_kept() -> None:
    before = {"roles": {"a": {"x": "1"}, "b": {"x": "1"}, "c": {}}}
    after = {"roles": {"a": {"x": "1"}, "b": {"x": "2"}, "d": {}}}
    kept, unstable = stable_facts(before, after)
    assert kept == {"roles": {"a": {"x": "1"}}}
    assert unstable == {("roles", "b"), ("roles", "c"), ("roles", "d")}


def test_blocks_that_changed_between_readings_are_left_out() -> None:
    before = {0: Block(2, 5, 7), 1: Block(1, 1, 1), 2: Block(1, 3, 4)}
    after = {0: Block(2, 5, 7), 1: Block(1, 1, 2), 3: Block(1, 0, 0)}
    kept = stable_content(before, after, 50)
    assert kept == Content(2, f"{5:016x}{7:016x}", 50, (1, 2, 3))
    assert content({**after, 0: before[0]}, 50, kept.skipped) == kept


def test_sums_of_signed_hashes_are_digests_of_fixed_length() -> None:
    found = content({0: Block(1, -1, 0), 1: Block(1, -(1 << 63), 1 << 64)}, 100)
    assert found.digest == "7fffffffffffffff" + "0" * 16


def test_a_sequence_remembers_how_far_it_came_meanwhile() -> None:
    later = replace(SEQUENCE, reached=20)
    assert stable_sequences({"s": SEQUENCE, "gone": SEQUENCE}, {"s": later}) == {
        "s": replace(SEQUENCE, until=20)
    }
