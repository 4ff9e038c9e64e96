"""An authority's word on when evidence was there, beside the signer's own."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from drkit.errors import Corrupt
from drkit.model.verification import TimestampAuthority, VerificationRules
from drkit.operations.evidence import export_evidence, verify_files
from drkit.operations.timestamps import stamp, stored_timestamp
from drkit.repository.evidence import append
from tests.builders import World
from tests.evidence import record
from tests.timestamps import Authority, authority

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from drkit.model.evidence import Record
    from drkit.operations.evidence import Verdicts


class Warnings:
    """A Progress that keeps what it is warned of."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def warning(self, message: str, **_: object) -> None:
        self.told.append(message)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Authority]:
    with authority(tmp_path / "authority") as served:
        yield served


@pytest.fixture
def world() -> World:
    world = World()
    world.clock.time = datetime.now(UTC)
    return world


def stamped(world: World, served: Authority, ended: datetime | None = None) -> Warnings:
    """Append a record that ended at a time, now if none is given, and stamp it."""

    def build(sequence: int, previous: str) -> Record:
        finished = ended or world.clock.now()
        began = finished - timedelta(seconds=75)
        return replace(record(sequence, previous), started=began, finished=finished)

    by = TimestampAuthority(served.url, str(served.roots))
    rules = VerificationRules(timestamps=by)
    progress, repository = Warnings(), world.repository()
    stamp(repository, append(repository, build), rules, progress)  # type: ignore[arg-type]
    return progress


def check(world: World, directory: Path, roots: Path) -> tuple[list[str], Verdicts]:
    done = export_evidence(world.repository(), str(directory), None, every=True)
    paths = [one.path for one in done.files]
    trusted = [world.keys.signer.public]
    return paths, verify_files(paths, trusted, roots=str(roots))


def test_a_stamp_is_kept_handed_over_and_believed(
    world: World, served: Authority, tmp_path: Path
) -> None:
    assert stamped(world, served).told == []
    paths, found = check(world, tmp_path / "out", served.roots)
    assert found.good
    time = found.files[0].timestamp
    assert time is not None
    assert abs(time - datetime.now(UTC)) < timedelta(minutes=5)
    others = ["openssl", "ts", "-verify", "-data", paths[0], "-in", f"{paths[0]}.tsr"]
    others += ["-CAfile", str(served.roots)]
    done = subprocess.run(others, check=True, capture_output=True)
    assert b"Verification: OK" in done.stdout


def test_a_signer_who_dates_a_record_otherwise_is_told(
    world: World, served: Authority, tmp_path: Path
) -> None:
    """With a log of his own making, in which all is of two months ago."""
    world.clock.jump(days=-60)
    stamped(world, served)
    _, found = check(world, tmp_path / "out", served.roots)
    assert not found.good
    assert "and was stamped at" in found.files[0].problem


def test_a_stamp_of_another_record_or_authority_is_refused(
    world: World, served: Authority, tmp_path: Path
) -> None:
    stamped(world, served)
    stamped(world, served)
    paths, _ = check(world, tmp_path / "out", served.roots)
    with authority(tmp_path / "other") as other:
        assert not check(world, tmp_path / "out", other.roots)[1].good
    first, second = (f"{path}.tsr" for path in paths)
    shutil.copy(second, first)
    trusted = [world.keys.signer.public]
    found = verify_files(paths, trusted, roots=str(served.roots))
    assert [one.signed is None for one in found.files] == [True, False]
    assert "no timestamp that can be believed" in found.files[0].problem


@pytest.mark.parametrize("answer", [b"", b"<html>404</html>", b"x" * (2 << 20)])
def test_an_authority_that_answers_nonsense_fails_nothing(
    world: World, served: Authority, answer: bytes
) -> None:
    served.answer = answer
    told = stamped(world, served).told
    assert len(told) == 1
    assert told[0].startswith(f"record 0 has no timestamp of {served.url}: ")
    assert stored_timestamp(world.repository(), 0) is None


def test_an_authority_that_is_not_there_fails_nothing(
    world: World, served: Authority
) -> None:
    nobody = Authority("http://127.0.0.1:1", served.roots)
    assert len(stamped(world, nobody).told) == 1


def test_without_an_authority_nobody_is_asked(world: World, served: Authority) -> None:
    repository = world.repository()
    place = append(repository, record)
    stamp(repository, place, VerificationRules(), Warnings())  # type: ignore[arg-type]
    assert served.asked == 0


def test_a_stamp_that_was_changed_in_the_store_is_told(
    world: World, served: Authority
) -> None:
    stamped(world, served)
    name = world.repository().layout.timestamp(0)
    data = bytearray(world.storage.get(name))
    data[200] ^= 1
    world.storage.delete(name)
    world.storage.put(name, bytes(data))
    with pytest.raises(Corrupt):
        stored_timestamp(world.repository(), 0)
