"""The chain of evidence: a signed record of each drill and verification.

Each record carries the digest of the one before, and the log has an entry with the
digest of each, written before the next record is. So at most the newest record, of a
run that died at once, is not in the log; all others can't go or change unseen.
"""

from __future__ import annotations

import hashlib
import re
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from drkit import workers
from drkit.errors import Corrupt, ObjectExists
from drkit.model.log import Evidence, Proven
from drkit.repository.attestation import (
    NOTHING,
    Signed,
    breaks,
    sign_record,
    stretch,
)
from drkit.repository.dating import LogTimes, Misdated
from drkit.repository.evidence_objects import (
    Bad,
    Found,
    Missing,
    find_record,
    foreign,
    holds_record,
)
from drkit.repository.objects import Sealing, seal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from drkit.model.evidence import Record
    from drkit.repository.repository import Repository
    from drkit.workers import Stop

_READERS = 8
_COPY = "restore what is missing from a copy of the repository"
_NAME = re.compile(r"[0-9]{10}(?:-[0-9]+)?\Z")


class Place(NamedTuple):
    """Where a record stands in the chain.

    Attributes:
        digest: SHA-256 of its envelope, in hex.
    """

    sequence: int
    digest: str


class Chain(NamedTuple):
    """A chain of evidence as it was found.

    Attributes:
        records: those that could be read, in order.
        problems: what is wrong with the chain, each a sentence; empty if it is whole.
        misdated: records that are there, and not of the time that they say.
        passed: what lies at the next record's names and is none, each a sentence.
    """

    records: tuple[Signed, ...]
    problems: tuple[str, ...]
    misdated: tuple[Misdated, ...] = ()
    passed: tuple[str, ...] = ()

    @property
    def doubts(self) -> tuple[str, ...]:
        """All that speaks against it, each a sentence."""
        return self.problems + tuple(one.why for one in self.misdated)

    @property
    def head(self) -> str:
        """The newest record's digest; empty if there is none."""
        return self.records[-1].digest if self.records else ""


def append(repository: Repository, build: Callable[[int, str], Record]) -> Place:
    """Sign a record, store it as the chain's next, and name it in the log.

    A loss that the log shows stops nobody: the chain goes on behind it.

    Args:
        repository: of the cluster.
        build: makes the record from its sequence and the digest of the one before;
            called again whenever another writer's record came first.

    Raises:
        Corrupt: the log is damaged, or a record that it does not name yet.
        KeyUnavailable: the signing key can't be read.
    """
    while True:
        end, previous = _end(repository)
        sequence, name = end.sequence, end.free
        record = build(sequence, previous)
        problem = foreign(repository, record, sequence)
        if problem is not None or record.previous != previous:
            raise ValueError(f"the record {problem or 'follows another one'}")
        envelope = sign_record(record, repository.log.identity.signer())
        sealing = Sealing(repository.log.dek(), repository.lineage, name)
        try:
            repository.storage.put(name, seal(sealing, envelope))
        except ObjectExists:
            continue
        place = Place(sequence, hashlib.sha256(envelope).hexdigest())
        _anchor(repository, place)
        return place


def read_all(repository: Repository) -> list[Record]:
    """Return every record, oldest first.

    Raises:
        Corrupt: the chain is not whole, or misdated; the first doubt is told.
    """
    chain = read_chain(repository)
    if chain.doubts:
        raise Corrupt(
            f"the evidence of {repository.layout.cluster} is not whole: "
            f"{chain.doubts[0]}",
            hint=f"`drkit drill list` tells everything; {_COPY}",
        )
    return [one.record for one in chain.records]


def read_chain(repository: Repository) -> Chain:
    """Read the chain, and tell whatever is wrong with it.

    Raises:
        RepositoryMissing: this cluster was never set up here.
        KeyUnavailable: a key that opens the records can't be read.
    """
    listed = _listed(repository)
    repository.backups()
    found = _fetch(repository, range(len(repository.log.state.evidence)))
    while not isinstance(one := find_record(repository, len(found)), Missing):
        found.append(one)
    records = tuple(one for one in found if isinstance(one, Signed))
    later = [sequence for sequence in listed if sequence > len(found)]
    beyond = [sequence for sequence in later if holds_record(repository, sequence)]
    strays = (repository.layout.evidence_record(n) for n in {*later} - {*beyond})
    times = LogTimes(repository.log.entries, repository.clock.now())
    return Chain(
        records,
        tuple(_problems(repository, found, beyond)),
        tuple(times.misdated(one.record for one in records)),
        (*one.passed, *(f"object {name} is no record" for name in sorted(strays))),
    )


