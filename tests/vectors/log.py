"""The log as the second reader reads it: entries, and void names between them."""

from __future__ import annotations

import hashlib
import re
from datetime import datetime
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tests.vectors.columns import Refused, need, parse_json
from tests.vectors.derive import hkdf, lp

if TYPE_CHECKING:
    from tests.vectors.reader import Reader

_MAX_ENTRY = 1 << 20


def read_log(reader: Reader) -> list[dict[str, Any]]:
    """Return the payloads of all entries."""
    entries: list[dict[str, Any]] = []
    previous, before = "0" * 64, -1
    for number in _numbers(reader):
        if number and is_void(reader, _name(reader, number)):
            continue
        entry, digest = _entry(reader, _name(reader, number))
        skipped = number - before - 1
        void = entry.get("void", {"count": 0, "sha256": "0" * 64})
        need(void["count"] == skipped, f"{number}: an entry is missing")
        need(("void" in entry) == (skipped > 0), f"{number}: void")
        need(re.fullmatch("[0-9a-f]{64}", void["sha256"]), f"{number}: void")
        need(entry["sequence"] == number, f"{number}: sequence")
        need(entry["previous"] == previous, f"{number}: chain")
        need((entry["type"] == "open") == (not entries), f"{number}: open")
        need(datetime.fromisoformat(entry["time"]).tzinfo, f"{number}: time")
        previous, before = digest, number
        entries.append(entry)
    return entries


def is_void(reader: Reader, name: str) -> bool:
    """Say whether an object is not sealed for its name under the log's key."""
    first, header = reader.object(_name(reader, 0)), reader.object(name)[:96]
    if len(header) < 96 or header[:32] != first[:32]:
        return True
    dek, where = (
        reader.dek("catalog", first[16:32]),
        lp(reader.lineage, name, "catalog"),
    )
    return header[64:] != hkdf(dek, lp("drkit/1/commitment") + where, header[32:64])


def _name(reader: Reader, number: int) -> str:
    return f"{reader.cluster}/log/{number:010d}"


def _numbers(reader: Reader) -> list[int]:
    """Return the numbers that something lies at, whatever it is, ascending."""
    names = re.compile(f"{reader.cluster}/log/([0-9]{{10}})")
    return sorted(int(m[1]) for n in reader.objects if (m := names.fullmatch(n)))


def _entry(reader: Reader, name: str) -> tuple[dict[str, Any], str]:
    """Return an entry's payload, and the digest that the next one has."""
    plain = reader.plain(name, "catalog", _MAX_ENTRY)
    signature, public, payload = plain[:64], plain[64:96], plain[96:]
    need(public in reader.trusted, f"{name}: signer")
    signed = lp("drkit/1/log", reader.lineage, name) + payload
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, signed)
    except InvalidSignature:
        raise Refused(f"{name}: signature") from None
    return parse_json(payload, "log"), hashlib.sha256(plain).hexdigest()
