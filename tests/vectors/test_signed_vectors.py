"""Both readers against the vectors of signed WAL, committed and made anew."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from drkit.crypto.keys import PURPOSES
from drkit.crypto.signing import parse_public, parse_signing_key
from drkit.errors import Corrupt
from drkit.model.wal import WalFileName
from drkit.operations.backup_wal import refuse_changed_wal
from drkit.storage.memory import MemoryStorage
from tests.builders import Keys, World, replace_object
from tests.vectors.columns import Refused
from tests.vectors.make_signed import HERE, make
from tests.vectors.reader import Reader, read_key_file
from tests.vectors.signed_wal import wal_digest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from drkit.repository.repository import Repository

EXPECTED = json.loads((HERE / "expected.json").read_text())
SYSTEM = EXPECTED["system_identifier"]


@dataclass(frozen=True)
class Signed:
    """A directory of these vectors, with one broken object or none."""

    directory: Path
    broken: str = ""

    @property
    def expected(self) -> dict[str, Any]:
        return json.loads((self.directory / "expected.json").read_text())

    def storage(self) -> MemoryStorage:
        storage, root = MemoryStorage(), self.directory / "repository"
        for path in root.rglob("*"):
            if path.is_file():
                storage.put(str(path.relative_to(root)), path.read_bytes())
        for case in self.expected["broken"]:
            if case["file"] == self.broken:
                data = (self.directory / "broken" / self.broken).read_bytes()
                replace_object(storage, case["object"], data)
        return storage

    def _key(self, name: str) -> bytes:
        return read_key_file((self.directory / f"keys/{name}.key").read_text())[1]

    def keys(self) -> Keys:
        keks = {purpose: self._key(purpose) for purpose in PURPOSES}
        return Keys(keks, self._key("signing"), self._key("wal-signing"))

    def repository(self) -> Repository:
        world = World(self.storage(), self.keys(), signed=True)
        return world.repository(opened=False)

    def reader(self) -> Reader:
        storage, expected = self.storage(), self.expected
        objects = {info.name: storage.get(info.name) for info in storage.list("")}
        trusted = {parse_public(text) for text in expected["trusted"]}
        wal = frozenset(parse_public(text) for text in expected["trusted_wal"])
        keks = self.keys().keks
        return Reader(objects, expected["cluster"], keks, trusted, wal)


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Signed:
    directory = tmp_path_factory.mktemp("signed")
    make(directory)
    return Signed(directory)


@pytest.fixture(params=["committed", "fresh"])
def signed(request: pytest.FixtureRequest) -> Signed:
    if request.param == "committed":
        return Signed(HERE)
    made: Signed = request.getfixturevalue("fresh")
    return made


def test_both_read_what_is_signed_and_what_is_older(signed: Signed) -> None:
    repository, reader = signed.repository(), signed.reader()
    for name, digest in signed.expected["wal"].items():
        content = repository.wal.get(WalFileName.parse(name))
        assert hashlib.sha256(content).hexdigest() == digest
        assert reader.wal(signed.expected["system_identifier"], name) == content


def test_the_signature_is_read_from_the_end_alone(signed: Signed) -> None:
    repository = signed.repository()
    for name, digest in signed.expected["wal"].items():
        signature = repository.wal.signature(WalFileName.parse(name))
        older = name in ("000000010000000000000001", "00000001.history")
        assert (signature is None) == older
        assert signature is None or signature.digest.hex() == digest


def test_both_know_what_a_backup_s_wal_is(signed: Signed) -> None:
    expected, repository = signed.expected["backup"], signed.repository()
    backup = repository.find(expected["label"]).backup
    assert backup.wal is not None
    refuse_changed_wal(repository, backup)
    digest = wal_digest(signed.reader(), SYSTEM, expected["segments"])
    assert backup.wal == type(backup.wal)(len(expected["segments"]), digest)


def test_the_key_file_is_that_of_the_pinned_key(signed: Signed) -> None:
    text = (signed.directory / "keys/wal-signing.key").read_text()
    public = parse_signing_key(text, "wal-signing.key").public
    assert [f"ed25519:{public.hex()}"] == signed.expected["trusted_wal"]


@pytest.mark.parametrize("case", EXPECTED["broken"], ids=lambda case: case["file"])
def test_both_refuse_what_is_broken(case: dict[str, Any]) -> None:
    broken, file = Signed(HERE, case["file"]), case["object"].rpartition("/")[2]
    repository, reader = broken.repository(), broken.reader()
    reads: tuple[Callable[[], object], Callable[[], object]]
    if case["read"] == "wal":
        drkit, second = repository.wal.get, reader.wal
        reads = (partial(drkit, WalFileName.parse(file)), partial(second, SYSTEM, file))
    else:
        reads = (repository.log.read, reader.live)
    with pytest.raises(Corrupt, match=case["object"]):
        reads[0]()
    with pytest.raises(Refused):
        reads[1]()


def test_the_readme_explains_every_broken_file() -> None:
    documented = (HERE.parent / "README.md").read_text()
    there = {path.name for path in (HERE / "broken").iterdir()}
    assert there == {case["file"] for case in EXPECTED["broken"]}
    for case in EXPECTED["broken"]:
        row = rf"\| `signed/broken/{case['file']}` \| {re.escape(case['why'])} \|"
        assert re.search(row, documented), case


def test_make_makes_the_same_cases_again(fresh: Signed) -> None:
    assert [case["file"] for case in fresh.expected["broken"]] == [
        case["file"] for case in EXPECTED["broken"]
    ]
