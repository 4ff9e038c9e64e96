"""Signed WAL objects: what they hold, and that nothing else passes for one."""

from __future__ import annotations

import os

import pytest

from drkit.crypto.signing import Signer, format_public
from drkit.errors import Corrupt, NotFound, PolicyError, WalRefused
from drkit.model.log_wal import WalSigners
from drkit.model.wal import WalFileName
from drkit.repository.wal_signature import WalSigning, WalTrust
from tests.builders import SEGMENT as SEGMENT_SIZE
from tests.builders import SYSTEM, Keys, World, replace_object
from tests.repository.test_wal import KINDS, SEGMENT

TIMELINE_2 = WalFileName.parse("000000020000000000000001")


def push(world: World, file: WalFileName = SEGMENT, content: bytes = b"content") -> str:
    """Archive a file; return its object's name."""
    world.repository().wal.push(file, content, world.clock.now())
    return world.repository().wal.name(file)


@pytest.mark.parametrize("file", KINDS, ids=lambda file: file.name)
@pytest.mark.parametrize("length", [0, 1, 1 << 20])
def test_a_signed_file_comes_back_with_what_was_signed(
    file: WalFileName, length: int
) -> None:
    comes_back(file, length)


@pytest.mark.parametrize("length", [2 << 20, 5 << 20, SEGMENT_SIZE])
def test_a_signed_segment_of_several_frames_comes_back(length: int) -> None:
    comes_back(SEGMENT, length)


def comes_back(file: WalFileName, length: int) -> None:
    world, content = World(signed=True), os.urandom(length)
    push(world, file, content)
    archive = world.repository().wal
    assert archive.get(file) == content
    signature = archive.signature(file)
    assert signature is not None
    assert signature.fits(content)
    assert not signature.fits(content + b"\0")
    assert signature.signer == world.keys.wal_signer.public


def test_many_small_frames_have_their_signature_as_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An index that is longer than any of today's writers makes."""
    monkeypatch.setattr("drkit.repository.objects.FRAME_BYTES", 1)
    world, content = World(signed=True), os.urandom(2000)
    push(world, content=content)
    signature = world.repository().wal.signature(SEGMENT)
    assert signature is not None
    assert signature.fits(content)


def test_what_is_not_there_has_no_signature() -> None:
    with pytest.raises(NotFound, match=SEGMENT.name):
        World(signed=True).repository().wal.signature(SEGMENT)


def test_every_byte_counts() -> None:
    world = World(signed=True)
    name = push(world)
    later = WalFileName.parse(f"{SEGMENT.name[:-2]}FF")  # else there was no such file
    world.repository().wal.push(later, b"", world.clock.now())
    data = world.storage.get(name)
    for offset in range(len(data)):
        changed = bytearray(data)
        changed[offset] ^= 1 << offset % 8
        replace_object(world.storage, name, bytes(changed))
        with pytest.raises(Exception, match=name) as caught:
            world.repository().wal.get(SEGMENT)
        assert type(caught.value).__name__ in {"Corrupt", "KeyUnavailable"}, offset


def test_unsigned_wal_is_read_as_long_as_no_log_forbids_it() -> None:
    world = World()
    name = push(world)
    archive = world.repository().wal
    assert archive.get(SEGMENT) == b"content"
    assert archive.signature(SEGMENT) is None
    assert world.storage.get(name)[8] == 1


