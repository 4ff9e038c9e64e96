"""Files into packs and back, through a manifest, by one writer and by several."""

from __future__ import annotations

import itertools
import os
import random
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drkit.crypto.keys import new_dek
from drkit.errors import Corrupt, StorageError
from drkit.model.manifest import FileKind
from drkit.model.pagemap import compose
from drkit.repository.codec import FRAME_BYTES
from drkit.repository.framing import content_digest
from drkit.repository.manifest import decode, encode
from drkit.repository.manifests import read_manifest
from drkit.repository.packing import (
    MAX_PACK,
    Packed,
    PackWriter,
    assemble,
    digest_key,
    pack_bytes,
)
from drkit.repository.unpacking import Pack, PackReader
from tests.builders import (
    World,
    back_up,
    begin,
    copy_of,
    manifest_head,
    manifest_of,
    packing,
    replace_object,
    write_files,
)
from tests.chains import Files, read_files
from tests.faults import FaultyStorage

if TYPE_CHECKING:
    from drkit.model.manifest import Manifest
    from drkit.repository.repository import Repository

EIGHT_MB = 8 << 20


def reader_of(repository: Repository, manifest: Manifest) -> PackReader:
    return PackReader(repository, compose((manifest,)))


def restored(repository: Repository, manifest: Manifest) -> Files:
    """All files of a backup, put together from the runs that frames yield."""
    return read_files(repository, compose((manifest,)))


def round_trip(files: Files, writers: int = 1) -> tuple[Repository, Manifest]:
    repository = World().repository()
    commit = back_up(repository, files, writers=writers)
    manifest = read_manifest(repository, commit.manifest)
    assert restored(repository, manifest) == files
    return repository, manifest


CONTENTS = st.one_of(
    st.none(),
    st.binary(max_size=100),
    st.tuples(st.integers(0, 3 * FRAME_BYTES), st.booleans()).map(
        lambda pair: os.urandom(pair[0]) if pair[1] else bytes(pair[0])
    ),
)


@given(st.lists(CONTENTS, max_size=8), st.integers(1, 3))
@settings(max_examples=20, deadline=None)
def test_files_come_back(contents: list[bytes | None], writers: int) -> None:
    files = {b"file-%d" % n: content for n, content in enumerate(contents)}
    round_trip(files, writers)


@pytest.mark.parametrize("delta", [-1, 0, 1])
@pytest.mark.parametrize("frames", [1, 2])
def test_sizes_around_a_frame(frames: int, delta: int) -> None:
    size = frames * FRAME_BYTES + delta
    round_trip({b"a": os.urandom(size), b"b": bytes(size), b"c": b"x"})


def test_ten_thousand_small_files_share_few_frames() -> None:
    chance = random.Random(1)
    files: Files = {
        b"base/%05d" % n: chance.randbytes(chance.randrange(300)) for n in range(10_000)
    }
    repository, manifest = round_trip(files, writers=2)
    assert len(manifest.frames) <= 4
    reader = reader_of(repository, manifest)
    for path in (b"base/00000", b"base/05000", b"base/09999"):
        number = manifest.find(path)
        assert number is not None
        assert reader.file(number) == files[path]


def test_a_big_file_fills_packs_that_stay_below_their_limit() -> None:
    content = os.urandom(20 << 20)
    _, manifest = round_trip({b"big": content, b"small": b"x"})
    assert len(manifest.packs) >= 3
    assert (manifest.packs["size"] <= EIGHT_MB).all()


def test_the_limit_of_all_writers_together_is_64_mb() -> None:
    for writers in range(1, 9):
        assert pack_bytes(writers) * writers <= MAX_PACK
    assert pack_bytes(0) == pack_bytes(1) == MAX_PACK
    assert pack_bytes(100) == EIGHT_MB


def test_holes_are_zero() -> None:
    repository = World().repository()
    dek = repository.keyring.create("backup")
    begun = begin(repository)
    shared = packing(repository, dek, begun.label, begun.attempt)
    writer = PackWriter(shared, EIGHT_MB)
    writer.add(0, 16384, b"third")
    writer.add(0, 0, b"first")
    head = manifest_head(begun, dek.key_id.hex())
    manifest = manifest_of(head, [(b"file", FileKind.FILE, 20_000)], writer.close())
    read = decode("x", encode(manifest))
    content = bytearray(20_000)
    content[:5], content[16384:16389] = b"first", b"third"
    assert restored(repository, read) == {b"file": bytes(content)}
    assert reader_of(repository, read).file(0) == content


