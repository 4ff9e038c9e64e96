"""Evidence handed over, checked where there is no repository, and actions after it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drkit.errors import NotFound, UsageError
from drkit.operations.actions import add_action, settle_action
from drkit.operations.evidence import export_evidence, list_evidence, verify_files
from drkit.repository.attestation import sign_record
from drkit.repository.evidence import read_all
from tests.builders import Keys, World
from tests.evidence import NOTHING, name_of, record, recorded
from tests.faults import FaultyStorage

if TYPE_CHECKING:
    from drkit.operations.evidence import Verdicts

DUE = date(2026, 2, 15)


def exported(world: World, directory: Path) -> list[str]:
    done = export_evidence(world.repository(), str(directory), None, every=True)
    assert done.problems == ()
    return [one.path for one in done.files]


def check(world: World, *paths: str | Path) -> Verdicts:
    return verify_files([str(path) for path in paths], [world.keys.signer.public])


# -- handing over


def test_what_is_exported_is_the_signed_bytes(tmp_path: Path) -> None:
    world = recorded(2)
    paths = exported(world, tmp_path / "new" / "place")
    names = [Path(path).name for path in paths]
    assert names == [f"alpha-evidence-000000000{n}.dsse.json" for n in range(2)]
    chain = list_evidence(world.repository())
    assert [Path(path).read_bytes() for path in paths] == [
        one.envelope for one in chain.records
    ]
    assert json.loads(Path(paths[0]).read_bytes())["payloadType"] == (
        "application/vnd.in-toto+json"
    )
    assert exported(world, tmp_path / "new" / "place") == paths


def test_the_newest_or_a_given_record_is_exported(tmp_path: Path) -> None:
    repository = recorded(3).repository()
    newest = export_evidence(repository, str(tmp_path), None, every=False)
    assert [one.record.record.sequence for one in newest.files] == [2]
    first = export_evidence(repository, str(tmp_path), 0, every=False)
    assert [one.record.record.sequence for one in first.files] == [0]
    with pytest.raises(NotFound, match="no record 3"):
        export_evidence(repository, str(tmp_path), 3, every=False)


def test_without_evidence_nothing_is_exported(tmp_path: Path) -> None:
    repository = World().repository()
    assert export_evidence(repository, str(tmp_path), None, every=True).files == ()
    with pytest.raises(NotFound, match="no record of evidence"):
        export_evidence(repository, str(tmp_path), None, every=False)


def test_of_a_broken_chain_the_rest_is_exported_and_the_loss_told(
    tmp_path: Path,
) -> None:
    world = recorded(3)
    world.storage.delete(name_of(1))
    done = export_evidence(world.repository(), str(tmp_path), None, every=True)
    assert [one.record.record.sequence for one in done.files] == [0, 2]
    assert len(done.problems) == 1
    with pytest.raises(NotFound) as caught:
        export_evidence(world.repository(), str(tmp_path), 1, every=False)
    assert name_of(1) in (caught.value.hint or "")


def test_another_file_is_not_overwritten(tmp_path: Path) -> None:
    world = recorded(1)
    (path,) = exported(world, tmp_path)
    Path(path).write_text("mine")
    with pytest.raises(UsageError, match="with other content"):
        exported(world, tmp_path)
    assert Path(path).read_text() == "mine"


def test_a_directory_that_can_not_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="can't be written"):
        exported(recorded(1), tmp_path / "file")


# -- checking


def test_files_are_sound_in_any_order_and_more_than_once(tmp_path: Path) -> None:
    world = recorded(3)
    paths = exported(world, tmp_path)
    found = check(world, *reversed(paths), paths[0])
    assert found.good
    assert [one.signed is not None for one in found.files] == [True] * 4
    assert check(world, *paths[1:]).good
    assert check(world, paths[1]).good


def test_a_missing_file_shows(tmp_path: Path) -> None:
    world = recorded(4)
    paths = exported(world, tmp_path)
    found = check(world, paths[0], paths[3])
    assert not found.good
    assert found.problems == ("alpha: records 1 to 2 are missing",)


def test_a_record_signed_anew_shows_by_the_next(tmp_path: Path) -> None:
    world = recorded(3)
    paths = exported(world, tmp_path)
    other = replace(read_all(world.repository())[1], failure="")
    Path(paths[1]).write_bytes(sign_record(other, world.keys.signer))
    found = check(world, *paths)
    assert found.problems == (
        "alpha: record 2 does not follow record 1: one was changed",
    )
    Path(tmp_path / "twin").write_bytes(sign_record(other, world.keys.signer))
    exported(world, tmp_path / "again")
    both = check(world, *(tmp_path / "again").iterdir(), tmp_path / "twin")
    assert "alpha: there are two records 1" in both.problems


def test_clusters_have_chains_of_their_own(tmp_path: Path) -> None:
    world = recorded(2)
    beta = World(world.storage, world.keys, world.clock, cluster="beta")
    path = tmp_path / "beta"
    path.write_bytes(
        sign_record(record(5, "ab" * 32, cluster="beta"), beta.keys.signer)
    )
    paths = [*exported(world, tmp_path), str(path)]
    assert check(world, *paths).good
    trusted = [world.keys.signer.public]
    found = verify_files(paths, trusted, {"alpha"})
    assert [one.problem for one in found.files][2] == f"{path} is of cluster beta"


def test_whom_nobody_trusts_is_told_apart_from_what_was_changed(
    tmp_path: Path,
) -> None:
    world = recorded(1)
    (path,) = exported(world, tmp_path)
    stranger = Keys()
    (one,) = verify_files([path], [stranger.signer.public]).files
    assert "not signed by a key that is trusted" in one.problem
    assert world.keys.signer.public.hex() in (one.hint or "")
    (unvouched,) = verify_files([path], None).files
    assert unvouched.signed is not None
    assert not unvouched.signed.trusted
    data = json.loads(Path(path).read_bytes())
    data["payload"] = data["payload"].replace("A", "B", 1)
    Path(path).write_text(json.dumps(data))
    for trusted in (None, [world.keys.signer.public]):
        (changed,) = verify_files([path], trusted).files
        assert "changed after it was signed" in changed.problem


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_a_changed_file_is_refused_or_says_the_same(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Only the envelope's own spelling, such as a keyid, may differ."""
    keys = Keys(seed=bytes(32))
    good = sign_record(record(0, NOTHING), keys.signer)
    changed = bytearray(good)
    place = data.draw(st.integers(0, len(good) - 1))
    changed[place] ^= 1 << data.draw(st.integers(0, 7))
    path = tmp_path_factory.getbasetemp() / "changed"
    path.write_bytes(changed)
    (one,) = verify_files([str(path)], [keys.signer.public]).files
    assert one.signed is None or one.signed.record == record(0, NOTHING)


