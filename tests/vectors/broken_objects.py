"""The broken objects of the vectors, each in the place of a good one."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import zstandard

from drkit.crypto.keys import wrap_context
from drkit.model.manifest import DAMAGED, Manifest
from drkit.model.wal import WalFileName
from drkit.repository.keyring import StoredKey, encode_key
from drkit.repository.manifest import encode
from drkit.repository.manifests import read_manifest
from drkit.repository.objects import unseal
from tests.builders import (
    CLUSTER,
    SYSTEM,
    World,
    commit_entry,
    rows_of,
)
from tests.vectors.broken_chains import BrokenChains
from tests.vectors.contents import (
    OTHER_SEGMENT,
    SEGMENT,
    WAL,
)
from tests.vectors.forge import Forger, index_row, signed_entry

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from drkit.model.log import Commit
    from drkit.repository.repository import Repository


class Broken:
    """Objects that a reader must refuse, each in the place of a good one."""

    def __init__(
        self,
        world: World,
        repository: Repository,
        chain: list[Commit],
        directory: Path,
    ) -> None:
        self.world = world
        self.repository = repository
        self.backup, self.last = chain[0], chain[-1]
        self.directory = directory
        self.cases: list[dict[str, Any]] = []
        self.manifest = read_manifest(repository, self.backup.manifest)

    def make(self) -> list[dict[str, Any]]:
        self.directory.mkdir(parents=True)
        self.damaged()
        self.forged()
        self.entries()
        self.manifests()
        BrokenChains(self).make()
        self.packs()
        self.keys()
        return self.cases

    def add(
        self,
        case: str,
        name: str,
        read: str,
        data: bytes,
        why: str,
        backup: Commit | None = None,
    ) -> None:
        """Write a broken object; `backup` is the one to restore, if not the full."""
        (self.directory / case).write_bytes(data)
        found = {"file": case, "object": name, "read": read, "why": why}
        if read == "restore":
            found["backup"] = (backup or self.backup).backup.label
        self.cases.append(found)

    def get(self, name: str) -> bytes:
        return self.world.storage.get(name)

    def wal_name(self, file: str) -> str:
        return self.repository.layout.wal_file(SYSTEM, WalFileName.parse(file))

    def forger(self, name: str, purpose: str) -> Forger:
        """Forge under the DEK that `name` is sealed under."""
        dek = self.repository.keyring.get(purpose, self.get(name)[16:32])
        return Forger(dek.secret, self.repository.lineage, purpose)

    # -- bytes changed by somebody without keys

    def damaged(self) -> None:
        name = self.wal_name(SEGMENT)
        good = self.get(name)
        index = int.from_bytes(good[-24:-16], "little")

        def flipped(case: str, place: int, why: str) -> None:
            self.add(case, name, "wal", flip(good, place), why)

        flipped("wal-magic", 0, "a bit of the magic")
        flipped("wal-dek-id", 16, "a bit of the DEK's id")
        flipped("wal-salt", 40, "a bit of the salt")
        flipped("wal-commitment", 64, "a bit of the commitment")
        flipped("wal-frame", 100, "a bit of a frame")
        flipped("wal-tag", index - 1, "a bit of a frame's tag")
        flipped("wal-index", index, "a bit of the index frame")
        flipped("wal-footer", len(good) - 24, "a bit of the footer's offset")
        flipped("wal-end", len(good) - 1, "a bit of the footer's last bytes")
        cuts = {"header": 60, "frame": 110, "index": index + 3, "footer": -1}
        for where, end in cuts.items():
            case = f"wal-cut-{where}"
            self.add(case, name, "wal", good[:end], f"cut off inside the {where}")
        self.add("wal-longer", name, "wal", good + b"\0", "a byte more")
        other = self.get(self.wal_name(OTHER_SEGMENT))
        self.add("wal-swapped", name, "wal", other, "another segment's object")

    # -- authentic lies

    def forged(self) -> None:
        name = self.wal_name(SEGMENT)
        forger = self.forger(name, "wal")
        plain = WAL[SEGMENT]
        honest = [(plain, len(plain), 0)]

        def lie(case: str, why: str, payloads: Any = honest, **wrong: Any) -> None:
            self.add(case, name, "wal", forger.seal(name, payloads, **wrong), why)

        lie("wal-version", "format version 2", version=2)
        lie("wal-reserved", "a reserved byte of the header", reserved=b"\0\0\0\0\1")
        lie("wal-purpose", "sealed as a backup's", code=1)
        lie("wal-flag", "a frame sealed with the index frame's nonce flag", last_flag=1)
        stored = len(plain) + 16
        lying = index_row(stored, len(plain) + 1, 0)
        lie("wal-index-plain", "an index with another plaintext length", rows=lying)
        lying = index_row(stored - 1, len(plain), 0)
        lie("wal-index-stored", "an index with another stored length", rows=lying)
        lying = index_row(stored, len(plain), 0, b"\0\0\1")
        lie("wal-index-reserved", "a reserved byte of the index", rows=lying)
        page = zstandard.compress(bytes(8192))
        lie("wal-codec", "an unknown codec", [(page, 8192, 128)])
        lie("wal-index-count", "an index of no frames over one", rows=b"")
        bomb = zstandard.compress(bytes(8 << 20), 19)
        lie("wal-bomb", "a frame that claims 8 MiB, not 600 bytes", [(bomb, 600, 1)])
        hidden = claim(bomb, 600)
        lie("wal-bomb-hidden", "8 MiB in a frame that claims 600", [(hidden, 600, 1)])
        two = zstandard.compress(plain) * 2
        lie("wal-two-frames", "two zstd frames in one", [(two, len(plain), 1)])
        short = [(zstandard.compress(plain), len(plain), 2)]
        lie("wal-differences", "differences of no whole page", short)
        self.swapped_frames(name, forger)
        foreign = Forger(forger.dek, bytes(16), "wal").seal(name, honest)
        self.add("wal-lineage", name, "wal", foreign, "sealed for another lineage")

    def swapped_frames(self, name: str, forger: Forger) -> None:
        parts = [(b"first half ", 11, 0), (b"second half", 11, 0)]
        good = forger.seal(name, parts)
        swapped = good[:96] + good[123:150] + good[96:123] + good[150:]
        self.add("wal-swapped-frames", name, "wal", swapped, "two frames swapped")

    # -- log entries

    def entries(self) -> None:
        layout, lineage = self.repository.layout, self.repository.lineage
        name = layout.log_entry(1)
        find = self.repository.keyring.finder("catalog")
        plain = unseal(find, lineage, name, "catalog", self.get(name))
        found = json.loads(plain[96:])
        forger = self.forger(name, "catalog")
        seed = self.world.keys.seed

        def entry(case: str, why: str, raw: bytes) -> None:
            sealed = forger.seal(name, [(raw, len(raw), 0)])
            self.add(case, name, "log", sealed, why)

        def signed(case: str, why: str, **members: Any) -> None:
            raw = signed_entry(seed, lineage, name, found | members)
            entry(case, why, raw)

        stranger = signed_entry(bytes(32), lineage, name, found)
        entry("log-signer", "signed by a key that is not trusted", stranger)
        entry("log-signature", "a bit of the signature", flip(plain, 0))
        elsewhere = signed_entry(seed, lineage, layout.log_entry(2), found)
        entry("log-signed-elsewhere", "signed for another name", elsewhere)
        entry("log-no-json", "no JSON", signed_entry(seed, lineage, name, b"[[[["))
        signed("log-chain", "another `previous`: a fork", previous="0" * 64)
        signed("log-sequence", "another sequence", sequence=2)
        signed("log-format", "format 2", format=2)
        signed("log-type", "an unknown type", type="forget")
        signed("log-open-again", "`open` in the middle", type="open", **OPEN)
        uncommitted = commit_entry(begin_like(found))
        body = commit_json(replace(uncommitted, attempt="f" * 32))
        signed("log-commit", "a commit of what has not begun", **body)

    # -- manifests

    def manifests(self) -> None:
        name = self.backup.manifest.name
        good = self.manifest
        forger = self.forger(name, "catalog")

        def plain(case: str, why: str, raw: bytes) -> None:
            sealed = forger.seal(name, [(raw, len(raw), 0)])
            self.add(f"manifest-{case}", name, "manifest", sealed, why)

        def changed(case: str, why: str, **parts: Any) -> None:
            plain(case, why, encode(replace(good, **parts)))

        def path(case: str, why: str, *paths: bytes) -> None:
            changed(case, why, paths=[*paths, *good.paths[len(paths) :]])

        path("path-up", "a path that leads out", b"../PG_VERSION")
        path("path-absolute", "an absolute path", b"/PG_VERSION")
        path("path-dot", "a part `.`", b"./PG_VERSION")
        path("path-empty", "an empty path", b"")
        path("path-order", "paths out of order", b"base", b"PG_VERSION")
        path("path-twice", "a path twice", b"base", b"base")
        plain("cut", "its last byte is missing", encode(good)[:-1])
        plain("longer", "a byte more", encode(good) + b"\0")
        plain("parent", "a parent", encode(good).replace(b": null", b": true"))
        plain(
            "format", "format 2", encode(good).replace(b'"format": 1', b'"format": 2')
        )
        column = encode(good).replace(b'"run.digest"', b'"run.dig3st"')
        plain("column", "a column is missing", column)
        self.rows(changed)

    def rows(self, changed: Callable[..., None]) -> None:
        good = self.manifest

        def cell(table: str, row: int, column: str, value: Any, why: str) -> None:
            rows = getattr(good, table).copy()
            rows[column][row] = value
            changed(f"{table}-{column}", why, **{table: rows})

        file = good.find(b"base/1/1259")
        assert file is not None
        run = int(good.files["runs"][:file].sum())
        cell("files", file, "mode", 0o4755, "a setuid bit")
        cell("files", file, "kind", 4, "an unknown kind of file")
        cell("files", file, "size", 100, "a run past the end of its file")
        cell("files", file, "runs", 2**32 - 1, "a run count that overflows")
        cell("runs", run, "frame", 2**32 - 1, "a run in no frame")
        cell("runs", run, "offset", 2**32 - 1, "a run outside of its frame")
        cell("runs", run, "length", 0, "a run of no bytes")
        cell("runs", run, "position", 2**64 - 1, "a run whose end overflows")
        cell("frames", 0, "plain", (4 << 20) + 1, "a frame of more than 4 MiB")
        cell("frames", 0, "stored", 15, "a frame shorter than its tag")
        cell("frames", 0, "codec", 128, "a frame of an unknown codec")
        cell("packs", 0, "size", 65 << 20, "a pack of more than 64 MiB")
        cell(
            "packs",
            0,
            "frames",
            len(good.frames) + 1,
            "more frames in packs than there are",
        )
        damaged = rows_of(DAMAGED, (len(good.paths), 0))
        changed("damaged", "a damaged page of no file", damaged=damaged)
        kinds = good.files.copy()
        kinds["kind"][file] = 2
        kinds["size"][file] = 0
        changed("directory", "a directory with runs", files=kinds)
        changed("overlap", "two runs that overlap", **overlapping(good, file))

    # -- packs and keys

    def packs(self) -> None:
        layout, backup = self.repository.layout, self.backup
        pack = layout.pack(backup.backup.label, backup.attempt, 0)
        data = self.get(pack)
        self.add("pack-bit", pack, "restore", flip(data, 200), "a bit of a frame")
        self.add("pack-cut", pack, "restore", data[:-1], "cut off")
        forger = self.forger(pack, "backup")
        again = forger.seal(pack, [(b"x" * 100, 100, 0)])
        self.add("pack-other", pack, "restore", again, "authentic, but another one")
        name = backup.manifest.name
        raw = encode(
            replace(self.manifest, head=replace(self.manifest.head, source=""))
        )
        sealed = self.forger(name, "catalog").seal(name, [(raw, len(raw), 0)])
        why = "authentic, but not the one that was committed"
        self.add("manifest-other", name, "restore", sealed, why)
        why = "the same, where an incremental builds on it"
        self.add("manifest-below", name, "restore", sealed, why, self.last)
        why = "a bit of a frame that an incremental needs"
        self.add("pack-below", pack, "restore", flip(data, 200), why, self.last)

    def keys(self) -> None:
        purpose, key_id = "backup", bytes.fromhex(self.manifest.head.dek_id)
        name = self.repository.layout.dek_generation(purpose, key_id, 1)
        provider = self.repository.keyring.provider(purpose)
        good = self.get(name)

        def wrapped(
            case: str, why: str, secret: bytes, lineage: bytes, bound: str
        ) -> None:
            context = wrap_context(lineage, bound, key_id)
            stored = StoredKey(purpose, key_id, 1, (provider.wrap(secret, context),))
            data = encode_key(stored, lineage)
            self.add(f"key-{case}", name, "restore", data, why)

        lineage = self.repository.lineage
        secret = self.repository.keyring.get(purpose, key_id).secret
        wrapped("other", "another DEK than the id says", bytes(32), lineage, purpose)
        wrapped("lineage", "wrapped for another lineage", secret, bytes(16), purpose)
        wrapped("purpose", "wrapped for another purpose", secret, lineage, "wal")
        self.add("key-cut", name, "restore", good[:-1], "no JSON")
        renamed = good.replace(b'"generation": 1', b'"generation": 2')
        self.add("key-generation", name, "restore", renamed, "another generation")
        own, other = lineage.hex().encode(), bytes(16).hex().encode()
        foreign = good.replace(own, other)
        self.add("key-foreign", name, "restore", foreign, "says another lineage")
        self.add("key-spelled", name, "restore", good + b"\n", "a line feed behind it")


OPEN = {"cluster": CLUSTER, "system_identifier": SYSTEM, "segment_size": 16 << 20}


def flip(data: bytes, place: int) -> bytes:
    """Change one bit."""
    changed = bytearray(data)
    changed[place] ^= 1
    return bytes(changed)


def claim(frame: bytes, size: int) -> bytes:
    """Give a zstd frame with a 4-byte content size another one."""
    descriptor = frame[4]
    assert descriptor >> 6 == 2
    start = 5 if descriptor & 0x20 else 6
    return frame[:start] + size.to_bytes(4, "little") + frame[start + 4 :]


def overlapping(good: Manifest, file: int) -> dict[str, Any]:
    """Cut a file's run in two that share a byte."""
    at = int(good.files["runs"][:file].sum())
    files = good.files.copy()
    files["runs"][file] += 1
    runs = np.insert(good.runs, at, good.runs[at])
    runs["length"][at] = 100
    runs["position"][at + 1] = 99
    runs["length"][at + 1] -= 99
    runs["offset"][at + 1] += 99
    return {"files": files, "runs": runs}


def begin_like(found: dict[str, Any]) -> Any:
    from drkit.model.log_json import entry_from_json

    return entry_from_json(found)


def commit_json(entry: Commit) -> dict[str, Any]:
    from drkit.model.log_json import entry_to_json

    return entry_to_json(entry)
