"""A report's signature: what its files are, and how much evidence there was.

A signed record says nothing of those that were left out, of the newest ones least. So a
report names, for each cluster, how many records there were and the digest of the
newest, and is signed together with its files: an in-toto statement in a DSSE envelope,
as records are.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from drkit.crypto import dsse
from drkit.errors import Corrupt
from drkit.model import members
from drkit.repository.attestation import PAYLOAD_TYPE, signer_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from drkit.crypto.signing import Signer
    from drkit.repository.attestation import Signed

PREDICATE_TYPE = "urn:drkit:report:v1"
SUFFIX = ".dsse.json"
_STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
_FORMAT = 1
_SHOWN = 10


@dataclass(frozen=True, slots=True)
class ClusterChain:
    """How far a cluster's chain of evidence went when a report was made of it.

    Attributes:
        records: how many there were, from record 0 on.
        head: SHA-256 of the newest one's envelope, in hex; empty if there was none.
    """

    cluster: str
    system_identifier: str
    records: int
    head: str


@dataclass(frozen=True, slots=True)
class ReportStatement:
    """What is signed of a report.

    Attributes:
        quarter: such as `2026-Q1`.
        drkit: the version that made it.
        files: SHA-256 of each form's file, in hex, by the file's name.
    """

    quarter: str
    drkit: str
    files: Mapping[str, str]
    chains: tuple[ClusterChain, ...]


class SignedReport(NamedTuple):
    """A report's statement whose signature was verified, and the key that made it."""

    statement: ReportStatement
    signer: str


def sign_report(statement: ReportStatement, signers: Sequence[Signer]) -> bytes:
    """Return the envelope of a report, signed by each of its clusters' keys."""
    payload = json.dumps(_statement_json(statement)).encode()
    return dsse.sign(PAYLOAD_TYPE, payload, *signers)


def open_report(
    source: str, data: bytes, trusted: Collection[bytes] | None
) -> SignedReport:
    """Verify an envelope and read what it says of a report.

    Args:
        source: the file it came from, for errors.
        data: the envelope.
        trusted: public keys to believe; None takes the keys that the envelope names.

    Raises:
        Corrupt: it is no envelope, not signed so, or not of a report.
    """
    try:
        envelope = dsse.parse(data)
    except (ValueError, KeyError, TypeError):
        raise Corrupt(
            f"{source} is no signature of a report",
            hint=f"`drkit drill report` writes it beside the report, as *{SUFFIX}",
        ) from None
    signer = signer_of(source, envelope, trusted)
    try:
        if envelope.payload_type != PAYLOAD_TYPE:
            raise ValueError("it is no in-toto statement")
        return SignedReport(_statement(members.parse_object(envelope.payload)), signer)
    except (ValueError, KeyError, TypeError):
        raise Corrupt(
            f"{source} is signed, but it is no signature of a report",
            hint="a later drkit may have written it, or it is a record of evidence",
        ) from None


def lacking(statement: ReportStatement, records: Iterable[Signed]) -> Iterator[str]:
    """Yield a sentence for whatever of a report's evidence is not among the records.

    Newer records than the report knows may be there: `breaks` tells whether they
    follow.
    """
    found = {(one.record.cluster, one.record.sequence): one for one in records}
    for chain in statement.chains:
        there = {number for cluster, number in found if cluster == chain.cluster}
        absent = chain.records - sum(number < chain.records for number in there)
        if absent:
            gone = (one for one in range(chain.records) if one not in there)
            shown = ", ".join(map(str, islice(gone, _SHOWN)))
            more = f" and {absent - _SHOWN} more" if absent > _SHOWN else ""
            yield (
                f"{chain.cluster}: the report counts {chain.records} records, and "
                f"{absent} of them were not handed over: {shown}{more}"
            )
        newest = found.get((chain.cluster, chain.records - 1))
        if newest is not None and newest.digest != chain.head:
            yield (
                f"{chain.cluster}: record {chain.records - 1} is another one than the "
                "report was made of"
            )
    known = {chain.cluster for chain in statement.chains}
    for cluster in sorted({cluster for cluster, _ in found} - known):
        yield f"{cluster}: the report is not of this cluster"


def _statement_json(statement: ReportStatement) -> members.Members:
    return {
        "_type": _STATEMENT_TYPE,
        "subject": [
            {"name": name, "digest": {"sha256": digest}}
            for name, digest in sorted(statement.files.items())
        ],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "drkit": "report",
            "format": _FORMAT,
            "drkit_version": statement.drkit,
            "quarter": statement.quarter,
            "clusters": [
                {
                    "cluster": one.cluster,
                    "system_identifier": one.system_identifier,
                    "records": one.records,
                    "head": one.head,
                }
                for one in statement.chains
            ],
        },
    }


def _statement(found: members.Members) -> ReportStatement:
    if (found["_type"], found["predicateType"]) != (_STATEMENT_TYPE, PREDICATE_TYPE):
        raise ValueError("it is no statement about a report")
    predicate = members.nested(found, "predicate")
    if (predicate["drkit"], predicate["format"]) != ("report", _FORMAT):
        raise ValueError("it is of another format")
    return ReportStatement(
        members.text(predicate, "quarter"),
        members.text(predicate, "drkit_version"),
        {
            members.text(one, "name"): members.sha256(one["digest"], "sha256")
            for one in members.listed(found, "subject")
        },
        tuple(_chain(one) for one in members.listed(predicate, "clusters")),
    )


def _chain(found: members.Members) -> ClusterChain:
    records, head = members.count(found, "records"), members.text(found, "head")
    if bool(records) != members.is_sha256(head) or (not records and head):
        raise ValueError("a chain's head and length don't fit")
    return ClusterChain(
        members.text(found, "cluster"),
        members.text(found, "system_identifier"),
        records,
        head,
    )
