"""What damage means: which content is lost, and which backups need it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from drkit.errors import Corrupt, KeyUnavailable
from drkit.model.damage import Place
from drkit.postgres.exclusions import relation_file
from drkit.repository.chain import lineage, read_chain

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from drkit.model.damage import Damage, PackPlace
    from drkit.model.log import Commit
    from drkit.model.manifest import Manifest
    from drkit.repository.repository import Repository


def places(manifest: Manifest, frames: Iterable[tuple[int, int]]) -> tuple[Place, ...]:
    """Return what a backup stored in frames, (first, last): files with their pages.

    Pages that follow each other are one place. Of files that hold no pages it is bytes.
    """
    runs = manifest.runs
    inside = np.zeros(len(runs), dtype=bool)
    for first, last in frames:
        inside |= (runs["frame"] >= first) & (runs["frame"] <= last)
    owners = manifest.run_files()[inside]
    chosen = runs[inside]
    ends = chosen["position"] + chosen["length"]
    found: list[Place] = []
    for owner, start, end in zip(
        owners.tolist(), chosen["position"].tolist(), ends.tolist(), strict=True
    ):
        add_place(found, _place(manifest, manifest.paths[owner], start, end))
    return tuple(found)


def add_place(found: list[Place], place: Place) -> None:
    """Add a place, or lengthen the last one if it goes on there."""
    if found and found[-1][:2] == place[:2] and found[-1].last + 1 >= place.first:
        found[-1] = found[-1]._replace(last=place.last)
    else:
        found.append(place)


def _place(manifest: Manifest, path: bytes, start: int, end: int) -> Place:
    if relation_file(path) is None:
        return Place(path, "byte", start, end - 1)
    size = manifest.head.server.block_size
    return Place(path, "page", start // size, (end - 1) // size)


def blamed(repository: Repository, damage: Sequence[Damage]) -> list[Damage]:
    """Return damage with the live backups that can't be restored whole for it.

    A backup is touched by a pack only if its page map still uses one of the lost
    frames; by a manifest or a key if it builds on that backup.
    """
    touched: list[list[str]] = [[] for _ in damage]
    for commit in repository.log.state.backups.values():
        for number in _needed(repository, commit, damage):
            touched[number].append(commit.backup.label)
    return [
        replace(one, backups=(*one.backups, *labels))
        for one, labels in zip(damage, touched, strict=True)
    ]


def _needed(
    repository: Repository, commit: Commit, damage: Sequence[Damage]
) -> Iterator[int]:
    """Yield the numbers of the damage that a backup needs undone."""
    chain = {one.backup.label for one in lineage(repository.log.state, commit)}
    mine = [
        number
        for number, one in enumerate(damage)
        if one.needed and one.backup in chain
    ]
    packs = {number: one.pack for number in mine if (one := damage[number]).pack}
    yield from (number for number in mine if number not in packs)
    if packs:
        yield from _packs_needed(repository, commit, packs)


def _packs_needed(
    repository: Repository, commit: Commit, packs: dict[int, PackPlace]
) -> Iterator[int]:
    try:
        page_map = read_chain(repository, commit)
    except (Corrupt, KeyUnavailable):
        yield from packs  # it can't be restored anyhow
        return
    layers = {one.head.attempt: number for number, one in enumerate(page_map.layers)}
    for number, pack in packs.items():
        lost = [range(first, last + 1) for first, last in pack.lost]
        frames = [frame for stretch in lost for frame in stretch]
        if page_map.pieces_in(layers[pack.attempt], frames).size:
            yield number