def test_space_is_what_was_asked_for_and_took_keeps_it() -> None:
    repository = World().repository()
    dek = repository.keyring.create("backup")
    begun = begin(repository)
    shared = packing(repository, dek, begun.label, begun.attempt)
    writer = PackWriter(shared, EIGHT_MB)
    pages = [os.urandom(8192) for _ in range(600)]
    for number, page in enumerate(pages):
        space = writer.space(8192)
        assert len(space) >= 8192
        space[:8192] = page
        writer.took(0, number * 8192, 8192)
    writer.took(0, 600 * 8192, 0)
    head = manifest_head(begun, dek.key_id.hex())
    size = len(pages) * 8192
    manifest = manifest_of(head, [(b"table", FileKind.FILE, size)], writer.close())
    assert restored(repository, manifest) == {b"table": b"".join(pages)}


def test_stretches_that_turned_out_empty_are_no_runs() -> None:
    """A file that is cut while it is read has no more at some places."""
    repository = World().repository()
    dek = repository.keyring.create("backup")
    begun = begin(repository)
    shared = packing(repository, dek, begun.label, begun.attempt)
    writer = PackWriter(shared, EIGHT_MB)
    pages = os.urandom(3 * 8192)
    for parts in ([(0, 8192), (16384, 0), (32768, 16384)], [(65536, 0)], []):
        size = sum(length for _, length in parts)
        writer.space(8192)[:size] = pages[:size]
        writer.took_all(0, parts)
    head = manifest_head(begun, dek.key_id.hex())
    files = [(b"table", FileKind.FILE, 49152)]
    manifest = decode("x", encode(manifest_of(head, files, writer.close())))
    assert manifest.runs["position"].tolist() == [0, 32768]
    content = pages[:8192] + bytes(24576) + pages[8192:]
    assert restored(repository, manifest) == {b"table": content}


def test_what_lies_between_two_runs_is_nobodys_old_bytes() -> None:
    repository = World().repository()
    dek = repository.keyring.create("backup")
    begun = begin(repository)
    shared = packing(repository, dek, begun.label, begun.attempt)
    writer = PackWriter(shared, EIGHT_MB)
    writer.add(0, 0, b"\xff" * FRAME_BYTES)
    writer.add(1, 0, b"abc")
    writer.add(2, 0, b"de")
    files = [(b"%d" % n, FileKind.FILE, s) for n, s in enumerate((FRAME_BYTES, 3, 2))]
    head = manifest_head(begun, dek.key_id.hex())
    manifest = manifest_of(head, files, writer.close())
    reader = reader_of(repository, manifest)
    last = [bytes(plain) for _, plain in reader.frames(Pack(0, 0))][-1]
    assert last == b"abc" + bytes(13) + b"de" + bytes(14)


def test_content_digests_are_keyed_and_equal_for_equal_content() -> None:
    files: Files = {b"a": b"same", b"b": b"same", b"c": b"other"}
    repository, manifest = round_trip(files)
    first, second, third = (bytes(row) for row in manifest.runs["digest"])
    assert first == second != third
    dek = repository.keyring.get("backup", bytes.fromhex(manifest.head.dek_id))
    key = digest_key(dek, repository.lineage)
    assert content_digest(key, b"same") == first
    assert content_digest(digest_key(new_dek("backup"), bytes(16)), b"same") != first


def test_a_pack_that_was_not_put_is_missed() -> None:
    repository = World().repository()
    dek = repository.keyring.create("backup")
    shared = packing(repository, dek, "20260115-103000-full", "ab" * 16)
    writers = [PackWriter(shared, EIGHT_MB) for _ in range(2)]
    for writer in writers:
        writer.add(0, 0, b"x")
    parts = [writer.close() for writer in writers]
    with pytest.raises(ValueError, match="pack is missing"):
        assemble(parts[1])
    together = Packed()
    together.extend(parts[1])
    together.extend(parts[0])
    packs, frames, runs = assemble(together)
    assert (len(packs), len(frames)) == (2, 2)
    assert sorted(runs["frame"].tolist()) == [0, 1]


def test_packs_are_numbered_by_all_writers_together() -> None:
    world = World()
    repository = world.repository()
    back_up(repository, {b"%d" % n: os.urandom(3 << 20) for n in range(9)}, writers=3)
    names = [info.name for info in world.storage.list("alpha/backups/")]
    numbers = [int(name[-6:]) for name in names if "/packs/" in name]
    assert numbers == list(range(len(numbers)))
    assert len(numbers) >= 3


def test_a_failed_put_fails_the_writer_and_nothing_is_recorded() -> None:
    world = World()
    faulty = FaultyStorage(world.storage)
    repository = world.repository(storage=faulty)
    dek = repository.keyring.create("backup")
    shared = packing(repository, dek, "20260115-103000-full", "ab" * 16)
    writer = PackWriter(shared, EIGHT_MB)
    writer.add(0, 0, b"content")
    faulty.fail("put", StorageError("no"), at=faulty.calls["put"] + 1)
    with pytest.raises(StorageError):
        writer.close()
    assert not writer.packed.packs


# -- reading what was changed


