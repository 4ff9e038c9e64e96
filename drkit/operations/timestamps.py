"""An authority's timestamp of a record of evidence, where a policy names one.

A record's signer could date it as he likes, within what the log allows. An authority
that has no part in it says when the record was there. It is kept beside the chain, not
in it: a record is as good without, so no drill fails because an authority can't be
reached.
"""

from __future__ import annotations

import os
import urllib.request
from typing import TYPE_CHECKING

from drkit.crypto.timestamp import MAX_REPLY, QUERY_TYPE, query, stamped_at
from drkit.errors import Corrupt, DrkitError, ObjectNotFound, StorageError
from drkit.repository import limits
from drkit.repository.evidence import read_record
from drkit.repository.objects import Sealing, seal, unseal

if TYPE_CHECKING:
    from drkit.model.verification import TimestampAuthority, VerificationRules
    from drkit.protocols import Progress
    from drkit.repository.evidence import Place
    from drkit.repository.repository import Repository

_TIMEOUT = 20.0  # seconds


def stamp(
    repository: Repository, place: Place, rules: VerificationRules, progress: Progress
) -> None:
    """Ask whom the policy names for a timestamp of a record, and store it.

    What goes wrong is a warning.
    """
    if rules.timestamps is None:
        return
    try:
        _stamp(repository, place, rules.timestamps)
    except (DrkitError, OSError) as error:
        progress.warning(
            f"record {place.sequence} has no timestamp of "
            f"{rules.timestamps.authority}: {error}"
        )


def stored_timestamp(repository: Repository, sequence: int) -> bytes | None:
    """Return an authority's reply for a record; None if there is none.

    Raises:
        Corrupt: what is there is damaged.
    """
    name = repository.layout.timestamp(sequence)
    find = repository.keyring.finder("catalog")
    try:
        data = repository.storage.get(name, limit=limits.sealed(MAX_REPLY))
    except ObjectNotFound:
        return None
    return unseal(find, repository.lineage, name, "catalog", data, MAX_REPLY)


def _stamp(repository: Repository, place: Place, by: TimestampAuthority) -> None:
    signed = read_record(repository, place.sequence)
    if signed.digest != place.digest:
        raise Corrupt(f"record {place.sequence} is another one by now")
    reply = _ask(by.authority, query(signed.envelope))
    with open(by.roots, "rb") as file:
        roots = file.read(MAX_REPLY)
    stamped_at(by.authority, reply, signed.envelope, roots)
    name = repository.layout.timestamp(place.sequence)
    sealing = Sealing(repository.log.dek(), repository.lineage, name)
    repository.storage.put(name, seal(sealing, reply))


def _ask(url: str, asked: bytes) -> bytes:
    """Return an authority's reply.

    Raises:
        OSError: it can't be reached, or refuses.
        StorageError: it says more than a timestamp takes.
    """
    request = urllib.request.Request(  # noqa: S310  policies take http and https alone
        url, asked, {"Content-Type": QUERY_TYPE}
    )
    with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:  # noqa: S310
        reply: bytes = answer.read(MAX_REPLY + 1)
    if len(reply) > MAX_REPLY:
        raise StorageError(f"{url} sends more than {MAX_REPLY} bytes")
    return reply


def timestamp_path(path: str) -> str:
    """Return where the timestamp of an exported record lies."""
    return f"{os.fspath(path)}.tsr"
