"""A second reader of the repository format, from docs/repository-format.md alone.

It shares no line with drkit: where the two disagree, the document or one of them is
wrong. It keeps everything in memory and stops at the first thing that is not as the
document says.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import struct
from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

from tests.vectors.codecs import Frame, expand
from tests.vectors.columns import (
    MAX_CODEC,
    MAX_FRAME,
    Manifest,
    Refused,
    need,
    parse_plain,
    read_manifest,
)
from tests.vectors.derive import hkdf, lp
from tests.vectors.log import read_log
from tests.vectors.signed_wal import need_signature, read_wal, since

PURPOSES = {"backup": 1, "wal": 2, "dump": 3, "files": 4, "catalog": 5}
MAX_FRAMES, MAX_OBJECT = 65536, 2 << 30
MAX_ENTRY, MAX_MANIFEST = 1 << 20, 1 << 30
LABEL = re.compile(r"[0-9]{8}-[0-9]{6}-(full|incr|dump|files)\Z")


class Backup(NamedTuple):
    """A restored backup.

    Attributes:
        files: content by path; None for a directory.
        head: the manifest's head, columns included.
    """

    label: str
    head: dict[str, Any]
    files: dict[bytes, bytes | None]


def read_key_file(text: str) -> tuple[str, bytes]:
    """Return what a key file's key is for, `signing` included, and the key."""
    match = re.fullmatch(r"drkit-kek-1:([a-z]+):([0-9a-f]{64})\n?", text)
    if match:
        need(match[1] in PURPOSES, "key of an unknown purpose")
        return match[1], bytes.fromhex(match[2])
    match = re.fullmatch(r"drkit-signing-1:([0-9a-f]{64})\n?", text)
    need(match, "no key file")
    assert match
    return "signing", bytes.fromhex(match[1])