def test_the_log_says_since_when_wal_is_signed() -> None:
    world = World()
    repository = world.repository()
    files = [
        WalFileName.parse(name)
        for name in (
            "000000010000000000000002",
            "000000010000000000000003",
            "000000010000000000000003.partial",
            "000000010000000000000002.00000028.backup",
            "000000010000000000000004.00000028.backup",
            "000000010000000100000000",
            "00000001.history",
            "000000020000000000000001",
            "00000002.history",
        )
    ]
    for file in files:
        push(world, file)
    public = format_public(world.keys.wal_signer.public)
    repository.log.append(
        lambda _: WalSigners((public,), ("000000010000000000000003",))
    )
    archive = (
        World(world.storage, world.keys, world.clock, signed=True).repository().wal
    )
    refused = set()
    for file in files:
        try:
            assert archive.get(file) == b"content"
        except Corrupt:
            refused.add(file.name)
    assert refused == {
        "000000010000000000000003",
        "000000010000000000000003.partial",
        "000000010000000000000004.00000028.backup",
        "000000010000000100000000",
        "000000020000000000000001",
        "00000002.history",
    }
    with pytest.raises(Corrupt, match="is not signed, and must be"):
        archive.signature(TIMELINE_2)


def test_an_entry_never_lets_go_of_what_must_be_signed() -> None:
    repository = World(signed=True).repository()
    signer = next(iter(repository.log.state.wal_signers))
    for entry in (
        WalSigners((signer,), ("000000010000000000000003",)),
        WalSigners((), ()),
    ):
        with pytest.raises(Exception, match="the log refuses `wal-signers`"):
            repository.log.append(lambda _, entry=entry: entry)  # type: ignore[misc]


def test_entries_add_signers_and_lower_the_bound() -> None:
    repository = World().repository()
    keys = [format_public(Signer(bytes([one] * 32)).public) for one in (1, 2)]
    two, three = "000000010000000000000002", "000000010000000000000003"
    repository.log.append(lambda _: WalSigners((keys[0],), (three,)))
    repository.log.append(lambda _: WalSigners((keys[1],), (two,)))
    state = repository.log.read()
    assert state.wal_signers == set(keys)
    assert state.wal_signed == {1: two}
    with pytest.raises(Exception, match="the log refuses"):
        repository.log.append(lambda _: WalSigners((keys[1],), (three,)))


def test_an_unsigned_file_of_the_same_content_is_success_for_push() -> None:
    """PostgreSQL archives a segment again if it did not hear that it was."""
    world = World()
    push(world)
    pins = WalTrust(frozenset({world.keys.wal_signer.public}))
    repository = world.repository()
    archive = type(repository.wal)(
        *(world.storage, repository.layout, repository.lineage, repository.keyring),
        SYSTEM,
        signing=WalSigning(lambda: world.keys.wal_signer, lambda: pins),
    )
    assert not archive.push(SEGMENT, b"content", world.clock.now())
    with pytest.raises(WalRefused, match="another content"):
        archive.push(SEGMENT, b"CONTENT", world.clock.now())


def test_a_policy_that_pins_nobody_goes_by_the_log() -> None:
    world = World(signed=True)
    push(world)
    stranger = World(world.storage, world.keys, world.clock).repository()
    assert stranger.wal.get(SEGMENT) == b"content"
    assert world.repository().log.state.wal_signers == {
        format_public(world.keys.wal_signer.public)
    }


def test_a_key_that_is_not_pinned_is_named() -> None:
    world = World(signed=True)
    other = Keys(world.keys.keks, world.keys.seed)
    world.repository(keys=other).wal.push(SEGMENT, b"content", world.clock.now())
    with pytest.raises(Corrupt, match="not signed by a key of WAL") as caught:
        world.repository().wal.get(SEGMENT)
    assert format_public(other.wal_signer.public) in (caught.value.hint or "")


def test_nothing_is_archived_unsigned_that_readers_would_refuse() -> None:
    """The policy pins whose WAL counts, and the key that signs it is forgotten."""
    world = World()
    pins = WalTrust(frozenset({world.keys.wal_signer.public}))
    repository = world.repository()
    archive = type(repository.wal)(
        *(world.storage, repository.layout, repository.lineage, repository.keyring),
        SYSTEM,
        signing=WalSigning(None, lambda: pins),
    )
    with pytest.raises(PolicyError, match=f"{SEGMENT.name} would be archived unsigned"):
        archive.push(SEGMENT, b"content", world.clock.now())
    assert not archive.has(SEGMENT)
