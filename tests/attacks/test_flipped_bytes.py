"""Any byte of any stored object, changed: whoever reads that object notices.

What is read is the vectors' repository with what it lacks put beside it: a lease,
findings, and a block of the log. `make test` takes samples, `make test-long` each byte.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from drkit.crypto.keys import Dek, LocalKeyProvider, parse_kek
from drkit.errors import Corrupt, KeyUnavailable, NotFound, RepositoryMissing
from drkit.model.wal import WalFileName
from drkit.operations.archived import archived_histories, archived_wal
from drkit.operations.verifying.repository import Request, verify
from drkit.repository.checking import PackChecker
from drkit.repository.evidence import read_chain as read_evidence
from drkit.repository.findings import DamagedPack, read_finding, write_findings
from drkit.repository.fingerprint import read_fingerprint
from drkit.repository.identity import read_lineage
from drkit.repository.keyring import Keyring
from drkit.repository.lease import Holder, leases_of
from drkit.repository.log_blocks import ENTRIES, EntryCopy, LogBlocks
from drkit.repository.manifests import read_manifest
from drkit.repository.packing import MAX_PACK
from drkit.storage.memory import MemoryStorage
from tests.builders import CLUSTER, World, copy_of, new_attempt, replace_object
from tests.operations.verify_tools import Quiet
from tests.vectors.test_vectors import COMMITTED, Vectors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from drkit.repository.repository import Repository

    Notices = Callable[["Scene", str], bool]
    Changes = Iterable[tuple[int, int]]

VECTORS = Vectors(COMMITTED)
STRIDE = 13
PLAIN = ("drkit.json", "key", "wal-day", "lease")
NAMES = {
    "drkit.json": r"drkit\.json",
    "key": r"alpha/keys/.*",
    "wal-day": r"alpha/wal-days/.*",
    "lease": r"alpha/leases/.*",
    "log entry": r"alpha/log/.*",
    "log block": r"alpha/log-blocks/.*",
    "manifest": r"alpha/backups/.*/manifest",
    "fingerprint": r"alpha/backups/.*/fingerprint",
    "pack": r"alpha/backups/.*/packs/.*",
    "findings": r"alpha/findings/.*",
    "evidence": r"alpha/evidence/.*",
    "wal": r"alpha/wal/.*",
}


class Scene:
    """A repository with one object of each kind or more, and one byte wrong in it."""

    def __init__(self) -> None:
        self.world = World(copy_of(VECTORS.storage()), VECTORS.keys())
        self.good = self.world.repository(opened=False)
        self.good.log.read()
        self.put_the_rest()
        self.objects = {
            info.name: self.world.storage.get(info.name)
            for info in self.world.storage.list("")
        }
        self.manifests = {
            one.manifest.name: (one.manifest, read_manifest(self.good, one.manifest))
            for one in self.good.backups()
        }

    def put_the_rest(self) -> None:
        repository = self.good
        leases_of(repository).renew(new_attempt(), Holder("db1", "a boot", 17), 0)
        lost = DamagedPack("20260115-103002-full", new_attempt(), 0, ((0, 3),))
        write_findings(repository, [lost])
        copies = [EntryCopy(bytes(16), bytes([at]) * 9) for at in range(ENTRIES)]
        self.blocks().put(0, copies, repository.log.dek())

    def blocks(self) -> LogBlocks:
        repository = self.world.repository(opened=False)
        parts = repository.layout, repository.lineage, repository.keyring
        return LogBlocks(repository.storage, *parts)

    def names(self, kind: str) -> list[str]:
        return [name for name in self.objects if re.fullmatch(NAMES[kind], name)]

    def first_and_last(self, kind: str) -> list[str]:
        """Of the keys the last one is wrapped for two recipients."""
        names = self.names(kind)
        return sorted({names[0], names[-1]})

    def put(self, name: str, content: bytes) -> None:
        assert isinstance(self.world.storage, MemoryStorage)
        replace_object(self.world.storage, name, content)

    def fresh(self) -> Repository:
        """Another host's view, which has read nothing yet."""
        return self.world.repository(opened=False)

    def mend(self, name: str) -> None:
        self.put(name, self.objects[name])


@pytest.fixture(scope="module")
def shared() -> Scene:
    return Scene()


@pytest.fixture
def scene(shared: Scene) -> Iterator[Scene]:
    yield shared
    for name in shared.objects:
        shared.mend(name)


# -- who notices what


def identity(scene: Scene, name: str) -> bool:
    """All but digits of `created`, which nothing is decided by."""
    if read_lineage(scene.world.storage) != scene.good.lineage:
        # no key and no sealed object says that it is of that lineage
        return not isinstance(next(unwrapped(scene, scene.names("key")[0])), Dek)
    before, now = scene.objects[name], scene.world.storage.get(name)
    (place,) = (at for at in range(len(now)) if now[at] != before[at])
    assert place > before.index(b'"created": "')
    assert chr(now[place]).isdigit()
    return True