@pytest.mark.parametrize("data", [b"", b"[]", b"\xff", b"{}", b"x" * (17 << 20)])
def test_other_files_are_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "other"
    path.write_bytes(data)
    (one,) = verify_files([str(path)], None).files
    assert one.signed is None
    assert str(path) in one.problem


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        verify_files([str(tmp_path / "gone")], None)
    with pytest.raises(UsageError):
        verify_files([str(tmp_path)], None)


# -- corrective actions


def test_actions_are_numbered_and_settled_in_the_chain() -> None:
    world = recorded(1)
    repository = world.repository()
    first, place = add_action(repository, " more\n jobs ", "Mira", DUE, 0)
    assert (first.action, first.text, first.state) == (1, "more jobs", "open")
    assert (first.due, first.follows, place.sequence) == ("2026-02-15", 0, 1)
    assert add_action(world.repository(), "b", "Jan", DUE, None).action.action == 2
    done, _ = settle_action(world.repository(), 1, "done", "4 jobs")
    assert done == replace(first, state="done", note="4 jobs")
    settle_action(repository, 2, "dropped", "needless")
    actions = [one.action for one in read_all(world.repository()) if one.action]
    assert [(one.action, one.state) for one in actions] == [
        (1, "open"),
        (2, "open"),
        (1, "done"),
        (2, "dropped"),
    ]
    assert actions[0] == first


def test_actions_that_make_no_sense_are_refused() -> None:
    world = recorded(1)
    repository = world.repository()
    with pytest.raises(UsageError, match="--text"):
        add_action(repository, " ", "Mira", DUE, None)
    with pytest.raises(UsageError, match="--owner"):
        add_action(repository, "a", "Mira\x1b[2J", DUE, None)
    with pytest.raises(NotFound, match="record 1 is no drill"):
        add_action(repository, "a", "Mira", DUE, 1)
    with pytest.raises(NotFound, match="no action 1"):
        settle_action(repository, 1, "done", "x")
    add_action(repository, "a", "Mira", DUE, 0)
    with pytest.raises(NotFound, match="no drill and no verification"):
        add_action(repository, "an action follows no action", "Mira", DUE, 1)
    with pytest.raises(UsageError, match="--note"):
        settle_action(repository, 1, "done", "")
    settle_action(repository, 1, "done", "x")
    with pytest.raises(UsageError, match="done already"):
        settle_action(repository, 1, "dropped", "y")
    assert len(read_all(world.repository())) == 3


def test_two_who_add_at_once_get_two_numbers() -> None:
    world = recorded(1)
    faulty = FaultyStorage(world.storage)
    one, other = world.repository(storage=faulty), world.repository(host="b")
    first = partial(add_action, other, "b", "Jan", DUE, None)
    faulty.call("put", first, at=faulty.calls["put"] + 1)
    assert add_action(one, "a", "Mira", DUE, None).action.action == 2
    actions = [one.action for one in read_all(world.repository()) if one.action]
    assert [(one.action, one.owner) for one in actions] == [(1, "Jan"), (2, "Mira")]
