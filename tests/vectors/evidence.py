"""The second reader's part for the chain of evidence, from the document alone."""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tests.vectors.columns import need
from tests.vectors.log import is_void

if TYPE_CHECKING:
    from tests.vectors.reader import Reader

KIND = "application/vnd.in-toto+json"
MAX_ENVELOPE = 16 << 20


def read_evidence(reader: Reader) -> list[dict[str, Any]]:
    """Return the predicates of all records of a whole chain."""
    named = [one["digest"] for one in named_records(reader)]
    records: list[dict[str, Any]] = []
    digests = ["0" * 64]
    while (name := place_of(reader, len(records))) is not None:
        envelope = reader.plain(name, "catalog", MAX_ENVELOPE)
        record = read_record(reader, name, envelope)
        need(record["sequence"] == len(records), f"{name}: sequence")
        need(record["cluster"] == reader.cluster, f"{name}: cluster")
        need(record["previous"] == digests[-1], f"{name}: chain")
        digests.append(hashlib.sha256(envelope).hexdigest())
        records.append(record)
    need(digests[1:][: len(named)] == named, "evidence: not what the log names")
    prefix = f"{reader.cluster}/evidence/"
    behind = [
        name
        for name in reader.objects
        if name.startswith(prefix) and not is_void(reader, name)
    ]
    need(len(behind) == len(records), "evidence: a record is missing")
    proofs = [one["evidence"] for one in reader.log() if one["type"] == "proven"]
    need(set(proofs) <= set(digests), "evidence: a proof without its record")
    return records


def place_of(reader: Reader, number: int) -> str | None:
    """Return the name of a record's object: the first of its names that is not void."""
    name = f"{reader.cluster}/evidence/{number:010d}"
    names = [name, *(f"{name}-{further}" for further in range(1, 100))]
    there = [one for one in names if one in reader.objects]
    return next((one for one in there if not is_void(reader, one)), None)


def named_records(reader: Reader) -> list[dict[str, Any]]:
    """Return the log's entries about evidence, each once."""
    named: list[dict[str, Any]] = []
    for entry in reader.log():
        if entry["type"] != "evidence":
            continue
        need(entry["record"] <= len(named), "evidence entry out of order")
        if entry["record"] == len(named):
            named.append(entry)
        same = named[entry["record"]]["digest"] == entry["digest"]
        need(same, "two records of one number")
    return named


def read_record(reader: Reader, name: str, envelope: bytes) -> dict[str, Any]:
    """Verify an envelope; return its statement's predicate."""
    found = json.loads(envelope)
    payload = base64.b64decode(found["payload"], validate=True)
    kind = found["payloadType"]
    need(kind == KIND, f"{name}: type")
    signed = f"DSSEv1 {len(kind)} {kind} {len(payload)} ".encode() + payload
    signatures = [base64.b64decode(one["sig"]) for one in found["signatures"]]
    good = [
        1
        for public in reader.trusted
        for signature in signatures
        if fits(public, signature, signed)
    ]
    need(good, f"{name}: signature")
    return read_statement(name, payload)


def read_statement(name: str, payload: bytes) -> dict[str, Any]:
    statement = json.loads(payload)
    need(statement["_type"] == "https://in-toto.io/Statement/v1", f"{name}: type")
    need(statement["predicateType"] == "urn:drkit:evidence:v1", f"{name}: type")
    record: dict[str, Any] = statement["predicate"]
    need((record["drkit"], record["format"]) == ("evidence", 1), f"{name}: format")
    need(datetime.fromisoformat(record["started"]).tzinfo, f"{name}: time")
    need((record["kind"] == "action") == bool(record["action"]), f"{name}: action")
    restored = record["restored"]
    expected = restored["manifests"] if restored else [record["previous"]]
    subjects = [one["digest"]["sha256"] for one in statement["subject"]]
    need(subjects == expected, f"{name}: subjects")
    return record


def fits(public: bytes, signature: bytes, signed: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, signed)
    except InvalidSignature:
        return False
    return True
