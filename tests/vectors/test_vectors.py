"""drkit and a second reader, over the committed vectors and over fresh ones."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from drkit.crypto.keys import PURPOSES, parse_kek
from drkit.crypto.signing import parse_public, parse_signing_key
from drkit.errors import Corrupt, KeyUnavailable
from drkit.model.evidence_json import statement_of
from drkit.model.fingerprint_json import dump as dump_fingerprint
from drkit.model.wal import WalFileName
from drkit.repository.chain import read_chain
from drkit.repository.evidence import read_chain as read_evidence_chain
from drkit.repository.fingerprint import fingerprint_of
from drkit.repository.keyring import Keyring
from drkit.repository.layout import Layout
from drkit.repository.manifest import decode
from drkit.repository.manifests import read_manifest
from drkit.repository.objects import unseal
from drkit.storage.memory import MemoryStorage
from tests.builders import Keys, World, copy_of, replace_object
from tests.chains import read_files
from tests.vectors.columns import Refused
from tests.vectors.evidence import read_evidence
from tests.vectors.fingerprints import read_fingerprint
from tests.vectors.make import digests, make
from tests.vectors.reader import Reader, read_key_file

if TYPE_CHECKING:
    from drkit.repository.repository import Repository

COMMITTED = Path(__file__).parent
EXPECTED = json.loads((COMMITTED / "expected.json").read_text())


@dataclass(frozen=True)
class Vectors:
    """A directory of vectors, read."""

    directory: Path

    @property
    def expected(self) -> dict[str, Any]:
        return json.loads((self.directory / "expected.json").read_text())

    def storage(self) -> MemoryStorage:
        storage = MemoryStorage()
        root = self.directory / "repository"
        for path in root.rglob("*"):
            if path.is_file():
                storage.put(str(path.relative_to(root)), path.read_bytes())
        return storage

    def keys(self) -> Keys:
        texts = {
            name: (self.directory / "keys" / f"{name}.key").read_text()
            for name in (*PURPOSES, "signing")
        }
        read = {name: read_key_file(text) for name, text in texts.items()}
        assert all(name == purpose for name, (purpose, _) in read.items())
        keks = {purpose: read[purpose][1] for purpose in PURPOSES}
        return Keys(keks, read["signing"][1])

    def repository(self, storage: MemoryStorage) -> Repository:
        return World(storage, self.keys()).repository(opened=False)

    def reader(self, storage: MemoryStorage) -> Reader:
        objects = {info.name: storage.get(info.name) for info in storage.list("")}
        trusted = {parse_public(text) for text in self.expected["trusted"]}
        return Reader(objects, self.expected["cluster"], self.keys().keks, trusted)

    def broken(self, case: dict[str, Any]) -> MemoryStorage:
        """The repository with a case's objects in the place of good ones."""
        storage = copy_of(self.storage())
        for one in (case, *([case["with"]] if "with" in case else [])):
            bad = (self.directory / "broken" / one["file"]).read_bytes()
            replace_object(storage, one["object"], bad)
        return storage


@pytest.fixture(scope="session")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Vectors:
    directory = tmp_path_factory.mktemp("vectors")
    make(directory)
    return Vectors(directory)


@pytest.fixture(params=["committed", "fresh"])
def vectors(request: pytest.FixtureRequest) -> Vectors:
    if request.param == "committed":
        return Vectors(COMMITTED)
    return request.getfixturevalue("fresh")


def drkit_restore(repository: Repository, label: str) -> dict[bytes, bytes | None]:
    """Read all files of a backup with drkit, pack by pack."""
    return read_files(repository, read_chain(repository, repository.find(label)))


def test_the_second_reader_restores_what_drkit_wrote(vectors: Vectors) -> None:
    reader, expected = vectors.reader(vectors.storage()), vectors.expected
    assert list(expected["files"]) == expected["live"]
    for label, files in expected["files"].items():
        backup = reader.restore(label)
        assert digests(backup.files) == files
        assert backup.head["backup_label"].endswith("caf\udce9\n")
    assert list(reader.live()) == expected["live"]
    assert [entry["type"] for entry in reader.log()] == expected["log"]