def key(scene: Scene, name: str) -> bool:
    """Each holder of a key that it is wrapped for reads it; one notices at least."""
    assert all(isinstance(one, Dek) for one in unwrapped(scene, name, good=True))
    return not all(isinstance(one, Dek) for one in unwrapped(scene, name))


def unwrapped(scene: Scene, name: str, *, good: bool = False) -> Iterator[object]:
    stored = json.loads(scene.objects[name])
    purpose, key_id = stored["purpose"], bytes.fromhex(stored["dek_id"])
    storage = GOOD if good else scene.world.storage
    recipients = {one["kek_id"] for one in stored["recipients"]}
    for holder in (LocalKeyProvider(scene.world.keys.keks[purpose]), BREAK_GLASS):
        if holder.kek_id in recipients:
            lineage = read_lineage(storage)
            sources = {purpose: lambda holder=holder: holder}
            keyring = Keyring(storage, scene.good.layout, lineage, sources)
            yield dict(keyring.generations(purpose, key_id))[name]


def wal_day(scene: Scene, name: str) -> bool:
    keyring = scene.fresh().keyring
    keyring.get("wal", keyring.wal_day_key(name))
    return False


def lease(scene: Scene, name: str) -> bool:
    """A lease is advisory; one that was changed is not believed."""
    attempt = name.rpartition("/")[2].rpartition("-")[0]
    found = leases_of(scene.good).last(attempt)
    assert found is None or found.attempt == attempt
    return found is None or not found.proven


def read(scene: Scene, name: str) -> bytes:
    return scene.world.storage.get(name)


def log_entry(scene: Scene, name: str) -> bool:
    """What is no entry any more is told, as all objects are that are none."""
    log = scene.fresh().log
    log.read()
    return int(name[-10:]) in {void.sequence for void in log.void}


def log_block(scene: Scene, name: str) -> bool:
    """It is as if there were none: the entries are read."""
    return scene.blocks().get(0) is None


def manifest(scene: Scene, name: str) -> bool:
    read_manifest(scene.fresh(), scene.manifests[name][0])
    return False


def fingerprint(scene: Scene, name: str) -> bool:
    _, found = scene.manifests[name.replace("fingerprint", "manifest")]
    assert found.head.fingerprint is not None
    read_fingerprint(scene.fresh(), found.head.fingerprint)
    return False


def pack(scene: Scene, name: str) -> bool:
    _, found = scene.manifests[re.sub("packs/.*", "manifest", name)]
    checker = PackChecker(scene.fresh(), found)
    return checker.check(int(name[-6:]), lambda *_: None).kind is not None


def findings(scene: Scene, name: str) -> bool:
    read_finding(scene.fresh(), name)
    return False


def evidence(scene: Scene, name: str) -> bool:
    return any(name in problem for problem in read_evidence(scene.fresh()).problems)


def wal(scene: Scene, name: str) -> bool:
    """The newest segment, with another header, is none; all others are damaged."""
    file = WalFileName.parse(name.rpartition("/")[2])
    try:
        scene.fresh().wal.get(file)
    except NotFound:
        listed = (archived_wal(scene.fresh()), archived_histories(scene.fresh()))
        return any(name in one.void for one in listed)
    return False


NOTICES: dict[str, Notices] = {
    "drkit.json": identity,
    "key": key,
    "wal-day": wal_day,
    "lease": lease,
    "log entry": log_entry,
    "log block": log_block,
    "manifest": manifest,
    "fingerprint": fingerprint,
    "pack": pack,
    "findings": findings,
    "evidence": evidence,
    "wal": wal,
}
GOOD = VECTORS.storage()
BREAK_GLASS = parse_kek(
    (COMMITTED / "keys/break-glass.key").read_text(), "wal", "break-glass.key"
)


def noticed(scene: Scene, kind: str, name: str) -> bool:
    try:
        return NOTICES[kind](scene, name)
    except (Corrupt, KeyUnavailable, RepositoryMissing):
        return True


def unnoticed(scene: Scene, kind: str, name: str, changes: Changes) -> list[str]:
    """Make changes to an object, one after the other; say which nobody notices."""
    good, found = scene.objects[name], []
    for place, value in changes:
        changed = bytearray(good)
        changed[place] = value
        scene.put(name, bytes(changed))
        if not noticed(scene, kind, name):
            found.append(f"{name}: byte {place} is {value:#x}, not {good[place]:#x}")
    scene.mend(name)
    return found


def flips(good: bytes, step: int, bits: int) -> Iterator[tuple[int, int]]:
    """Yield each `step`th byte with one bit after the other flipped, of all 8 some."""
    for place in range(0, len(good), step):
        for bit in range(bits):
            yield place, good[place] ^ 1 << (place + bit) % 8


# -- the attacks


