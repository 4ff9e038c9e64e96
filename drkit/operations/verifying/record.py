"""Telling the next backup what is damaged, and taking back what is not any more."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from drkit.errors import Corrupt, DrkitError, ObjectNotFound
from drkit.model.damage import Damage, DamageKind
from drkit.repository.findings import (
    DamagedPack,
    finding_names,
    read_finding,
    write_findings,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from drkit.repository.findings import Findings
    from drkit.repository.repository import Repository


class Recorded(NamedTuple):
    """What became of what was found.

    Attributes:
        name: of the object that tells it; None if there is nothing to tell, or it could
            not be written.
        damage: findings that are damaged themselves.
    """

    name: str | None
    damage: list[Damage]
    notes: list[str]


def record(
    repository: Repository,
    damage: Sequence[Damage],
    looked: Collection[str],
    *,
    complete: bool,
) -> Recorded:
    """Store what was found damaged; remove findings that this makes superfluous.

    Args:
        looked: names of the objects whose content was looked at.
        complete: whether that was everything, so that findings that can't be read are
            of no use any more.
    """
    packs = [_pack(one) for one in damage if one.pack is not None and one.pack.lost]
    wal = [one.name for one in damage if _is_wal(repository, one)]
    found, broken = _read(repository)
    told = [_broken(name, error, removed=complete) for name, error in broken.items()]
    names = {one.name for one in damage} | set(looked)
    now = {pack.known_by for pack in packs} | set(wal)
    kept = [one for one in found if _kept(repository, one, now, names)]
    old = [one.name for one in found if one not in kept]
    try:
        name = _write(repository, packs, wal, kept)
        for each in [*old, *(broken if complete else ())]:
            repository.storage.delete(each)
    except DrkitError as error:
        note = f"what was found could not be told to the next backup: {error.message}"
        return Recorded(None, told, [note])
    return Recorded(name, told, [])


def _read(repository: Repository) -> tuple[list[Findings], dict[str, Corrupt]]:
    found, broken = [], {}
    for name in finding_names(repository):
        try:
            found.append(read_finding(repository, name))
        except Corrupt as error:
            broken[name] = error
        except ObjectNotFound:
            continue  # another verification has replaced it
    return found, broken


def _is_wal(repository: Repository, damage: Damage) -> bool:
    """Say whether a WAL file is damaged; one that is missing is told by its absence."""
    opened = repository.log.state.opened
    prefix = repository.layout.wal(opened.system_identifier if opened else "")
    there = damage.kind is not DamageKind.MISSING
    return there and damage.name.startswith(prefix) and damage.name != prefix


def _kept(
    repository: Repository,
    findings: Findings,
    now: Collection[object],
    names: Collection[str],
) -> bool:
    """Say whether findings stay: all of it still holds, or some was not looked at."""
    told = [*(pack.known_by for pack in findings.packs), *findings.wal]
    if all(one in now for one in told):
        return True
    packs = (_open(repository, pack, names) for pack in findings.packs)
    return any(packs) or any(_there(repository, one, names) for one in findings.wal)


def _open(repository: Repository, pack: DamagedPack, names: Collection[str]) -> bool:
    """Say whether nothing is known of a pack but what the findings say."""
    commit = repository.log.state.backups.get(pack.label)
    if commit is None or commit.attempt != pack.attempt:
        return False
    return repository.layout.pack(pack.label, pack.attempt, pack.pack) not in names


def _there(repository: Repository, name: str, names: Collection[str]) -> bool:
    """Say whether nothing is known of a WAL file but what the findings say."""
    if name in names:
        return False
    try:
        repository.storage.size(name)
    except ObjectNotFound:
        return False
    return True


def _write(
    repository: Repository,
    packs: Sequence[DamagedPack],
    wal: Sequence[str],
    kept: Sequence[Findings],
) -> str | None:
    known: set[object] = {name for findings in kept for name in findings.wal}
    known |= {pack.known_by for findings in kept for pack in findings.packs}
    if all(one in known for one in (*(pack.known_by for pack in packs), *wal)):
        return kept[-1].name if packs or wal else None
    return write_findings(repository, packs, wal)


def _pack(damage: Damage) -> DamagedPack:
    if damage.pack is None:
        raise ValueError("only packs are told to the next backup")
    place = damage.pack
    return DamagedPack(
        place.label, place.attempt, place.number, place.lost, damage.backups
    )


def _broken(name: str, error: Corrupt, *, removed: bool) -> Damage:
    end = "removed: all that they told was looked at again" if removed else "kept"
    what = f"can't be used, and were {end}: {error.message}"
    return Damage(name, DamageKind.CONTENT, what, error.exit_code)