def test_a_frame_is_stored_as_differences(vectors: Vectors) -> None:
    storage = vectors.storage()
    repository, reader = vectors.repository(storage), vectors.reader(storage)
    full = repository.find(vectors.expected["live"][0]).manifest
    frames = read_manifest(repository, full).frames
    codecs = frames["codec"].tolist()
    assert codecs == list(reader.manifest(full.name).columns["frame.codec"])
    assert 2 in codecs, "tuples of 16 bytes"
    assert min(codecs) < 2


def test_the_second_reader_reads_wal(vectors: Vectors) -> None:
    reader, expected = vectors.reader(vectors.storage()), vectors.expected
    for name, digest in expected["wal"].items():
        content = reader.wal(expected["system_identifier"], name)
        assert hashlib.sha256(content).hexdigest() == digest
    day = next(n for n in reader.objects if "/wal-days/" in n).rpartition("/")[2]
    assert reader.wal_day(day).hex() in expected["deks"].values()


def test_both_read_the_fingerprints(vectors: Vectors) -> None:
    storage, expected = vectors.storage(), vectors.expected
    repository, reader = vectors.repository(storage), vectors.reader(storage)
    points = {}
    for label in expected["live"]:
        head = read_manifest(repository, repository.find(label).manifest).head
        found = fingerprint_of(repository, head)
        second = read_fingerprint(reader, label)
        assert (found is None) == (second is None)
        if found is not None and second is not None:
            assert json.loads(dump_fingerprint(found)) == second
            points[label] = second["restore_point"]
    assert points == expected["fingerprints"]


def test_both_read_the_evidence(vectors: Vectors) -> None:
    storage, expected = vectors.storage(), vectors.expected
    chain = read_evidence_chain(vectors.repository(storage))
    assert chain.problems == ()
    assert [one.digest for one in chain.records] == expected["evidence"]
    second = read_evidence(vectors.reader(storage))
    assert [one["kind"] for one in second] == ["drill", "verification", "action"]
    written = [statement_of(one.record)["predicate"] for one in chain.records]
    assert json.loads(json.dumps(written)) == second


@pytest.mark.parametrize("number", range(3))
def test_both_miss_a_record(vectors: Vectors, number: int) -> None:
    storage = vectors.storage()
    storage.delete(f"alpha/evidence/{number:010d}")
    assert read_evidence_chain(vectors.repository(storage)).problems
    with pytest.raises(Refused):
        read_evidence(vectors.reader(storage))


def test_drkit_reads_the_vectors(vectors: Vectors) -> None:
    repository, expected = vectors.repository(vectors.storage()), vectors.expected
    assert [one.backup.label for one in repository.backups()] == expected["live"]
    types = [one.entry.TYPE for one in repository.log.entries]
    assert types == expected["log"]
    for label, files in expected["files"].items():
        assert digests(drkit_restore(repository, label)) == files
    for name, digest in expected["wal"].items():
        content = repository.wal.get(WalFileName.parse(name))
        assert hashlib.sha256(content).hexdigest() == digest


def test_both_unwrap_every_data_key(vectors: Vectors) -> None:
    storage, expected = vectors.storage(), vectors.expected
    repository, reader = vectors.repository(storage), vectors.reader(storage)
    listed = [info.name for info in storage.list("alpha/keys/")]
    assert sorted(expected["deks"]) == listed
    for name, secret in expected["deks"].items():
        purpose, key_id = name.split("/")[-3], bytes.fromhex(name.split("/")[-2])
        assert repository.keyring.get(purpose, key_id).secret.hex() == secret
        assert reader.unwrap(name, purpose, key_id).hex() == secret


