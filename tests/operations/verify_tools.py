"""Repositories to verify: backups over backups, pages with checksums, WAL."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from drkit.model.depth import Depth
from drkit.model.head import ParentRef
from drkit.model.log import Commit
from drkit.model.manifest import FileKind
from drkit.model.page import PAGE
from drkit.model.wal import Segment, WalFileName
from drkit.operations.verifying.repository import Request, Verification, verify
from drkit.postgres.pages import checksums
from drkit.postgres.walfile import LONG_HEADER
from drkit.repository.manifests import read_manifest, write_manifest
from drkit.repository.packing import PackWriter
from tests.builders import (
    SEGMENT,
    SYSTEM,
    begin,
    commit_entry,
    manifest_head,
    manifest_of,
    packing,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from drkit.model.damage import Damage
    from drkit.operations.journal import Journal
    from drkit.repository.repository import Repository

OLD = 0x1000028  # an LSN from before every backup


class Quiet:
    """Progress that keeps what people must read."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def phase(self, name: str, total: int | None = None) -> None:
        pass

    def advance(self, count: int) -> None:
        pass

    def event(self, name: str, **fields: object) -> None:
        pass

    def warning(self, message: str, **fields: object) -> None:
        self.warnings.append(message)


def pages(
    count: int, first: int = 0, seed: int = 1, lsn: Callable[[int], int] | None = None
) -> bytes:
    """Pages with right checksums and content that hardly compresses."""
    content = np.random.default_rng(seed).integers(0, 256, (count, PAGE), np.uint8)
    words = content.view("<u4")
    for page in range(count):
        at = OLD if lsn is None else lsn(first + page)
        words[page, 0], words[page, 1] = at >> 32, at & 0xFFFFFFFF
    words[:, 2] = 0
    words[:, 3] = (PAGE << 16) | 24  # lower and upper: a page that is in use
    sums = checksums(content.tobytes(), first)
    words[:, 2] = sums
    return content.tobytes()


def increment(
    repository: Repository,
    parent: Commit,
    changed: Mapping[bytes, Mapping[int, bytes]],
    *,
    gone: Sequence[bytes] = (),
    parent_sha256: str | None = None,
) -> Commit:
    """Back up stretches of files, by position, over a parent; lengths stay.

    Args:
        repository: where to.
        parent: the backup that it builds on.
        changed: by path and position, what is stored anew.
        gone: paths of the parent that are there no more.
        parent_sha256: what to say of the parent's manifest, if not the truth.
    """
    data_key = repository.keyring.create("backup")
    manifest_key = repository.keyring.create("catalog")
    keys = [(key.purpose, key.key_id.hex()) for key in (data_key, manifest_key)]
    begun = begin(repository, parent=parent.backup.label, keys=keys)
    shared = packing(repository, data_key, begun.label, begun.attempt)
    writer = PackWriter(shared, 8 << 20)
    below = _sizes(repository, parent)
    files = []
    for number, (path, parts) in enumerate(changed.items()):
        for position, content in parts.items():
            writer.add(number, position, content)
        files.append((path, FileKind.FILE, below[path]))
    reference = ParentRef(parent.backup.label, parent_sha256 or parent.manifest.sha256)
    head = manifest_head(begun, data_key.key_id.hex(), reference)
    manifest = manifest_of(head, files, writer.close())
    manifest.files["kept"] = manifest.files["size"]
    manifest = replace(manifest, gone=tuple(sorted(gone)))
    name = repository.layout.manifest(begun.label, begun.attempt)
    stored = write_manifest(repository, name, manifest, manifest_key)
    logged = repository.log.append(lambda _: commit_entry(begun, stored))
    assert isinstance(logged.entry, Commit)
    return logged.entry


def _sizes(repository: Repository, commit: Commit) -> dict[bytes, int]:
    """The lengths of a backup's files, whichever backup of its chain lists them."""
    begun = repository.log.state.attempts[commit.attempt].begin
    sizes = {}
    if begun.parent is not None:
        sizes = _sizes(repository, repository.log.state.backups[begun.parent])
    manifest = read_manifest(repository, commit.manifest)
    sizes |= dict(zip(manifest.paths, manifest.files["size"].tolist(), strict=True))
    return {path: size for path, size in sizes.items() if path not in manifest.gone}


def segment(number: int, timeline: int = 1, size: int = SEGMENT) -> bytes:
    """A WAL segment that begins as one should and holds no records."""
    head = LONG_HEADER.pack(
        0xD118, 2, timeline, number * size, 0, int(SYSTEM), size, 8192
    )
    return head + bytes(size - len(head))


def push_wal(repository: Repository, *numbers: int, timeline: int = 1) -> list[str]:
    """Archive segments; return the names of their objects."""
    names = []
    for number in numbers:
        file = WalFileName.parse(Segment(timeline, number).name(SEGMENT))
        repository.wal.push(file, segment(number, timeline), repository.clock.now())
        names.append(repository.wal.name(file))
    return names


def look(
    repository: Repository,
    label: str | None = None,
    depth: Depth = Depth.DATA,
    journal: Journal | None = None,
    **options: object,
) -> Verification:
    """Verify on two threads."""
    request = Request(label, depth, **options)  # type: ignore[arg-type]
    return verify(repository, request, journal, Quiet())


def only(found: Verification) -> Damage:
    """The one object that is damaged."""
    (damage,) = found.damage
    return damage
