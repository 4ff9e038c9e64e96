"""Makes the vectors of signed WAL: `python -m tests.vectors.make_signed [DIRECTORY]`.

A repository of its own, whose WAL is unsigned at first, and signed from some segment
on. Keys and salts are random, so another run makes other bytes that say the same.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from drkit.crypto.signing import Signer, format_public, format_signing_key
from drkit.model.log_wal import WalSigners
from drkit.model.wal import WalFileName
from drkit.operations.backup_wal import BackupWal
from drkit.repository.wal_signature import sign_wal
from tests.builders import CLUSTER, SYSTEM, World, begin, commit_entry
from tests.vectors.forge import Forger, Payload, signed_entry
from tests.vectors.make import write_keys, write_objects

HERE = Path(__file__).parent / "signed"

OLD, FIRST = "000000010000000000000001", "000000010000000000000002"
OLD_HISTORY, HISTORY = "00000001.history", "00000002.history"
NEXT, BRANCH = "000000010000000000000003", "000000020000000000000003"
PARTIAL = f"{NEXT}.partial"
BACKUP = f"{FIRST}.00000028.backup"
CONTENTS = {
    OLD: b"archived before WAL was signed\n" * 20,
    OLD_HISTORY: b"",
    FIRST: b"the first signed segment\n" * 20,
    NEXT: b"another signed segment\n" * 20,
    PARTIAL: b"the beginning of one\n",
    BACKUP: b"START WAL LOCATION: 0/2000028\n",
    BRANCH: b"of a later timeline\n" * 20,
    HISTORY: b"1\t0/3000000\tno recovery target specified\n",
}


def make(directory: Path) -> None:
    """Write keys, a repository, broken objects and what to expect of all."""
    world = World()
    repository = world.repository()
    for name in (OLD, OLD_HISTORY):
        file = WalFileName.parse(name)
        repository.wal.push(file, CONTENTS[name], world.clock.now())
    public = format_public(world.keys.wal_signer.public)
    repository.log.append(lambda _: WalSigners((public,), (FIRST,)))
    signed = replace(world, signed=True).repository()
    for name, content in CONTENTS.items():
        signed.wal.push(WalFileName.parse(name), content, world.clock.now())
    label = _back_up(world)
    write_objects(world, directory / "repository")
    write_keys(world, bytes(32), directory / "keys")
    (directory / "keys" / "break-glass.key").unlink()
    key = format_signing_key(world.keys.wal_seed)
    (directory / "keys" / "wal-signing.key").write_text(key)
    expected = {
        "cluster": CLUSTER,
        "system_identifier": SYSTEM,
        "lineage": signed.lineage.hex(),
        "trusted": [format_public(world.keys.signer.public)],
        "trusted_wal": [public],
        "wal": {
            name: hashlib.sha256(content).hexdigest()
            for name, content in CONTENTS.items()
        },
        "backup": {"label": label, "segments": [FIRST]},
        "broken": _Broken(world, directory / "broken").make(),
    }
    (directory / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


def _back_up(world: World) -> str:
    """Commit a backup without content, whose entry says what its WAL is."""
    repository = replace(world, signed=True).repository()
    looked = BackupWal(repository, None)
    looked.add(WalFileName.parse(FIRST))
    commit = commit_entry(begin(repository))
    commit = replace(commit, backup=replace(commit.backup, wal=looked.found()))
    repository.log.append(lambda _: commit)
    return commit.backup.label


class _Broken:
    """Objects that a reader must refuse, each in the place of a good one."""

    def __init__(self, world: World, directory: Path) -> None:
        self.world = world
        self.repository = replace(world, signed=True).repository()
        self.directory = directory
        self.cases: list[dict[str, Any]] = []

    def make(self) -> list[dict[str, Any]]:
        self.directory.mkdir(parents=True)
        self._signatures()
        self._unsigned()
        self._entries()
        return self.cases

    def _add(self, case: str, file: str, why: str, payloads: list[Payload]) -> None:
        name = self.repository.wal.name(WalFileName.parse(file))
        key_id = self.world.storage.get(name)[16:32]
        dek = self.repository.keyring.get("wal", key_id)
        forger = Forger(dek.secret, self.repository.lineage, "wal")
        version = 1 if case.startswith("unsigned") else 2
        sealed = forger.seal(name, payloads, version=version)
        (self.directory / case).write_bytes(sealed)
        self.cases.append({"file": case, "object": name, "read": "wal", "why": why})

    def _frame(self, file: str, content: bytes, seed: bytes | None = None) -> Payload:
        """The right signature of a file, or one by another key."""
        name = self.repository.wal.name(WalFileName.parse(file))
        signer = Signer(seed or self.world.keys.wal_seed)
        frame = sign_wal(signer, self.repository.lineage, name, content)
        return frame, len(frame), 0

    def _signatures(self) -> None:
        good = CONTENTS[FIRST]
        plain: Payload = (good, len(good), 0)
        frame, right = self._frame(FIRST, good)[0], self._frame(FIRST, good)
        flipped = bytes([frame[0] ^ 1]) + frame[1:]
        for case, why, payloads in (
            (
                "signed-by-other",
                "signed by another key of WAL",
                [plain, self._frame(FIRST, good, bytes(32))],
            ),
            (
                "signed-by-log",
                "signed by the key that signs the log",
                [plain, self._frame(FIRST, good, self.world.keys.seed)],
            ),
            ("signature", "a bit of the signature", [plain, (flipped, 136, 0)]),
            (
                "signed-elsewhere",
                "the signature of another name",
                [plain, self._frame(NEXT, good)],
            ),
            (
                "signed-content",
                "another content than was signed",
                [(good[:-1] + b"!", len(good), 0), right],
            ),
            (
                "signed-length",
                "a byte more than was signed",
                [(good + b"!", len(good) + 1, 0), right],
            ),
            ("signed-not", "no signature", [plain]),
            ("signed-nothing", "no frame at all", []),
            ("signed-short", "a signature of 135 bytes", [plain, (frame[1:], 135, 0)]),
            ("signed-middle", "a frame behind the signature", [plain, right, plain]),
        ):
            self._add(case, FIRST, why, payloads)

    def _unsigned(self) -> None:
        for case, file, why in (
            (
                "unsigned-first",
                FIRST,
                "not signed, and the first that must be",
            ),
            ("unsigned-partial", PARTIAL, "not signed"),
            (
                "unsigned-backup",
                BACKUP,
                "not signed",
            ),
            ("unsigned-branch", BRANCH, "not signed, of a timeline without older WAL"),
            ("unsigned-history", HISTORY, "not signed, of such a timeline"),
        ):
            content = CONTENTS[file]
            self._add(case, file, why, [(content, len(content), 0)])

    def _entries(self) -> None:
        """Write `wal-signers` entries in the place of the last entry."""
        log = self.repository.log
        number = len(log.entries) - 1
        name = self.repository.layout.log_entry(number)
        key = format_public(self.world.keys.wal_signer.public)
        for case, signers, since, why in (
            ("signers-none", [], [], "no signer"),
            ("signers-key", ["ed25519:00"], [], "a signer that is no key"),
            ("signers-raised", [key], [NEXT], "what must be signed is let go"),
            ("signers-new", [key], [BRANCH], "a timeline that all was signed of"),
            ("signers-twice", [key], [OLD, OLD], "a timeline twice"),
            ("signers-name", [key], [HISTORY], "what is no segment"),
        ):
            payload = {
                "drkit": "log",
                "format": 1,
                "sequence": number,
                "previous": log.entries[number - 1].digest,
                "time": "2026-01-15T10:30:00+00:00",
                "host": "host-a",
                "type": "wal-signers",
                "signers": signers,
                "since": since,
            }
            lineage = self.repository.lineage
            plain = signed_entry(self.world.keys.seed, lineage, name, payload)
            forger = Forger(log.dek().secret, lineage, "catalog")
            sealed = forger.seal(name, [(plain, len(plain), 0)])
            (self.directory / case).write_bytes(sealed)
            self.cases.append({"file": case, "object": name, "read": "log", "why": why})


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE
    for part in ("keys", "repository", "broken"):
        shutil.rmtree(target / part, ignore_errors=True)
    make(target)
