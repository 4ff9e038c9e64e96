"""Signed records of evidence: signing, opening, and how one follows another.

Nothing here needs a repository, so that an auditor can check what was handed over.
"""

from __future__ import annotations

import hashlib
import json
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from drkit.crypto import dsse
from drkit.crypto.signing import (
    foreign_signer,
    format_public,
)
from drkit.errors import Corrupt
from drkit.model import members
from drkit.model.evidence_json import record_from_statement, statement_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from drkit.crypto.signing import Signer
    from drkit.model.evidence import Record

NOTHING = "0" * 64
MAX_ENVELOPE = 16 << 20
PAYLOAD_TYPE = "application/vnd.in-toto+json"


class Signed(NamedTuple):
    """A record whose signature was verified.

    Attributes:
        digest: SHA-256 of the envelope; the next record carries it.
        signer: the public key, as policies write it.
        trusted: False where the envelope alone says whose key it is.
    """

    record: Record
    envelope: bytes
    digest: str
    signer: str
    trusted: bool = True


def sign_record(record: Record, signer: Signer) -> bytes:
    """Return the envelope of a record."""
    statement = json.dumps(statement_of(record), allow_nan=False)
    return dsse.sign(PAYLOAD_TYPE, statement.encode(), signer)


def open_record(source: str, data: bytes, trusted: Collection[bytes] | None) -> Signed:
    """Verify an envelope and read its record.

    Args:
        source: the object or file it came from, for errors.
        data: the envelope.
        trusted: public keys to believe; None takes the keys that the envelope names,
            which proves only that nobody without those changed it.

    Raises:
        Corrupt: it is no envelope, not signed so, or its record is malformed.
    """
    try:
        envelope = dsse.parse(data)
    except (ValueError, KeyError, TypeError):
        raise Corrupt(
            f"{source} is no signed record of evidence",
            hint="it is damaged, or another file; take it from the repository again",
        ) from None
    signer = signer_of(source, envelope, trusted)
    record = _read(source, envelope)
    digest = hashlib.sha256(data).hexdigest()
    return Signed(record, data, digest, signer, trusted is not None)


def breaks(links: Iterable[Signed]) -> Iterator[str]:
    """Yield a sentence for each place where records, in order, don't make a chain.

    A chain may begin anywhere; whoever reads it tells where.
    """
    for before, after in pairwise(links):
        first, second = before.record.sequence, after.record.sequence
        if first == second:
            yield f"there are two records {first}"
        elif second != first + 1:
            yield f"{stretch(first + 1, second - 1)} missing"
        elif after.record.previous != before.digest:
            yield f"record {second} does not follow record {first}: one was changed"


def stretch(first: int, last: int) -> str:
    """Say which records: `record 7 is`, `records 7 to 9 are`."""
    return f"record {first} is" if first == last else f"records {first} to {last} are"


def signer_of(
    source: str, envelope: dsse.Envelope, trusted: Collection[bytes] | None
) -> str:
    """Return who signed an envelope, as policies write it.

    Args:
        source: the object or file it came from, for errors.
        envelope: as it was read.
        trusted: public keys to believe; None takes the keys that the envelope names.

    Raises:
        Corrupt: nobody of these signed it.
    """
    named = dsse.named_keys(envelope)
    found = dsse.signers(envelope, named if trusted is None else trusted)
    if found:
        return format_public(found[0])
    names = ", ".join(map(format_public, named)) or "nobody"
    if trusted is not None and not dsse.signers(envelope, named):
        raise Corrupt(
            f"{source} was changed after it was signed, or never signed",
            hint=f"it says that it is signed by {names}",
        )
    if trusted is None:
        raise Corrupt(
            f"{source} was changed after it was signed, or never signed",
            hint=f"it names {names}; with --trusted, give the key that signed it",
        )
    raise Corrupt(
        f"{source} is not signed by a key that is trusted",
        hint=foreign_signer(names, "keys.trusted"),
    )


def _read(source: str, envelope: dsse.Envelope) -> Record:
    try:
        if envelope.payload_type != PAYLOAD_TYPE:
            raise ValueError("it is no in-toto statement")
        return record_from_statement(members.parse_object(envelope.payload))
    except (ValueError, KeyError, TypeError) as error:
        what = f"`{error.args[0]}`" if isinstance(error, KeyError) else str(error)
        raise Corrupt(
            f"{source} is signed, but is no record that can be read: {what}",
            hint="a later drkit may have written it; use that version here as well",
        ) from None