def newest_records(repository: Repository, count: int) -> list[Record]:
    """Return the newest records that the log names and that are sound, oldest first.

    For those who only learn from them; `read_chain` tells what is wrong with others.

    Args:
        repository: of the cluster.
        count: how many of the newest are looked at.

    Raises:
        RepositoryMissing: this cluster was never set up here.
    """
    repository.backups()
    known = repository.log.state.evidence
    sequences = range(max(len(known) - count, 0), len(known))
    found = zip(sequences, _fetch(repository, sequences), strict=True)
    return [
        one.record
        for sequence, one in found
        if isinstance(one, Signed) and one.digest == known[sequence]
    ]


def read_record(repository: Repository, sequence: int) -> Signed:
    """Return one record whose signature and place are right.

    Raises:
        Corrupt: it is missing, or not a record of this place.
    """
    found = find_record(repository, sequence)
    if isinstance(found, Signed):
        return found
    name = repository.layout.evidence_record(sequence)
    what = found.what if isinstance(found, Bad) else f"record {name} is missing"
    raise Corrupt(what, hint=_COPY)


def head_digest(repository: Repository) -> str:
    """Return the newest record's digest; empty if there is none."""
    end, previous = _end(repository, anchor=False)
    return previous if end.sequence else ""


def _end(repository: Repository, *, anchor: bool = True) -> tuple[Missing, str]:
    """Return the place of the next record and the digest of the last one.

    Args:
        repository: of the cluster.
        anchor: name in the log what a run that died did not.
    """
    repository.backups()
    known = repository.log.state.evidence
    sequence, previous = len(known), known[-1] if known else NOTHING
    while not isinstance(one := find_record(repository, sequence), Missing):
        if isinstance(one, Bad):
            raise Corrupt(one.what, hint=_COPY)
        if one.record.previous != previous:
            raise Corrupt(
                f"record {repository.layout.evidence_record(sequence)} does not "
                "follow the record before it",
                hint="the repository was rolled back, forked, or put together from two",
            )
        if anchor:
            _anchor(repository, Place(sequence, one.digest))
        sequence, previous = sequence + 1, one.digest
    return one, previous


def _anchor(repository: Repository, place: Place) -> None:
    """Name a record in the log, unless another writer has."""
    if place.digest not in repository.log.read().evidence[place.sequence :]:
        repository.log.append(lambda _: Evidence(place.sequence, place.digest))


def _listed(repository: Repository) -> list[int]:
    prefix = repository.layout.evidence()
    names = [info.name.removeprefix(prefix) for info in repository.storage.list(prefix)]
    return [int(name[:10]) for name in names if _NAME.match(name)]


def _fetch(repository: Repository, sequences: Sequence[int]) -> list[Found]:
    """Read records on several threads: ten years of days are 3,650 objects."""
    found: dict[int, Found] = {}

    def read(place: int, stop: Stop) -> None:
        for sequence in sequences[place::_READERS]:
            if stop.is_set():
                return
            found[sequence] = find_record(repository, sequence)

    count = min(_READERS, len(sequences))
    workers.run([partial(read, place) for place in range(count)])
    return [found[sequence] for sequence in sequences]


def _problems(
    repository: Repository, found: Sequence[Found], beyond: Sequence[int]
) -> Iterator[str]:
    layout, state = repository.layout, repository.log.state
    for sequence, one in enumerate(found):
        match one:
            case Missing():
                yield f"record {layout.evidence_record(sequence)} is missing"
            case Bad():
                yield one.what
            case Signed() if state.evidence[sequence : sequence + 1] not in (
                [],
                [one.digest],
            ):
                yield (
                    f"record {layout.evidence_record(sequence)} is another one than "
                    "the log names"
                )
    yield from _broken_links(found)
    if beyond:
        last = max(max(beyond) - 1, len(found))
        yield f"{stretch(len(found), last)} missing, though later ones were listed"
    yield from _unproven(repository, found)


def _broken_links(found: Sequence[Found]) -> Iterator[str]:
    """Hold each record against the one before, where both could be read."""
    first = found[0] if found else None
    if isinstance(first, Signed) and first.record.previous != NOTHING:
        yield "record 0 follows another one, so it is not the first"
    for before, after in pairwise(found):
        if isinstance(before, Signed) and isinstance(after, Signed):
            yield from breaks((before, after))


def _unproven(repository: Repository, found: Sequence[Found]) -> Iterator[str]:
    """Tell backups that were marked as proven by a record that is not there."""
    there = {one.digest for one in found if isinstance(one, Signed)}
    there |= set(repository.log.state.evidence)  # told already
    for logged in repository.log.entries:
        entry = logged.entry
        if isinstance(entry, Proven) and entry.evidence not in there:
            yield (
                f"the log says that record {entry.evidence} proved backup "
                f"{entry.label}, and there is no such record"
            )