def test_there_is_a_reader_for_every_object(scene: Scene) -> None:
    assert NAMES.keys() == NOTICES.keys()
    for name in scene.objects:
        assert [k for k in NAMES if re.fullmatch(NAMES[k], name)], name
    assert all(scene.names(kind) for kind in NAMES)


@pytest.mark.parametrize("kind", NAMES)
def test_what_nobody_changed_is_no_alarm(scene: Scene, kind: str) -> None:
    for name in scene.names(kind):
        if kind == "drkit.json":
            assert read_lineage(scene.world.storage) == scene.good.lineage
        elif kind == "key":
            assert all(isinstance(one, Dek) for one in unwrapped(scene, name))
        elif kind == "lease":
            assert name.rpartition("/")[2][:32] in scene_leases(scene)
        else:
            assert not noticed(scene, kind, name)


def scene_leases(scene: Scene) -> set[str]:
    return leases_of(scene.good).attempts()


@pytest.mark.parametrize("kind", PLAIN)
def test_a_flipped_bit_of_a_plain_object_is_noticed(scene: Scene, kind: str) -> None:
    """Every bit: they are short."""
    for name in scene.first_and_last(kind):
        changes = flips(scene.objects[name], 1, 8)
        assert not unnoticed(scene, kind, name, changes)


@pytest.mark.parametrize("kind", [kind for kind in NAMES if kind not in PLAIN])
def test_a_flipped_bit_of_a_sealed_object_is_noticed(scene: Scene, kind: str) -> None:
    for name in scene.names(kind):
        changes = flips(scene.objects[name], STRIDE, 1)
        assert not unnoticed(scene, kind, name, changes)


@pytest.mark.long
@pytest.mark.parametrize("kind", [kind for kind in NAMES if kind not in PLAIN])
def test_every_byte_of_a_sealed_object_is_noticed(scene: Scene, kind: str) -> None:
    for name in scene.names(kind):
        assert not unnoticed(scene, kind, name, flips(scene.objects[name], 1, 1))


@pytest.mark.long
@pytest.mark.parametrize("kind", PLAIN)
def test_every_other_value_of_a_plain_object_is_noticed(
    scene: Scene, kind: str
) -> None:
    """A space may become a tab, and a digit of base64 another of the same bits."""
    for name in scene.first_and_last(kind):
        good = scene.objects[name]
        changes = (
            (place, value)
            for place in range(len(good))
            for value in range(256)
            if value != good[place]
        )
        assert not unnoticed(scene, kind, name, changes)


@pytest.mark.parametrize("other", [b" ", b"\n", b"{}"])
@pytest.mark.parametrize("kind", NAMES)
def test_bytes_behind_an_object_are_noticed(
    scene: Scene, kind: str, other: bytes
) -> None:
    name = scene.names(kind)[0]
    scene.put(name, scene.objects[name] + other)
    if kind == "lease":
        assert not scene_leases(scene)
    elif kind == "pack":
        assert name in {one for one, _ in damaged(scene)}
    else:
        assert noticed(scene, kind, name)


@pytest.mark.parametrize("kind", ["key", "wal-day", "manifest", "fingerprint", "pack"])
def test_verify_names_the_object(scene: Scene, kind: str) -> None:
    """Older generations of a key are looked at too, though no restore needs them."""
    before = damaged(scene)
    for name in used(scene, kind):
        good = scene.objects[name]
        place = good.index(b"lineage") + 12 if kind == "key" else len(good) // 2
        changed = bytearray(good)
        changed[place] ^= 2
        scene.put(name, bytes(changed))
        found = damaged(scene) - before
        scene.mend(name)
        assert any(name.startswith(one) for one, _ in found), name


def used(scene: Scene, kind: str) -> list[str]:
    """Leave out keys of a backup that has expired or was given up."""
    state = scene.good.log.state
    gone = {
        key_id
        for attempt in state.attempts.values()
        if attempt.begin.label not in state.backups
        for _, key_id in attempt.begin.keys
    }
    return [name for name in scene.names(kind) if not gone & set(name.split("/"))]


def damaged(scene: Scene) -> set[tuple[str, str]]:
    """Return what a whole verification finds: of which objects, and what it says.

    The vectors' pages are made up and fail their checksums, which is told as well.
    """
    try:
        found = verify(scene.fresh(), Request(jobs=1), None, Quiet())
    except Corrupt as error:  # of a key that the log itself needs
        named = re.findall(rf"{CLUSTER}/[^ ]+", error.message)
        return {(name, error.message) for name in named}
    finally:
        for info in list(scene.world.storage.list(f"{CLUSTER}/findings/")):
            if info.name not in scene.objects:
                scene.world.storage.delete(info.name)
    return {(one.name, one.what) for one in found.damage}


def test_the_scene_is_small() -> None:
    """Of each byte once: so nobody makes the vectors so large that none is tried."""
    assert sum(len(content) for content in Scene().objects.values()) < MAX_PACK >> 9
