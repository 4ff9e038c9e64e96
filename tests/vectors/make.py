"""Makes the vectors: `python -m tests.vectors.make [DIRECTORY]`.

They are made once and committed. Keys and salts are random, so another run makes other
bytes that say the same.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from drkit.crypto.keys import LocalKeyProvider, format_kek, wrap_context
from drkit.crypto.signing import format_public, format_signing_key
from drkit.model.log import (
    Abandon,
    Commit,
    Entry,
    ExpireDone,
    ExpireIntent,
    Pin,
    Proven,
    Unpin,
)
from drkit.model.log_wal import ExpireWal
from drkit.model.lsn import Lsn
from drkit.model.wal import WalFileName
from drkit.operations.actions import add_action
from drkit.repository.evidence import append, read_chain
from drkit.repository.keyring import StoredKey, encode_key
from tests.builders import (
    CLUSTER,
    EPOCH,
    SYSTEM,
    World,
    back_up,
    begin,
)
from tests.chains import back_up_over, laid_over
from tests.evidence import bare, record
from tests.model.test_fingerprint import FINGERPRINT
from tests.vectors.broken_objects import Broken
from tests.vectors.contents import CHANGES, FILES, WAL

if TYPE_CHECKING:
    from drkit.repository.repository import Repository

HERE = Path(__file__).parent


def make(directory: Path) -> None:
    """Write keys, a repository, broken objects and what to expect of all."""
    world = World()
    repository = world.repository()
    expired = back_up(repository, {b"PG_VERSION": b"17\n"})
    lost = begin(repository)
    repository.log.append(lambda _: Abandon(lost.attempt, "the host went away"))
    fingerprint = replace(FINGERPRINT, lsn="0/3000090")
    backup = back_up(repository, FILES, fingerprint=fingerprint)
    mark(repository, expired.backup.label, backup.backup.label, drill(repository))
    expire(repository, expired)
    for name, content in WAL.items():
        file = WalFileName.parse(name)
        repository.wal.push(file, content, world.clock.now())
    break_glass = bytes(range(32))
    rewrapped = add_recipient(world, repository, break_glass)
    contents, chain = {backup.backup.label: FILES}, [backup]
    for changed, gone in CHANGES:
        below = contents[chain[-1].backup.label]
        chain.append(back_up_over(repository, chain[-1], changed, gone=gone))
        contents[chain[-1].backup.label] = laid_over(below, changed, gone)
    broken = Broken(world, repository, chain, directory / "broken")
    write_objects(world, directory / "repository")
    write_keys(world, break_glass, directory / "keys")
    deks = {
        f"{CLUSTER}/keys/{key.purpose}/{key.key_id.hex()}/{key.generation:04d}": (
            repository.keyring.get(key.purpose, key.key_id).secret.hex()
        )
        for key in repository.keyring.stored()
    }
    expected = {
        "cluster": CLUSTER,
        "system_identifier": SYSTEM,
        "lineage": repository.lineage.hex(),
        "trusted": [format_public(world.keys.signer.public)],
        "deks": deks,
        "two_recipients": rewrapped,
        "log": [one.entry.TYPE for one in repository.log.entries],
        "live": list(contents),
        "files": {label: digests(files) for label, files in contents.items()},
        "fingerprints": {backup.backup.label: "drkit " + backup.backup.label},
        "evidence": [one.digest for one in read_chain(repository).records],
        "wal": {name: digest(content) for name, content in WAL.items()},
        "broken": broken.make(),
    }
    (directory / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


def digests(files: dict[bytes, bytes | None]) -> dict[str, str | None]:
    """What expected.json says of a backup's files."""
    return {
        path.decode(errors="surrogateescape"): digest(content)
        for path, content in files.items()
    }


def digest(content: bytes | None) -> str | None:
    """What expected.json says of a content; null for a directory."""
    return None if content is None else hashlib.sha256(content).hexdigest()


def drill(repository: Repository) -> str:
    """Record three kinds of evidence; return the digest of the drill's."""
    evidence = append(repository, record).digest
    append(repository, bare)
    add_action(repository, "caf\u00e9 opens later", "Mira", date(2026, 2, 15), 1)
    return evidence


def mark(repository: Repository, lifted: str, kept: str, evidence: str) -> None:
    """Pin two backups, unpin one, and write that the other was proven to restore."""
    entries: tuple[Entry, ...] = (
        Pin(lifted, "while it is looked at", EPOCH + timedelta(days=1)),
        Pin(kept, "before the caf\u00e9's migration", None),
        Unpin(lifted),
        Proven(kept, EPOCH + timedelta(hours=1), evidence),
    )
    for entry in entries:
        repository.log.append(lambda _, entry=entry: entry)  # type: ignore[misc]


def expire(repository: Repository, backup: Commit) -> None:
    """Expire a backup as the format says: intent, deletion, done."""
    label = backup.backup.label
    repository.log.append(lambda _: ExpireIntent((label,)))
    prefix = repository.layout.backup(label, backup.attempt)
    for info in list(repository.storage.list(prefix)):
        repository.storage.delete(info.name)
    repository.log.append(lambda _: ExpireDone((label,)))
    repository.log.append(lambda _: ExpireWal(((1, Lsn(0x1000000)),)))


def add_recipient(world: World, repository: Repository, kek: bytes) -> str:
    """Write generation 2 of the WAL's DEK, wrapped for a second KEK too."""
    (stored,) = repository.keyring.stored("wal")
    dek = repository.keyring.unwrap(stored)
    context = wrap_context(repository.lineage, "wal", dek.key_id)
    second = LocalKeyProvider(kek).wrap(dek.secret, context)
    both = StoredKey("wal", dek.key_id, 2, (second, *stored.recipients))
    name = repository.layout.dek_generation("wal", dek.key_id, 2)
    world.storage.put(name, encode_key(both, repository.lineage))
    return name


def write_objects(world: World, directory: Path) -> None:
    for info in world.storage.list(""):
        path = directory / info.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(world.storage.get(info.name))


def write_keys(world: World, break_glass: bytes, directory: Path) -> None:
    directory.mkdir(parents=True)
    for purpose, kek in world.keys.keks.items():
        (directory / f"{purpose}.key").write_text(format_kek(purpose, kek))
    (directory / "break-glass.key").write_text(format_kek("wal", break_glass))
    signing = format_signing_key(world.keys.seed)
    (directory / "signing.key").write_text(signing)


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE
    for part in ("keys", "repository", "broken"):
        shutil.rmtree(target / part, ignore_errors=True)
    make(target)
