"""Frames that are stored as differences, from a server's pages to restored files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from drkit.crypto.sealing import HEADER_BYTES
from drkit.model.label import BackupKind
from drkit.repository.codec import FRAME_BYTES
from tests.operations.backup_tools import MOSTLY_LOCAL, content, restored, site
from tests.operations.scene import drkit, restore
from tests.operations.test_verify_servers import CORRUPT, flip, own_cache, verify
from tests.protect import NAME

if TYPE_CHECKING:
    from drkit.model.manifest import Manifest
    from tests.operations.scene import Scene
    from tests.protect import Protected

__all__ = ["own_cache"]  # a fixture that every test here uses

INDEX_TUPLE, ROW = 16, 32  # bytes
ROWS = 200_000  # so that one writer fills a frame with the index alone


class Relation(NamedTuple):
    """A relation's file, by its path in the data directory."""

    path: str
    width: int


def protect(scene: Scene, version: int) -> Protected:
    """A cluster with a table of a bigint key and no more; nothing changes it."""
    settings = {"autovacuum": "off"}
    made = scene.protect(version, settings, wal_segment_size=16 << 20)
    made.cluster.psql(f"""
        CREATE TABLE numbers (id bigint PRIMARY KEY);
        INSERT INTO numbers SELECT generate_series(1, {ROWS});
        VACUUM (FREEZE) numbers;
        CHECKPOINT;
    """)
    return made


def relations(protected: Protected) -> list[Relation]:
    query = "SELECT pg_relation_filepath('{}')"
    of = ("numbers", ROW), ("numbers_pkey", INDEX_TUPLE)
    return [
        Relation(protected.cluster.sql(query.format(name)), width) for name, width in of
    ]


def frames_of(manifest: Manifest, path: str) -> list[int]:
    """The frames that hold a file's bytes."""
    number = manifest.find(path.encode())
    assert number is not None
    first = int(manifest.files["runs"][:number].sum())
    runs = manifest.runs[first : first + int(manifest.files["runs"][number])]
    found: list[int] = sorted(set(runs["frame"].tolist()))
    return found


def codecs_of(manifest: Manifest, path: str) -> set[int]:
    return set(manifest.frames["codec"][frames_of(manifest, path)].tolist())


def files_like(directory: str | Path, path: str) -> dict[str, bytes]:
    """A relation's files, maps included, by name."""
    below = Path(directory, path)
    return {one.name: one.read_bytes() for one in below.parent.glob(f"{below.name}*")}


@pytest.mark.parametrize("source", MOSTLY_LOCAL)
def test_an_index_is_stored_as_differences_and_comes_back(
    scene: Scene, pg_version: int, source: str
) -> None:
    protected = protect(scene, pg_version)
    label = site(protected, source).take().label
    table, index = relations(protected)
    manifest = site(protected).manifest(label)
    assert INDEX_TUPLE // 8 in codecs_of(manifest, index.path)
    assert ROW // 8 in codecs_of(manifest, table.path)

    target = scene.target()
    restore(protected, target, label)
    for one in (table, index):
        there = files_like(protected.cluster.data_directory, one.path)
        assert len(there[Path(one.path).name]) > 2 * FRAME_BYTES
        assert files_like(target, one.path) == there
    cluster = scene.start(target, pg_version)
    assert content(cluster) == content(protected.cluster)


def test_an_incremental_over_it_comes_back(scene: Scene, newest_version: int) -> None:
    protected = protect(scene, newest_version)
    site(protected).take()
    protected.cluster.psql(f"""
        UPDATE numbers SET id = -id WHERE id % 200 = 0;
        INSERT INTO numbers SELECT generate_series({ROWS + 1}, {ROWS + ROWS // 2});
        CHECKPOINT;
    """)
    expected = content(protected.cluster)
    label = site(protected).take(kind=BackupKind.INCREMENTAL).label
    index = relations(protected)[1]
    assert max(codecs_of(site(protected).manifest(label), index.path)) >= 2
    protected.archive_now()
    with restored(scene, protected, label) as cluster:
        assert content(cluster) == expected


def test_a_flipped_byte_in_such_a_frame_is_found(
    scene: Scene, newest_version: int
) -> None:
    protected = protect(scene, newest_version)
    label = site(protected).take().label
    found = verify(protected, "--depth", "data")
    assert (found["damage"], found["backups"]) == ([], [label])
    assert found["page_checksums"] > 2 * ROWS // 400

    index = relations(protected)[1]
    manifest = site(protected).manifest(label)
    frame = next(
        one
        for one in frames_of(manifest, index.path)
        if manifest.frames["codec"][one] == INDEX_TUPLE // 8
    )
    pack, place = place_of(manifest, frame)
    (path,) = protected.repository_root.glob(
        f"{NAME}/backups/{label}-*/packs/{pack:06d}"
    )
    flip(path, place + int(manifest.frames["stored"][frame]) // 2)
    hurt = verify(protected, "--depth", "data", code=CORRUPT)
    (damage,) = hurt["damage"]
    assert damage["object"].endswith(f"packs/{pack:06d}")
    assert index.path in {place["path"] for place in damage["places"]}
    assert damage["backups"] == [label]
    assert refused_restore(scene, protected)["exit_code"] == CORRUPT


def place_of(manifest: Manifest, frame: int) -> tuple[int, int]:
    """The pack that a frame is in, and where it begins there."""
    first = 0
    for pack, count in enumerate(manifest.packs["frames"].tolist()):
        if frame < first + count:
            before = manifest.frames["stored"][first:frame].sum()
            return pack, HEADER_BYTES + int(before)
        first += count
    raise AssertionError(frame)


def refused_restore(scene: Scene, protected: Protected) -> dict[str, Any]:
    """Restore, which must fail; return the error."""
    words = ("restore", NAME, "--to", scene.target(), "--log-format", "json")
    said = drkit(protected, *words)
    assert said.code != 0
    error: dict[str, Any] = json.loads(said.err.splitlines()[-1])
    return error
