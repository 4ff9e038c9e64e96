"""Manifests of the vectors that are wrong about a parent, or fit none."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from drkit.model.head import ParentRef
from drkit.model.label import BackupKind
from drkit.repository.manifest import encode
from drkit.repository.manifests import read_manifest
from drkit.repository.objects import unseal
from tests.vectors.contents import DROPPED, PAGE, SHRUNK
from tests.vectors.forge import signed_entry

if TYPE_CHECKING:
    from drkit.model.manifest import Manifest
    from tests.vectors.broken_objects import Broken


class BrokenChains:
    """Adds cases to others."""

    def __init__(self, broken: Broken) -> None:
        self.broken = broken
        self.repository = broken.repository
        self.full, self.last = broken.backup, broken.last

    def make(self) -> None:
        self.incrementals()
        self.fulls()
        self.committed()

    def incrementals(self) -> None:
        """Manifests that are wrong whatever the parent is."""
        name = self.last.manifest.name
        good = read_manifest(self.repository, self.last.manifest)
        forger = self.broken.forger(name, "catalog")

        def changed(case: str, why: str, **parts: Any) -> None:
            raw = encode(replace(good, **parts))
            sealed = forger.seal(name, [(raw, len(raw), 0)])
            self.broken.add(f"incremental-{case}", name, "manifest", sealed, why)

        longer = keeping(good, SHRUNK, 2 * PAGE + 1).files
        changed("kept", "a file that keeps more than it is long", files=longer)
        order = (b"base/9", b"base/8")
        changed("gone-order", "paths that are gone, out of order", gone=order)
        twice = (b"base/8", b"base/8")
        changed("gone-twice", "a path that is gone twice", gone=twice)
        changed("gone-up", "a gone path that leads out", gone=(b"../PG_VERSION",))
        changed("gone-there", "a path that is gone and listed", gone=(SHRUNK,))
        full = replace(good.head, kind=BackupKind.FULL)
        changed("kind", "a full backup with a parent", head=full)
        orphan = replace(good.head, parent=None)
        changed("orphan", "an incremental without a parent", head=orphan)
        digits = ParentRef(self.full.backup.label, "ab")
        short = replace(good.head, parent=digits)
        changed("digest", "a parent's digest of two digits", head=short)

    def fulls(self) -> None:
        """Full backups that speak of a parent all the same."""
        name, good = self.full.manifest.name, self.broken.manifest
        forger = self.broken.forger(name, "catalog")
        for case, why, wrong in (
            ("kept", "a full that keeps of a parent's", keeping(good, SHRUNK, 1)),
            ("gone", "a full with a gone path", replace(good, gone=(b"base/9",))),
        ):
            raw = encode(wrong)
            sealed = forger.seal(name, [(raw, len(raw), 0)])
            self.broken.add(f"full-{case}", name, "manifest", sealed, why)

    def committed(self) -> None:
        """Manifests that don't fit their parent, with signed commits that name them."""
        good = read_manifest(self.repository, self.last.manifest)
        parent = good.head.parent
        assert parent is not None

        def naming(label: str, sha256: str) -> Manifest:
            head = replace(good.head, parent=ParentRef(label, sha256))
            return replace(good, head=head)

        self.commit(
            "parent-digest", "another parent's digest", naming(parent.label, "0" * 64)
        )
        full = naming(self.full.backup.label, self.full.manifest.sha256)
        self.commit("parent-other", "another parent than the log says", full)
        never = replace(good, gone=(b"base/1/9999", *good.gone))
        self.commit("gone-never", "a path that is gone, but never was there", never)
        greedy = keeping(good, SHRUNK, 1)
        self.commit("kept-never", "a file that keeps more than its parent has", greedy)
        born = keeping(good, DROPPED, 1)
        self.commit("kept-new", "a file that keeps of a parent's that is gone", born)

    def commit(self, case: str, why: str, manifest: Manifest) -> None:
        """Add a manifest with the log's last entry, so changed that it commits it."""
        name, raw = self.last.manifest.name, encode(manifest)
        forger = self.broken.forger(name, "catalog")
        sealed = forger.seal(name, [(raw, len(raw), 0)])
        digest = hashlib.sha256(sealed).hexdigest()
        last = len(self.repository.log.entries) - 1
        entry = self.repository.layout.log_entry(last)
        payload = self.entry(entry)
        payload["manifest"] |= {"size": len(sealed), "sha256": digest}
        lineage, seed = self.repository.lineage, self.broken.world.keys.seed
        plain = signed_entry(seed, lineage, entry, payload)
        forger = self.broken.forger(entry, "catalog")
        again = forger.seal(entry, [(plain, len(plain), 0)])
        case = f"chain-{case}"
        self.broken.add(case, name, "restore", sealed, why, self.last)
        (self.broken.directory / f"{case}.commit").write_bytes(again)
        self.broken.cases[-1]["with"] = {"file": f"{case}.commit", "object": entry}

    def entry(self, name: str) -> dict[str, Any]:
        """Return a log entry's payload."""
        find = self.repository.keyring.finder("catalog")
        data = self.broken.get(name)
        plain = unseal(find, self.repository.lineage, name, "catalog", data)
        found: dict[str, Any] = json.loads(plain[96:])
        return found


def keeping(good: Manifest, path: bytes, more: int) -> Manifest:
    """Let a file keep more of its parent's."""
    files, number = good.files.copy(), good.find(path)
    assert number is not None
    files["kept"][number] += more
    return replace(good, files=files)
