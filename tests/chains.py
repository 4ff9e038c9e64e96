"""Incremental backups of made-up files, and reading whole chains back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from drkit.model.head import ParentRef
from drkit.model.log import Commit
from drkit.model.manifest import FileKind
from drkit.repository.manifests import write_manifest
from drkit.repository.packing import PackWriter
from drkit.repository.unpacking import PackReader
from tests.builders import begin, commit_entry, manifest_head, manifest_of, packing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from drkit.model.manifest import Manifest
    from drkit.model.pagemap import PageMap
    from drkit.repository.repository import Repository

Files = dict[bytes, bytes | None]


@dataclass(frozen=True)
class Changed:
    """A file as an incremental lists it.

    Attributes:
        kept: below here, what no run covers is the parent's.
        runs: position and content.
    """

    size: int
    kept: int = 0
    runs: tuple[tuple[int, bytes], ...] = ()
    kind: FileKind = FileKind.FILE

    def over(self, before: bytes | None) -> bytes | None:
        """What the file holds, laid over what the parent's held."""
        if self.kind is FileKind.DIRECTORY:
            return None
        content = bytearray(self.size)
        content[: self.kept] = (before or b"")[: self.kept]
        for position, run in self.runs:
            content[position : position + len(run)] = run
        return bytes(content)


def whole(content: bytes, kind: FileKind = FileKind.FILE) -> Changed:
    """A file that is stored whole."""
    return Changed(len(content), 0, ((0, content),) if content else (), kind)


def laid_over(
    below: Mapping[bytes, bytes | None],
    changed: Mapping[bytes, Changed],
    gone: Sequence[bytes] = (),
) -> Files:
    """What a backup holds that lists these changes over a parent that held `below`."""
    there = {path: content for path, content in below.items() if path not in gone}
    laid = {path: one.over(below.get(path)) for path, one in changed.items()}
    return dict(sorted((there | laid).items()))


def back_up_over(
    repository: Repository,
    parent: Commit,
    changed: Mapping[bytes, Changed],
    *,
    gone: Sequence[bytes] = (),
    lie: Callable[[Manifest], Manifest] = lambda manifest: manifest,
    pack_size: int = 8 << 20,
) -> Commit:
    """Write an incremental backup: keys, packs, manifest, commit.

    Args:
        repository: where to.
        parent: the backup that it builds on.
        changed: what it lists.
        gone: paths of the parent that are there no more.
        lie: changes the manifest before it is stored.
        pack_size: of the writer.
    """
    data_key = repository.keyring.create("backup")
    manifest_key = repository.keyring.create("catalog")
    keys = [(key.purpose, key.key_id.hex()) for key in (data_key, manifest_key)]
    begun = begin(repository, parent=parent.backup.label, keys=keys)
    shared = packing(repository, data_key, begun.label, begun.attempt)
    writer = PackWriter(shared, pack_size)
    for number, one in enumerate(changed.values()):
        for position, content in one.runs:
            writer.add(number, position, content)
    files = [(path, one.kind, one.size) for path, one in changed.items()]
    reference = ParentRef(parent.backup.label, parent.manifest.sha256)
    head = manifest_head(begun, data_key.key_id.hex(), reference)
    manifest = manifest_of(head, files, writer.close())
    manifest.files["kept"] = [changed[path].kept for path in manifest.paths]
    manifest = lie(replace(manifest, gone=tuple(sorted(gone))))
    name = repository.layout.manifest(begun.label, begun.attempt)
    stored = write_manifest(repository, name, manifest, manifest_key)
    logged = repository.log.append(lambda _: commit_entry(begun, stored))
    assert isinstance(logged.entry, Commit)
    return logged.entry


def read_files(repository: Repository, page_map: PageMap) -> Files:
    """Read all files of a backup as a restore does: pack by pack."""
    contents = [bytearray(size) for size in page_map.files["size"].tolist()]
    left = page_map.files["runs"].astype(np.int64)
    reader = PackReader(repository, page_map)
    for pack in reader.packs():
        for runs, plain in reader.frames(pack):
            for number, position, offset, length in runs:
                part = plain[offset : offset + length]
                contents[number][position : position + length] = part
                left[number] -= 1
    assert not left.any(), "each piece comes once"
    kinds = page_map.files["kind"].tolist()
    return {
        path: None if kinds[number] == FileKind.DIRECTORY else bytes(contents[number])
        for number, path in enumerate(page_map.paths)
    }