class Reader:
    """Reads one cluster's part of a repository.

    Args:
        objects: all bytes by name.
        keks: by purpose.
        trusted: public keys of log signers.
        trusted_wal: those of WAL.
    """

    def __init__(
        self,
        objects: Mapping[str, bytes],
        cluster: str,
        keks: Mapping[str, bytes],
        trusted: set[bytes],
        trusted_wal: frozenset[bytes] = frozenset(),
    ) -> None:
        self.objects = objects
        self.cluster = cluster
        self.keks = keks
        self.trusted = trusted
        self.trusted_wal = trusted_wal
        identity = parse_plain(self.object("drkit.json"), "repository")
        self.lineage = bytes.fromhex(identity["lineage"])
        need(len(self.lineage) == 16, "lineage")

    def object(self, name: str) -> bytes:
        need(name in self.objects, f"{name} is missing")
        return self.objects[name]

    # -- keys

    def dek(self, purpose: str, dek_id: bytes) -> bytes:
        prefix = f"{self.cluster}/keys/{purpose}/{dek_id.hex()}/"
        names = sorted(n for n in self.objects if n.startswith(prefix))
        why: Exception = Refused(f"no data key below {prefix}")
        for name in reversed(names):
            try:
                return self.unwrap(name, purpose, dek_id)
            except Refused as error:
                why = error
        raise why

    def unwrap(self, name: str, purpose: str, dek_id: bytes) -> bytes:
        found = parse_plain(self.object(name), "key")
        need(found["lineage"] == self.lineage.hex(), f"{name}: lineage")
        need(found["purpose"] == purpose, f"{name}: purpose")
        need(found["dek_id"] == dek_id.hex(), f"{name}: id")
        need(f"{found['generation']:04d}" == name[-4:], f"{name}: generation")
        kek = self.keks[purpose]
        kek_id = "local:" + hkdf(kek, lp("drkit/1/kek-id"), length=8).hex()
        context = lp(self.lineage, purpose, dek_id)
        for recipient in found["recipients"]:
            if (recipient["provider"], recipient["kek_id"]) != ("local", kek_id):
                continue
            blob = base64.b64decode(recipient["wrapped"], validate=True)
            spelled = base64.b64encode(blob).decode()
            need(spelled == recipient["wrapped"], f"{name}: spelling")
            need(len(blob) == 80, f"{name}: blob")
            key = hkdf(kek, lp("drkit/1/wrap") + context, salt=blob[:32])
            try:
                dek = AESGCM(key).decrypt(bytes(12), blob[32:], context)
            except InvalidTag:
                raise Refused(f"{name}: does not unwrap") from None
            right = hkdf(dek, lp("drkit/1/dek-id"), length=16) == dek_id
            need(right, f"{name}: another key")
            return dek
        raise Refused(f"{name}: not wrapped for {kek_id}")

    # -- sealed objects

    def frames(self, name: str, purpose: str) -> tuple[list[Frame], list[bytes]]:
        """Return a sealed object's frame table and the plaintext of its frames."""
        data = self.object(name)
        need(96 + 16 + 24 <= len(data) <= MAX_OBJECT, f"{name}: size")
        header = data[:96]
        magic, version, code, zero = struct.unpack_from("<8sHB5s", header)
        need(magic == b"drkitobj" and zero == bytes(5), f"{name}: header")
        signed = version == 2 and purpose == "wal"
        need(version == 1 or signed, f"{name}: version {version}")
        need(code == PURPOSES[purpose], f"{name}: purpose")
        dek_id, salt, commitment = header[16:32], header[32:64], header[64:96]
        dek = self.dek(purpose, dek_id)
        where = lp(self.lineage, name, purpose)
        expected = hkdf(dek, lp("drkit/1/commitment") + where, salt)
        need(hmac.compare_digest(expected, commitment), f"{name}: commitment")
        aead = AESGCM(hkdf(dek, lp("drkit/1/frame-key") + where, salt))

        def decrypt(number: int, sealed: bytes, last: int) -> bytes:
            nonce = number.to_bytes(11, "big") + bytes([last])
            try:
                return aead.decrypt(nonce, sealed, header)
            except (InvalidTag, ValueError):
                raise Refused(f"{name}: frame {number} ({last})") from None

        start, stored, count, end = struct.unpack("<QII8s", data[-24:])
        need(end == b"drkitend" and count <= MAX_FRAMES, f"{name}: footer")
        need(stored == 12 * count + 16, f"{name}: footer")
        need(start >= 96 and start + stored + 24 == len(data), f"{name}: footer")
        rows = decrypt(count, data[start : start + stored], 1)
        table, plains, offset = [], [], 96
        for length, plain, codec, rest in struct.iter_unpack("<IIB3s", rows):
            need(plain <= MAX_FRAME and codec <= MAX_CODEC, f"{name}: index")
            need(rest == bytes(3), f"{name}: index")
            table.append(Frame(length, plain, codec))
        need(96 + sum(frame.stored for frame in table) == start, f"{name}: index")
        if signed:
            need_signature(name, table)
        for number, frame in enumerate(table):
            payload = decrypt(number, data[offset : offset + frame.stored], 0)
            plains.append(expand(name, payload, frame))
            offset += frame.stored
        return table, plains

    def plain(self, name: str, purpose: str, limit: int) -> bytes:
        """Return the plaintext of a sealed object."""
        whole = b"".join(self.frames(name, purpose)[1])
        need(len(whole) <= limit, f"{name}: too long")
        return whole

    # -- log

    def log(self) -> list[dict[str, Any]]:
        """Return the payloads of all entries."""
        return read_log(self)

    def live(self) -> dict[str, dict[str, Any]]:
        """Return the commit entries of live backups by label."""
        backups: dict[str, dict[str, Any]] = {}
        running: dict[str, str] = {}
        expiring: set[str] = set()
        bounds: dict[int, int] = defaultdict(int)
        pinned: set[str] = set()
        last, entries = "", self.log()
        since(entries)
        for entry in entries:
            match entry["type"]:
                case "open":
                    need(entry["cluster"] == self.cluster, "another cluster's log")
                case "begin":
                    label = entry["label"]
                    need(LABEL.match(label) and label[:15] > last[:15], "label")
                    need(entry["parent"] in {None, *backups}, "parent")
                    need(start_of(entry) >= bounds[entry["timeline"]], "expired WAL")
                    last, running[entry["attempt"]] = label, label
                case "commit":
                    label = running.pop(entry["attempt"], None)
                    need(label == entry["backup"]["label"], "commit without begin")
                    backups[label] = entry
                case "abandon":
                    running.pop(entry["attempt"], None)
                case "expire-intent":
                    for label in entry["labels"]:
                        need(backups.pop(label, None), "intent for no live backup")
                        need(label not in pinned, "intent for a pinned backup")
                        expiring.add(label)
                case "expire-done":
                    need(expiring.issuperset(entry["labels"]), "done without intent")
                    expiring -= set(entry["labels"])
                case _:
                    mark(entry, backups, pinned, bounds)
        return backups

    # -- WAL

    def wal(self, system_identifier: str, file: str) -> bytes:
        """Return a WAL file's bytes."""
        return read_wal(self, system_identifier, file)

    def wal_day(self, day: str) -> bytes:
        """Return the DEK of a day's WAL."""
        dek_id = self.object(f"{self.cluster}/wal-days/{day}").decode("ascii")
        return self.dek("wal", bytes.fromhex(dek_id))

    # -- backups

    def restore(self, label: str) -> Backup:
        """Return what a backup holds, with what its parents hold of it."""
        files: dict[bytes, bytes | None] = {}
        manifests = self.chain(label)
        for manifest in manifests:
            self.lay(files, manifest)
        return Backup(label, manifests[-1].head, files)

    def chain(self, label: str) -> list[Manifest]:
        """Return a backup's manifest behind those it builds on, the full one first."""
        live = self.live()
        parents = {e["attempt"]: e["parent"] for e in self.log() if "parent" in e}
        chain, expected = [], None
        while label is not None:
            need(label in live, f"backup {label} is not there")
            name, digest = (live[label]["manifest"][of] for of in ("name", "sha256"))
            need(expected in {None, digest}, f"{name}: another parent's digest")
            stored = self.object(name)
            need(len(stored) == live[label]["manifest"]["size"], f"{name}: size")
            need(hashlib.sha256(stored).hexdigest() == digest, f"{name}: digest")
            chain.append(self.manifest(name))
            parent = chain[-1].head["parent"] or {"label": None, "sha256": None}
            label, expected = parent["label"], parent["sha256"]
            logged = parents[live[chain[-1].head["label"]]["attempt"]]
            need(label == logged, f"{name}: another parent than the log says")
        return chain[::-1]

    def manifest(self, name: str) -> Manifest:
        """Return a manifest, committed or not, when it is well made."""
        found = read_manifest(name, self.plain(name, "catalog", MAX_MANIFEST))
        need(LABEL.match(found.head["label"]), f"{name}: label")
        return found

    def lay(self, files: dict[bytes, bytes | None], manifest: Manifest) -> None:
        """Lay what a manifest lists over the files of its parent."""
        head, columns = manifest.head, manifest.columns
        label = head["label"]
        for path in manifest.gone:
            need(path in files, f"{label}: {path!r} is gone, but never was")
            del files[path]
        runs = self.runs(manifest)
        for number, path in enumerate(manifest.paths):
            kept, before = columns["file.kept"][number], files.get(path) or b""
            need(kept <= len(before), f"{label}: {path!r} keeps what never was")
            content = bytearray(columns["file.size"][number])
            content[:kept] = before[:kept]
            for _ in range(columns["file.runs"][number]):
                position, data = next(runs)
                content[position : position + len(data)] = data
            directory = columns["file.kind"][number] == 2
            files[path] = None if directory else bytes(content)

    def runs(self, manifest: Manifest) -> Iterator[tuple[int, bytes]]:
        """Yield position and content of a manifest's runs, in its order."""
        head, columns = manifest.head, manifest.columns
        prefix = f"{self.cluster}/backups/{head['label']}-{head['attempt']}/packs/"
        plains = self.packs(prefix, columns)
        dek = self.dek("backup", bytes.fromhex(head["dek_id"]))
        key = hkdf(dek, lp("drkit/1/content-digest", self.lineage))
        names = ("run.position", "run.length", "run.frame", "run.offset")
        rows = zip(*(columns[name] for name in names), strict=True)
        for place, (position, length, frame, offset) in enumerate(rows):
            data = plains[frame][offset : offset + length]
            digest = blake3.blake3(data, key=key).digest(16)
            listed = bytes(columns["run.digest"][16 * place : 16 * place + 16])
            need(digest == listed, f"{head['label']}: digest of run {place}")
            yield position, data

    def packs(self, prefix: str, columns: Mapping[str, Any]) -> list[bytes]:
        """Return the plaintext of all frames of a backup's packs."""
        plains: list[bytes] = []
        rows = ("frame.stored", "frame.plain", "frame.codec")
        listed = [Frame(*row) for row in zip(*(columns[r] for r in rows), strict=True)]
        for number, size in enumerate(columns["pack.size"]):
            name = f"{prefix}{number:06d}"
            data = self.object(name)
            digest = bytes(columns["pack.sha256"][32 * number : 32 * number + 32])
            need(len(data) == size, f"{name}: size")
            need(hashlib.sha256(data).digest() == digest, f"{name}: digest")
            table, found = self.frames(name, "backup")
            count = columns["pack.frames"][number]
            need(table == listed[len(plains) : len(plains) + count], f"{name}: table")
            plains += found
        return plains


