"""Findings: what verifications found damaged, kept for the next backup to see.

They save what is still there: an incremental stores anew what damaged frames hold. A
finding that is missing costs one more verification, a needless one some stored pages.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, NamedTuple

from drkit.crypto.sealing import MAX_FRAMES
from drkit.errors import Corrupt, ObjectNotFound
from drkit.model import members
from drkit.model.label import is_attempt, label_time
from drkit.repository import limits
from drkit.repository.objects import Sealing, seal, unseal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from drkit.repository.repository import Repository

_FORMAT = 1


class DamagedPack(NamedTuple):
    """A pack that does not hold what its backup stored in it.

    Attributes:
        label, attempt: the backup that stored it.
        pack: its number there.
        frames: those that are lost, in (first, last) stretches, counted through all
            packs of the backup as its manifest counts them.
        backups: labels of the backups that need them, when it was found.
    """

    label: str
    attempt: str
    pack: int
    frames: tuple[tuple[int, int], ...]
    backups: tuple[str, ...] = ()

    @property
    def known_by(self) -> tuple[str, int, tuple[tuple[int, int], ...]]:
        """What makes it the same damage, whoever needs it."""
        return self.attempt, self.pack, self.frames


class Findings(NamedTuple):
    """What one verification found.

    Attributes:
        name: of the object that tells it.
        wal: names of the objects of damaged WAL files.
    """

    name: str
    packs: tuple[DamagedPack, ...]
    wal: tuple[str, ...] = ()


def damaged_frames(repository: Repository) -> dict[str, set[int]]:
    """Return by attempt the frames that verifications found damaged.

    They are counted through all packs of the attempt's manifest; of a missing pack they
    are all. Attempts that have expired since may be among them.

    Raises:
        Corrupt: a findings object is damaged itself, so that nobody knows.
    """
    found: dict[str, set[int]] = {}
    for findings in read_findings(repository):
        for pack in findings.packs:
            frames = found.setdefault(pack.attempt, set())
            for first, last in pack.frames:
                frames.update(range(first, last + 1))
    return found


def read_findings(repository: Repository) -> Iterator[Findings]:
    """Yield the findings there are, oldest first.

    Raises:
        Corrupt: one is damaged.
    """
    for name in finding_names(repository):
        try:
            yield read_finding(repository, name)
        except ObjectNotFound:
            continue  # another verification has replaced it


def finding_names(repository: Repository) -> list[str]:
    """Return the names of the findings there are, oldest first."""
    prefix = repository.layout.findings()
    return [info.name for info in repository.storage.list(prefix)]


def read_finding(repository: Repository, name: str) -> Findings:
    """Return one verification's findings.

    Raises:
        Corrupt: they are damaged.
        ObjectNotFound: there are none of that name.
    """
    return _open(repository, name)


def write_findings(
    repository: Repository, packs: Sequence[DamagedPack], wal: Sequence[str] = ()
) -> str:
    """Store findings; return the object's name."""
    now = repository.clock.now()
    layout = repository.layout
    name = layout.finding(now.strftime("%Y%m%d-%H%M%S"), os.urandom(16).hex())
    found = {
        "drkit": "findings",
        "format": _FORMAT,
        "time": now.isoformat(),
        "packs": [pack._asdict() for pack in packs],
        "wal": list(wal),
    }
    sealing = Sealing(repository.log.dek(), repository.lineage, name)
    repository.storage.put(name, seal(sealing, json.dumps(found).encode()))
    return name


def stretches(frames: Iterable[int]) -> tuple[tuple[int, int], ...]:
    """Return numbers as (first, last) stretches, ascending."""
    found: list[tuple[int, int]] = []
    for frame in sorted(set(frames)):
        if found and found[-1][1] == frame - 1:
            found[-1] = (found[-1][0], frame)
        else:
            found.append((frame, frame))
    return tuple(found)


def _open(repository: Repository, name: str) -> Findings:
    find = repository.keyring.finder("catalog")
    try:
        data = repository.storage.get(name, limit=limits.sealed(limits.FINDINGS))
        lineage = repository.lineage
        plain = unseal(find, lineage, name, "catalog", data, limits.FINDINGS)
        found = members.parse_object(plain)
        if (found["drkit"], found["format"]) != ("findings", _FORMAT):
            raise ValueError("it is of another kind or format")
        packs = tuple(_pack(one) for one in members.listed(found, "packs"))
        return Findings(name, packs, members.texts(found, "wal"))
    except (Corrupt, ValueError, KeyError, TypeError) as error:
        raise Corrupt(
            f"findings {name} are damaged: {error}",
            hint="run `drkit verify`: it finds anew what is damaged, and removes them",
        ) from error


def _pack(found: members.Members) -> DamagedPack:
    label, attempt = members.text(found, "label"), members.text(found, "attempt")
    label_time(label)
    if not is_attempt(attempt):
        raise ValueError("an attempt is no attempt id")
    return DamagedPack(
        label,
        attempt,
        members.count(found, "pack"),
        tuple(_stretch(one) for one in members.listed(found, "frames")),
        members.texts(found, "backups"),
    )


def _stretch(pair: Any) -> tuple[int, int]:
    first, last = pair
    if not (type(first) is type(last) is int and 0 <= first <= last):
        raise ValueError("a stretch of frames is malformed")
    if last - first >= MAX_FRAMES:
        raise ValueError("a pack has fewer frames than that")
    return first, last
