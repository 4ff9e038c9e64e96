"""The objects of the chain of evidence: which one holds the record of a number.

Somebody without keys may have put anything at a record's name. Then the record lies at
the next of its further names: `<number>-1`, `<number>-2`, and so on.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NamedTuple

from drkit.crypto.sealing import HEADER_BYTES
from drkit.errors import Corrupt, ObjectNotFound, TooLong
from drkit.repository import limits
from drkit.repository.attestation import MAX_ENVELOPE, Signed, open_record
from drkit.repository.objects import Sealing, unseal, why_foreign

if TYPE_CHECKING:
    from collections.abc import Iterator

    from drkit.model.evidence import Record
    from drkit.repository.repository import Repository


class Missing(NamedTuple):
    """There is no record of that number.

    Attributes:
        free: the name that it would have.
        passed: what lies at the names before that, and is none; each a sentence.
    """

    sequence: int
    free: str
    passed: tuple[str, ...] = ()


class Bad(NamedTuple):
    """Something of a number that is no sound record, and why."""

    sequence: int
    what: str


Found = Signed | Missing | Bad


def find_record(repository: Repository, sequence: int) -> Found:
    """Return the record of a number: the one that the log names, if it is there."""
    known = repository.log.state.evidence[sequence : sequence + 1]
    passed: list[str] = []
    other: Signed | Bad | None = None
    free = ""
    for name, data in _candidates(repository, sequence):
        if data is None:
            free = free or name
            continue
        why = why_foreign(_sealing(repository, name), data)
        if why is not None:
            passed.append(why)
            continue
        one = _open(repository, sequence, name, data)
        if isinstance(one, Signed) and known in ([], [one.digest]):
            return one
        other = other or one
    if other is None and known and passed:
        return Bad(sequence, passed[0])
    return other or Missing(sequence, free, tuple(passed))


def holds_record(repository: Repository, sequence: int) -> bool:
    """Say whether something lies at a record's names that somebody with keys sealed."""
    return any(
        data is not None and why_foreign(_sealing(repository, name), data) is None
        for name, data in _candidates(repository, sequence)
    )


def foreign(repository: Repository, record: Record, sequence: int) -> str | None:
    """Say why a record is not the one of this place; None if it is."""
    opened = repository.log.state.opened
    if record.cluster != repository.layout.cluster:
        return f"is of cluster {record.cluster}"
    if opened is None or record.system_identifier != opened.system_identifier:
        return f"is of the system {record.system_identifier}"
    if record.sequence != sequence:
        return f"says that it is record {record.sequence}"
    return None


def _candidates(
    repository: Repository, sequence: int
) -> Iterator[tuple[str, bytes | None]]:
    """Yield a record's names with what lies there, up to the first that is free.

    Where the very first is free, the next one too: what was passed over there may have
    been deleted since.
    """
    for number in itertools.count():
        name = repository.layout.evidence_record(sequence, number)
        try:
            yield name, _get(repository, name)
        except ObjectNotFound:
            yield name, None
            if number:
                return


def _get(repository: Repository, name: str) -> bytes:
    """Return an object; its header alone if no record is as long."""
    try:
        return repository.storage.get(name, limit=limits.sealed(MAX_ENVELOPE))
    except TooLong:
        return repository.storage.get(name, 0, HEADER_BYTES)


def _sealing(repository: Repository, name: str) -> Sealing:
    return Sealing(repository.log.dek(), repository.lineage, name)


def _open(
    repository: Repository, sequence: int, name: str, data: bytes
) -> Signed | Bad:
    find = repository.keyring.finder("catalog")
    try:
        plain = unseal(find, repository.lineage, name, "catalog", data, MAX_ENVELOPE)
        signed = open_record(f"record {name}", plain, repository.log.identity.trusted)
    except Corrupt as error:
        return Bad(sequence, error.message)
    problem = foreign(repository, signed.record, sequence)
    return signed if problem is None else Bad(sequence, f"record {name} {problem}")
