"""Signed WAL as the second reader reads it, and since when WAL must be signed."""

from __future__ import annotations

import hashlib
import re
import struct
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tests.vectors.columns import Refused, need
from tests.vectors.derive import lp

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.vectors.codecs import Frame
    from tests.vectors.reader import Reader

Since = dict[str, str] | None  # the first signed segment by timeline, 8 digits

_SEGMENT = re.compile(r"[0-9A-F]{24}")
_PUBLIC = re.compile(r"ed25519:[0-9a-f]{64}")
_MAX_WAL = 1 << 30


def read_wal(reader: Reader, system_identifier: str, file: str) -> bytes:
    """Return a WAL file's bytes."""
    name = object_name(reader, system_identifier, file)
    content, claim = _opened(reader, name)
    if claim is None:
        need(may_be_unsigned(file, since(reader.log())), f"{name}: unsigned")
    return content


def wal_digest(reader: Reader, system_identifier: str, files: Iterable[str]) -> str:
    """Return the SHA-256 of names and digests, as a commit entry has it."""
    whole = hashlib.sha256()
    for file in files:
        content = read_wal(reader, system_identifier, file)
        whole.update(file.encode("ascii") + hashlib.sha256(content).digest())
    return whole.hexdigest()


def object_name(reader: Reader, system_identifier: str, file: str) -> str:
    below = f"{reader.cluster}/wal/{system_identifier}"
    if file.endswith(".history"):
        return f"{below}/history/{file}"
    return f"{below}/{file[:8]}/{file[8:16]}/{file}"


def need_signature(name: str, table: list[Frame]) -> None:
    """Refuse an object of version 2 whose last frame is no signature."""
    need(table, f"{name}: no signature")
    need((table[-1].plain, table[-1].codec) == (136, 0), f"{name}: no signature")
    need(table[-1].stored == 136 + 16, f"{name}: no signature")


def since(entries: Iterable[dict[str, Any]]) -> Since:
    """Return from where on WAL must be signed; None if none must."""
    known: Since = None
    for entry in entries:
        if entry["type"] != "wal-signers":
            continue
        need(entry["signers"], "no signer")
        for signer in entry["signers"]:
            need(_PUBLIC.fullmatch(signer), f"{signer} is no key")
        named: dict[str, str] = {}
        for segment in entry["since"]:
            need(_SEGMENT.fullmatch(segment), f"{segment} is no segment")
            need(segment[:8] != "0" * 8, f"{segment} is of no timeline")
            need(segment[:8] not in named, f"{segment} is of a timeline named before")
            if known is not None:
                need(segment <= known.get(segment[:8], ""), f"{segment} raises it")
            named[segment[:8]] = segment
        known = named if known is None else known | named
    return known


def may_be_unsigned(file: str, known: Since) -> bool:
    if known is None:
        return True
    first = known.get(file[:8])
    return first is not None and (file.endswith(".history") or file[:24] < first)


def _opened(reader: Reader, name: str) -> tuple[bytes, bytes | None]:
    """Return a file's bytes, and the signature's claim if there is one."""
    _, plains = reader.frames(name, "wal")
    signed = int.from_bytes(reader.object(name)[8:10], "little") == 2
    frame = plains.pop() if signed else None
    content = b"".join(plains)
    need(len(content) <= _MAX_WAL, f"{name}: too long")
    if frame is not None:
        _verify(reader, name, frame, content)
    return content, frame


def _verify(reader: Reader, name: str, frame: bytes, content: bytes) -> None:
    signature, public, digest, length = struct.unpack("<64s32s32sQ", frame)
    need(public in reader.trusted_wal, f"{name}: signer")
    signed = lp("drkit/1/wal", reader.lineage, name) + frame[-40:]
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, signed)
    except InvalidSignature:
        raise Refused(f"{name}: signature") from None
    need(length == len(content), f"{name}: length")
    need(digest == hashlib.sha256(content).digest(), f"{name}: digest")
