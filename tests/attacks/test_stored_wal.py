"""Who has the key of WAL and can write to the store, but can't sign.

He changes what was archived, or archives in the server's place. Nothing of his is ever
taken for WAL, and no refusal of it looks like the end of WAL.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from drkit.crypto.signing import Signer, format_public
from drkit.errors import Corrupt
from drkit.model.log_wal import WalSigners
from drkit.model.wal import WalFileName
from drkit.repository.wal_signature import sign_wal
from tests.builders import World, replace_object
from tests.repository.test_wal import KINDS, SEGMENT
from tests.vectors.forge import Forger, signed_entry

if TYPE_CHECKING:
    from collections.abc import Callable

    from drkit.repository.repository import Repository

HONEST, FORGED = b"honest" * 1000, b"forged" * 1000
NEXT = WalFileName.parse("000000010000000000000003")


class Thief:
    """Has every key of a world's repository but those that sign.

    Attributes:
        seed: of a signing key of his own.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.seed = os.urandom(32)
        self.repository: Repository = world.repository()
        now = world.clock.now().strftime("%Y%m%d")
        self.dek = self.repository.keyring.for_wal_day(now)

    def seal(self, name: str, content: bytes, signature: bytes | None = None) -> bytes:
        """Seal a WAL file under a name, with a signature's frame or without."""
        forger = Forger(self.dek.secret, self.repository.lineage, "wal")
        payloads = [(content, len(content), 0)]
        if signature is not None:
            payloads.append((signature, len(signature), 0))
        return forger.seal(name, payloads, version=1 if signature is None else 2)

    def put(
        self,
        file: WalFileName,
        content: bytes,
        sign: Callable[[str], bytes] | None = None,
    ) -> None:
        """Put a file where another may be."""
        name = self.repository.wal.name(file)
        signature = None if sign is None else sign(name)
        replace_object(self.world.storage, name, self.seal(name, content, signature))

    def signature(self, seed: bytes, name: str, content: bytes) -> bytes:
        """The last frame of an object that some key has signed."""
        return sign_wal(Signer(seed), self.repository.lineage, name, content)


@pytest.fixture
def world() -> World:
    made = World(signed=True)
    for file in KINDS:
        made.repository().wal.push(file, HONEST, made.clock.now())
    return made


def refused(world: World, file: WalFileName = SEGMENT) -> str:
    """Read a file in full and its signature alone, which must both fail."""
    archive = world.repository().wal
    with pytest.raises(Corrupt, match=file.name) as caught:
        archive.get(file)
    return caught.value.message


@pytest.mark.parametrize("file", KINDS, ids=lambda file: file.name)
def test_an_unsigned_file_in_the_place_of_a_signed_one(
    world: World, file: WalFileName
) -> None:
    Thief(world).put(file, FORGED)
    assert "is not signed, and must be" in refused(world, file)
    with pytest.raises(Corrupt, match="is not signed"):
        world.repository().wal.signature(file)


@pytest.mark.parametrize("file", KINDS, ids=lambda file: file.name)
def test_a_file_that_the_thief_has_signed(world: World, file: WalFileName) -> None:
    thief = Thief(world)
    thief.put(file, FORGED, lambda name: thief.signature(thief.seed, name, FORGED))
    assert "not signed by a key of WAL that the policy trusts" in refused(world, file)
    with pytest.raises(Corrupt, match="not signed by a key of WAL"):
        world.repository().wal.signature(file)


def test_another_content_behind_the_right_signature(world: World) -> None:
    thief = Thief(world)
    seed = world.keys.wal_seed
    thief.put(SEGMENT, FORGED, lambda name: thief.signature(seed, name, HONEST))
    assert "does not hold what was signed" in refused(world)


@pytest.mark.parametrize("change", [b"", HONEST[:-1], HONEST + b"\0"])
def test_a_file_that_was_cut_or_made_longer(world: World, change: bytes) -> None:
    thief = Thief(world)
    seed = world.keys.wal_seed
    thief.put(SEGMENT, change, lambda name: thief.signature(seed, name, HONEST))
    assert "does not hold what was signed" in refused(world)