def test_the_second_recipient_opens_what_it_was_added_to(vectors: Vectors) -> None:
    storage, expected = vectors.storage(), vectors.expected
    break_glass = (vectors.directory / "keys/break-glass.key").read_text()
    name = expected["two_recipients"]
    key_id = bytes.fromhex(name.split("/")[-2])
    layout, lineage = Layout("alpha"), bytes.fromhex(expected["lineage"])
    provider = parse_kek(break_glass, "wal", "break-glass.key")
    keyring = Keyring(storage, layout, lineage, {"wal": lambda: provider})
    assert keyring.get("wal", key_id).secret.hex() == expected["deks"][name]
    reader = vectors.reader(storage)
    reader.keks = {"wal": read_key_file(break_glass)[1]}
    assert reader.dek("wal", key_id).hex() == expected["deks"][name]


def test_key_files_are_read(vectors: Vectors) -> None:
    text = (vectors.directory / "keys/signing.key").read_text()
    public = parse_signing_key(text, "signing.key").public
    assert [f"ed25519:{public.hex()}"] == vectors.expected["trusted"]


READS = {
    "wal": lambda repository, case: repository.wal.get(
        WalFileName.parse(case["object"].rpartition("/")[2])
    ),
    "log": lambda repository, _: repository.log.read(),
    "manifest": lambda repository, case: decode(
        case["object"],
        unseal(
            repository.keyring.finder("catalog"),
            repository.lineage,
            case["object"],
            "catalog",
            repository.storage.get(case["object"]),
        ),
    ),
    "restore": lambda repository, case: drkit_restore(repository, case["backup"]),
}


def second_reads(reader: Reader, case: dict[str, Any], expected: dict) -> object:
    match case["read"]:
        case "wal":
            file = case["object"].rpartition("/")[2]
            return reader.wal(expected["system_identifier"], file)
        case "log":
            return reader.live()
        case "manifest":
            return reader.manifest(case["object"])
        case _:
            return reader.restore(case["backup"])


@pytest.mark.parametrize("case", EXPECTED["broken"], ids=lambda case: case["file"])
def test_a_broken_object_is_refused_by_its_name(case: dict[str, Any]) -> None:
    vectors = Vectors(COMMITTED)
    storage = vectors.broken(case)
    repository = vectors.repository(storage)
    read = READS[case["read"]]
    with pytest.raises((Corrupt, KeyUnavailable)) as caught:
        read(repository, case)
    # A damaged header names another data key; a key is named by its id.
    name = case["object"]
    id_of_key = name.split("/")[-2] if "/keys/" in name else name
    # Manifests that don't fit each other are named by their backup's label.
    label = case["backup"] if case["file"].startswith("chain-") else name
    assert any(one in str(caught.value) for one in (name, id_of_key, label))
    with pytest.raises(Refused):
        second_reads(vectors.reader(storage), case, EXPECTED)


def test_what_is_broken_reads_well_when_it_is_whole() -> None:
    vectors = Vectors(COMMITTED)
    storage = vectors.storage()
    repository, reader = vectors.repository(storage), vectors.reader(storage)
    for case in EXPECTED["broken"]:
        assert READS[case["read"]](repository, case) is not None
    for case in {case["read"]: case for case in EXPECTED["broken"]}.values():
        assert second_reads(reader, case, EXPECTED) is not None


def test_every_broken_file_is_expected_and_every_kind_is_there() -> None:
    there = {path.name for path in (COMMITTED / "broken").iterdir()}
    listed = [case["file"] for case in EXPECTED["broken"]]
    listed += [case["with"]["file"] for case in EXPECTED["broken"] if "with" in case]
    assert sorted(there) == sorted(listed)
    assert len(listed) > 60


def test_make_makes_the_same_cases_again(fresh: Vectors) -> None:
    assert [case["file"] for case in fresh.expected["broken"]] == [
        case["file"] for case in EXPECTED["broken"]
    ]


@cache
def documented() -> str:
    return (COMMITTED / "README.md").read_text()


@pytest.mark.parametrize("case", EXPECTED["broken"], ids=lambda case: case["file"])
def test_the_readme_explains_every_broken_file(case: dict[str, Any]) -> None:
    row = rf"\| `{re.escape(case['file'])}` \| {re.escape(case['why'])} \|"
    assert re.search(row, documented())
