"""Rows of a committed backup are forged with every key but the signing key.

A real table: its frame is sealed anew, as long as it was and with right page checksums,
in a pack of which a restore needs so little that it reads parts of it.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from drkit.crypto.sealing import ZSTD, Opener, open_whole
from drkit.errors import Corrupt
from drkit.model.manifest import find_path
from drkit.postgres.pages import checksums
from drkit.repository.codec import compressor, decompress
from drkit.repository.layer_packs import LayerPacks
from drkit.repository.manifests import read_manifest
from tests.operations.scene import backup, drkit, restore
from tests.protect import NAME
from tests.vectors.forge import Forger

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt
    import pytest

    from tests.operations.scene import Scene
    from tests.protect import Protected

    Letters = npt.NDArray[np.int64]

PAGE, CHECKSUM = 8192, slice(8, 10)
ROWS = 3000
HONEST, FORGED = b"pay 100 to alice", b"pay 999 to mallo"
# What hardly compresses, and is gone before the second backup: one for each writer.
FILLERS = ("filler", "filling")
FILL = (
    "CREATE TABLE {} AS SELECT md5(n::text) || md5((-n)::text) AS noise "
    "FROM generate_series(1, 200000) AS n"
)
ORDERS = (
    "CREATE TABLE orders AS SELECT 'pay 100 to alice' || repeat('!', n % 60) AS what "
    f"FROM generate_series(1, {ROWS}) AS n"
)
FORGED_ROWS = "SELECT count(*) FROM orders WHERE what LIKE '%mallo%'"


def forge(protected: Protected, label: str, path: bytes) -> tuple[str, bytes]:
    """Forge a file's rows where a backup stores them; return the pack, as it was."""
    repository = protected.repository()
    commit = repository.find(label)
    manifest = read_manifest(repository, commit.manifest)
    file = find_path(manifest.paths, path)
    run = manifest.runs[np.flatnonzero(manifest.run_files() == file)[0]]
    frame, packs = int(run["frame"]), LayerPacks(repository, manifest)
    pack = packs.pack_of(frame)
    name = repository.layout.pack(commit.backup.label, commit.attempt, pack)
    data = repository.storage.get(name)
    find = repository.keyring.finder("backup")
    opener = Opener(find, repository.lineage, name, "backup", data)
    payloads = [(p, row.plain, row.codec) for row, p in open_whole(opener, name, data)]
    place = frame - packs.frames_of(pack)[0]
    payload, length, codec = payloads[place]
    assert codec == ZSTD
    plain = bytes(decompress(name, payload, length, codec))
    start, end = int(run["offset"]), int(run["offset"]) + int(run["length"])
    forged = as_long(plain, start, end, len(payload))
    payloads[place] = forged, length, codec
    again = Forger(opener.dek.secret, repository.lineage, "backup").seal(name, payloads)
    assert len(again) == len(data)
    repository.storage.delete(name)
    repository.storage.put(name, again)
    return name, data


def as_long(plain: bytes, start: int, end: int, length: int) -> bytes:
    """Change the rows between two places so that all compresses to the same length.

    A higher level makes it shorter; noise in the rows makes up for that, to the byte.
    """
    forged = np.frombuffer(plain[start:end].replace(HONEST, FORGED), np.uint8)
    mark = forged == ord("!")
    filling = np.flatnonzero(mark[1:] & mark[:-1]) + 1  # and nothing of a page's header
    for level, seed in product((5, 9, 15, 19), range(4)):
        noise = np.random.default_rng(seed).integers(97, 122, len(filling))
        compress = compressor(level).compress

        def made(count: int, noise: Letters = noise, compress: Any = compress) -> bytes:
            rows = forged.copy()
            rows[filling[:count]] = noise[:count]
            return bytes(
                compress(plain[:start] + with_checksums(rows.tobytes()) + plain[end:])
            )

        about = bisect_left(range(len(filling)), length, key=lambda n: len(made(n)))
        for count in range(max(about - 40, 0), min(about + 40, len(filling))):
            if len(changed := made(count)) == length:
                return changed
    raise AssertionError(f"nothing is {length} bytes long")


def with_checksums(pages: bytes) -> bytes:
    changed = np.frombuffer(pages, dtype=np.uint8).reshape(-1, PAGE).copy()
    sums = checksums(memoryview(changed.tobytes()), 0)
    sums[~changed.any(axis=1)] = 0  # pages that were never used
    changed[:, CHECKSUM] = sums.astype("<u2").view(np.uint8).reshape(-1, 2)
    return changed.tobytes()


def incremental(protected: Protected) -> str:
    said = drkit(protected, "backup", NAME, "--type", "incremental", "--output", "json")
    assert said.code == 0, said.err
    made = json.loads(said.out)["backup"]
    assert made["kind"] == "incr"
    return str(made["label"])


class Scenario:
    """A full backup with forged rows, and an incremental that needs little of it."""

    def __init__(self, scene: Scene, major: int) -> None:
        self.protected = scene.protect(
            major, {"summarize_wal": "on"} if major > 16 else {}
        )
        cluster = self.protected.cluster
        # frozen, so that no hint bit changes its pages after the backup
        freeze = "VACUUM (FREEZE) orders"
        for statement in (*map(FILL.format, FILLERS), ORDERS, freeze, "CHECKPOINT"):
            cluster.sql(statement)
        path = cluster.sql("SELECT pg_relation_filepath('orders')")
        full = backup(self.protected)
        cluster.sql(f"DROP TABLE {', '.join(FILLERS)}")
        incremental(self.protected)
        cluster.stop()
        self.path = str(path)
        self.pack, self.honest = forge(self.protected, full, self.path.encode())

    def mend(self) -> None:
        storage = self.protected.repository().storage
        storage.delete(self.pack)
        storage.put(self.pack, self.honest)


def forged_rows(scene: Scene, target: Path, major: int) -> int:
    server = scene.start(target, major)
    found = server.rows(FORGED_ROWS)[0][0]
    server.stop()
    return int(found)


def test_forged_rows_of_a_backup_are_refused(
    scene: Scene, pg_version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, target = Scenario(scene, pg_version), scene.target()
    said = drkit(
        made.protected, "restore", NAME, "--to", target, "--log-format", "json"
    )
    assert said.code == Corrupt.exit_code, said.out
    assert made.pack in said.error["message"]
    assert made.path in said.error["message"]
    # the same without the check: what is forged here is what PostgreSQL takes
    with monkeypatch.context() as without:
        without.setattr(LayerPacks, "refuse_forged", lambda *_: None)
        taken = scene.target()
        restore(made.protected, taken)
    assert forged_rows(scene, taken, pg_version) == ROWS
    # over the directory that holds the forged rows, which a restore repairs
    made.mend()
    restore(made.protected, taken, "--delta")
    assert forged_rows(scene, taken, pg_version) == 0
