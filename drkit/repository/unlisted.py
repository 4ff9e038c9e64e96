"""What lies in the store though the log, as far as it goes, does not know it.

Writers name things in the log first: no attempt stores anything before its `begin`, and
at most one record of evidence is not named yet. So what a holder of the keys has stored
and the log does not name shows that newer entries are gone. What nobody can open may be
anybody's, and shows nothing.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from drkit.crypto.sealing import HEADER_BYTES
from drkit.errors import ObjectNotFound
from drkit.repository.log_blocks import ENTRIES
from drkit.repository.objects import is_header_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from drkit.model.log import LogState
    from drkit.model.objects import ObjectInfo
    from drkit.repository.repository import Repository

_ATTEMPT = re.compile(r"([0-9]{8}-[0-9]{6}-[a-z]+)-([0-9a-f]{32})\Z")
_NUMBER = re.compile(r"([0-9]{10})(?:-[1-9][0-9]*)?\Z")  # also of further names
_TRIED = 20  # of objects that may be anybody's, so that their number costs nobody much


class Stored(NamedTuple):
    """The place of one attempt's objects.

    Attributes:
        objects: those by which it is known who wrote them, with their purpose.
    """

    label: str
    attempt: str
    objects: tuple[tuple[ObjectInfo, str], ...]
    manifest: bool


@dataclass(frozen=True, slots=True)
class Listed:
    """What was listed before the log was read; the log is at least as new."""

    attempts: tuple[Stored, ...]
    blocks: tuple[ObjectInfo, ...]
    evidence: tuple[ObjectInfo, ...]


@dataclass(slots=True)
class Unlisted:
    """What the log does not know.

    Attributes:
        attempts: label and attempt of backups, complete or not.
        objects: names of other objects that only a later log can have led to.
        strangers: names of objects that no key at hand opens.
    """

    attempts: list[tuple[str, str]] = field(default_factory=list)
    objects: list[str] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)


def list_stored(repository: Repository) -> Listed:
    """List what the log should know of; to be called before it is read."""
    storage, layout = repository.storage, repository.layout
    return Listed(
        tuple(_attempts(storage.list(layout.backups()), layout.backups())),
        tuple(_numbered(storage.list(layout.log_blocks()))),
        tuple(_numbered(storage.list(layout.evidence()))),
    )


def find_unlisted(repository: Repository, listed: Listed) -> Unlisted:
    """Hold what was listed against the log as it was read since."""
    state, found = repository.log.state, Unlisted()
    for one in _unknown(listed, state):
        if any(_is_ours(repository, *each) for each in one.objects):
            found.attempts.append((one.label, one.attempt))
        else:
            found.strangers.append(repository.layout.backup(one.label, one.attempt))
    ends = repository.log.head + 1
    late = [info for info in listed.blocks if _number(info) + ENTRIES > ends]
    late += [info for info in listed.evidence if _number(info) > len(state.evidence)]
    for info in late[:_TRIED]:
        ours = _is_ours(repository, info, "catalog")
        (found.objects if ours else found.strangers).append(info.name)
    return found


def _unknown(listed: Listed, state: LogState) -> Iterator[Stored]:
    """Yield attempts that never began, as far as the log says, the newest first."""
    unknown = (
        one
        for one in reversed(listed.attempts)
        if one.attempt not in state.attempts
        or state.attempts[one.attempt].begin.label != one.label
    )
    return itertools.islice(unknown, _TRIED)


def _attempts(infos: Iterable[ObjectInfo], prefix: str) -> Iterator[Stored]:
    for place, group in itertools.groupby(
        infos, lambda info: info.name.removeprefix(prefix).partition("/")[0]
    ):
        match = _ATTEMPT.match(place)
        if match is None:
            continue
        mine = {info.name.removeprefix(f"{prefix}{place}/"): info for info in group}
        told = [
            (mine[part], purpose)
            for part, purpose in (("manifest", "catalog"), ("fingerprint", "catalog"))
            if part in mine
        ]
        packs = (info for part, info in mine.items() if part.startswith("packs/"))
        told += [(info, "backup") for info in itertools.islice(packs, 1)]
        yield Stored(match[1], match[2], tuple(told), "manifest" in mine)


def _numbered(infos: Iterable[ObjectInfo]) -> Iterator[ObjectInfo]:
    return (info for info in infos if _NUMBER.match(info.name.rpartition("/")[2]))


def _number(info: ObjectInfo) -> int:
    return int(info.name.rpartition("/")[2][:10])


def _is_ours(repository: Repository, info: ObjectInfo, purpose: str) -> bool:
    """Say whether a holder of the keys has written an object of that name."""
    if info.size < HEADER_BYTES:
        return False
    find = repository.keyring.finder(purpose)
    try:
        head = repository.storage.get(info.name, 0, HEADER_BYTES)
    except ObjectNotFound:
        return False
    return is_header_of(find, repository.lineage, info.name, purpose, head)