def small_backup() -> tuple[World, Repository, Manifest, str]:
    world = World()
    repository = world.repository()
    commit = back_up(repository, {b"a": b"content of a", b"b": os.urandom(200)})
    manifest = read_manifest(repository, commit.manifest)
    name = repository.layout.pack(commit.backup.label, commit.attempt, 0)
    return world, repository, manifest, name


def read_all(reader: PackReader) -> list[bytes]:
    return [bytes(plain) for _, plain in reader.frames(Pack(0, 0))]


def test_every_bit_of_a_pack_counts() -> None:
    world, repository, manifest, name = small_backup()
    good = world.storage.get(name)
    for bit in range(len(good) * 8):
        changed = bytearray(good)
        changed[bit // 8] ^= 1 << bit % 8
        replace_object(world.storage, name, bytes(changed))
        with pytest.raises(Corrupt, match=name):
            read_all(reader_of(repository, manifest))


def test_a_range_read_authenticates_what_it_uses() -> None:
    world, repository, manifest, name = small_backup()
    good = world.storage.get(name)
    end = 96 + int(manifest.frames["stored"][0])
    for place in (0, 12, 20, 40, 70, 96, end - 1):
        changed = bytearray(good)
        changed[place] ^= 1
        replace_object(world.storage, name, bytes(changed))
        with pytest.raises(Exception) as caught:  # noqa: PT011  one of two, below
            reader_of(repository, manifest).file(0)
        assert type(caught.value).__name__ in {"Corrupt", "KeyUnavailable"}
        assert name in str(caught.value)


def test_a_pack_cut_anywhere_or_missing_is_refused() -> None:
    world, repository, manifest, name = small_backup()
    good = world.storage.get(name)
    for end in range(len(good)):
        replace_object(world.storage, name, good[:end])
        with pytest.raises(Corrupt, match=name):
            read_all(reader_of(repository, manifest))
    world.storage.delete(name)
    with pytest.raises(Corrupt, match=f"{name} is missing"):
        read_all(reader_of(repository, manifest))
    with pytest.raises(Corrupt, match=f"{name} is missing"):
        reader_of(repository, manifest).file(0)


def test_bytes_behind_a_pack_are_damage() -> None:
    world, repository, manifest, name = small_backup()
    replace_object(world.storage, name, world.storage.get(name) + b"\0")
    with pytest.raises(Corrupt, match=f"{name} is damaged"):
        read_all(reader_of(repository, manifest))


def test_packs_that_changed_places_are_refused() -> None:
    world = World()
    repository = world.repository()
    files: Files = {b"%d" % n: os.urandom(3 << 20) for n in range(6)}
    commit = back_up(repository, files)
    names = [
        repository.layout.pack(commit.backup.label, commit.attempt, n) for n in (0, 1)
    ]
    first, second = (world.storage.get(name) for name in names)
    for name, data in zip(names, (second, first), strict=True):
        replace_object(world.storage, name, data)
    manifest = read_manifest(repository, commit.manifest)
    for number, name in enumerate(names):
        with pytest.raises(Corrupt, match=name):
            list(reader_of(repository, manifest).frames(Pack(0, number)))


def test_a_pack_of_another_backup_is_refused_even_with_its_own_manifest_row() -> None:
    world, repository, manifest, name = small_backup()
    other = back_up(repository, {b"a": b"another one", b"b": os.urandom(200)})
    there = repository.layout.pack(other.backup.label, other.attempt, 0)
    replace_object(world.storage, name, world.storage.get(there))
    row = read_manifest(repository, other.manifest)
    manifest.packs[:], manifest.frames[:] = row.packs, row.frames
    with pytest.raises(Corrupt, match=name):
        read_all(reader_of(repository, manifest))


def test_a_copied_repository_reads_the_same() -> None:
    world, repository, manifest, _ = small_backup()
    copy = World(copy_of(world.storage), world.keys, world.clock).repository()
    assert restored(copy, manifest) == restored(repository, manifest)


def test_many_runs_come_back_from_wherever_they_were_put() -> None:
    repository = World().repository()
    dek = repository.keyring.create("backup")
    begun = begin(repository)
    shared = packing(repository, dek, begun.label, begun.attempt)
    writers = [PackWriter(shared, EIGHT_MB) for _ in range(3)]
    chance = random.Random(7)
    content = chance.randbytes(5 << 20)
    pieces = [(p, content[p : p + 100_001]) for p in range(0, len(content), 100_001)]
    chance.shuffle(pieces)
    for writer, (position, piece) in zip(
        itertools.cycle(writers), pieces, strict=False
    ):
        writer.add(0, position, piece)
    packed = write_files(writers, {})[1]
    files = [(b"big", FileKind.FILE, len(content))]
    manifest = manifest_of(manifest_head(begun, dek.key_id.hex()), files, packed)
    read = decode("x", encode(manifest))
    assert restored(repository, read) == {b"big": content}
    assert np.all(np.diff(read.runs["position"].astype(np.int64)) > 0)