def test_a_signature_of_another_name(world: World) -> None:
    """A segment that was honestly archived is put in the place of the next."""
    thief = Thief(world)
    seed, other = world.keys.wal_seed, world.repository().wal.name(SEGMENT)
    thief.put(NEXT, HONEST, lambda _: thief.signature(seed, other, HONEST))
    assert "not signed by a key of WAL" in refused(world, NEXT)


@pytest.mark.parametrize("frame", [b"", bytes(135), bytes(137), bytes(136)])
def test_what_is_no_signature(world: World, frame: bytes) -> None:
    Thief(world).put(SEGMENT, FORGED, lambda _: frame)
    refused(world)
    with pytest.raises(Corrupt, match=SEGMENT.name):
        world.repository().wal.signature(SEGMENT)


def test_a_signature_in_the_middle(world: World) -> None:
    """What is behind the signature was not signed."""
    thief = Thief(world)
    name = thief.repository.wal.name(SEGMENT)
    frame = thief.signature(world.keys.wal_seed, name, HONEST)
    forger = Forger(thief.dek.secret, thief.repository.lineage, "wal")
    payloads = [(HONEST, len(HONEST), 0), (frame, 136, 0), (FORGED, len(FORGED), 0)]
    replace_object(world.storage, name, forger.seal(name, payloads, version=2))
    assert "has no signature" in refused(world)


def test_the_key_that_signs_the_log_signs_no_wal(world: World) -> None:
    thief = Thief(world)
    seed = world.keys.seed
    thief.put(SEGMENT, FORGED, lambda name: thief.signature(seed, name, FORGED))
    assert "not signed by a key of WAL" in refused(world)


def test_the_key_that_signs_wal_signs_no_log_entry(world: World) -> None:
    """The host that archives can't say in the log whose WAL counts."""
    thief = Thief(world)
    log = thief.repository.log
    name = thief.repository.layout.log_entry(len(log.entries))
    public = format_public(Signer(thief.seed).public)
    payload = {
        "drkit": "log",
        "format": 1,
        "sequence": len(log.entries),
        "previous": log.entries[-1].digest,
        "time": "2026-01-15T10:30:00+00:00",
        "host": "host-a",
        "type": WalSigners.TYPE,
        "signers": [public],
        "since": [],
    }
    lineage = thief.repository.lineage
    plain = signed_entry(world.keys.wal_seed, lineage, name, payload)
    forger = Forger(log.dek().secret, lineage, "catalog")
    world.storage.put(name, forger.seal(name, [(plain, len(plain), 0)]))
    try:
        state = world.repository().log.read()
    except Corrupt as error:
        assert name in error.message  # noqa: PT017  either way he is not believed
    else:
        assert public not in state.wal_signers


def test_one_key_for_both_is_told_apart_by_what_it_signs(world: World) -> None:
    """A signature of a log entry is none of WAL, though the key be the same."""
    thief = Thief(world)
    name = thief.repository.wal.name(SEGMENT)
    claim = sign_wal(world.keys.wal_signer, thief.repository.lineage, name, HONEST)[96:]
    entry = signed_entry(world.keys.wal_seed, thief.repository.lineage, name, claim)
    thief.put(SEGMENT, HONEST, lambda _: entry)
    assert "not signed by a key of WAL" in refused(world)


@pytest.mark.parametrize("signed", [False, True])
def test_who_archives_first_does_not_pass_for_the_server(
    world: World, *, signed: bool
) -> None:
    """The next segment's name is taken before the server comes to it."""
    thief = Thief(world)
    sign = (lambda name: thief.signature(thief.seed, name, FORGED)) if signed else None
    thief.put(NEXT, FORGED, sign)
    assert world.repository().wal.push(NEXT, HONEST, world.clock.now())
    assert world.repository().wal.get(NEXT) == HONEST
    assert not world.repository().wal.push(NEXT, HONEST, world.clock.now())