def start_of(entry: Any) -> int:
    """Return where a backup begins in WAL."""
    return position(entry["start_lsn"])


def position(text: str) -> int:
    """Return a position in WAL."""
    high, low = text.split("/")
    return int(high, 16) << 32 | int(low, 16)


def mark(
    entry: Any, backups: Mapping[str, Any], pinned: set[str], bounds: dict[int, int]
) -> None:
    """Follow the entries that make no backup come or go."""
    match entry["type"]:
        case "pin":
            need(entry["label"] in backups, "pin of no live backup")
            pinned.add(entry["label"])
        case "unpin":
            need(entry["label"] in pinned, "unpin of what is not pinned")
            pinned.remove(entry["label"])
        case "proven":
            need(entry["label"] in backups, "proof of no live backup")
            need(re.fullmatch("[0-9a-f]{64}", entry["evidence"]), "evidence")
        case "expire-wal":
            for timeline, bound in entry["bounds"]:
                bounds[timeline] = max(bounds[timeline], position(bound))
        case "evidence":
            need(re.fullmatch("[0-9a-f]{64}", entry["digest"]), "digest")
            need(entry["record"] >= 0, "number of a record")
        case "wal-signers":
            pass  # `since` has looked at it
        case other:
            raise Refused(f"log entry of type {other}")
