"""Deleting objects: an expired backup's, and archived WAL.

A listing may lack objects, and what it lacks would be left over for ever: numbered
objects are looked for by their names as well. They are deleted from the highest number
down, so that those that an interrupted run has left can be found from the first one up.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from drkit import workers
from drkit.errors import ObjectNotFound, Retained
from drkit.model.log import AttemptState

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from drkit.model.log import Begin
    from drkit.protocols import Storage
    from drkit.repository.repository import Repository

    KeyName = tuple[str, str]  # purpose and id in hex

_AT_ONCE = 8


def delete_backup(
    repository: Repository, begin: Begin, needed: Collection[KeyName]
) -> int:
    """Delete all that an expired backup has stored; return how many objects.

    Can be repeated after any interruption.

    Args:
        needed: keys that must stay, whatever the backup's `begin` says.

    Raises:
        Retained: the store keeps an object; the keys, which come last, are still there.
    """
    storage, layout = repository.storage, repository.layout
    where = (begin.label, begin.attempt)
    storage.delete(layout.manifest(*where))
    fingerprint = layout.fingerprint(*where)
    taken = _is_there(storage, fingerprint)
    if taken:
        storage.delete(fingerprint)
    prefix = f"{layout.backup(*where)}packs/"
    packs = _numbered(
        storage, prefix, lambda number: layout.pack(*where, number), 0, _AT_ONCE
    )
    _delete_in_order(storage, packs[::-1])
    keys = [key for key in begin.keys if key not in needed]
    return 1 + taken + len(packs) + sum(_delete_key(repository, *key) for key in keys)


def needed_keys(repository: Repository) -> set[KeyName]:
    """Return the keys that live backups, running attempts and the log need."""
    state = repository.log.state
    live = {commit.attempt for commit in state.backups.values()}
    needed = {("catalog", key.hex()) for key in repository.log.key_ids}
    for name, attempt in state.attempts.items():
        if name in live or attempt.state is AttemptState.RUNNING:
            needed |= set(attempt.begin.keys)
    return needed


def delete_all(storage: Storage, names: Sequence[str]) -> list[str]:
    """Delete objects, several at a time; return those that the store keeps."""
    tasks = [
        _deleter(storage, names[first::_AT_ONCE])
        for first in range(min(_AT_ONCE, len(names)))
    ]
    return list(itertools.chain.from_iterable(workers.run(tasks)))


def _delete_in_order(storage: Storage, names: Sequence[str]) -> None:
    """Delete objects one handful behind the other.

    Raises:
        Retained: the store keeps one; what comes behind its handful is not touched.
    """
    for start in range(0, len(names), _AT_ONCE):
        retained = delete_all(storage, names[start : start + _AT_ONCE])
        if retained:
            raise Retained(f"the store keeps object {retained[0]}")


def _deleter(
    storage: Storage, names: Iterable[str]
) -> Callable[[workers.Stop], list[str]]:
    def delete(stop: workers.Stop) -> list[str]:
        retained = []
        for name in names:
            if stop.is_set():
                break
            try:
                storage.delete(name)
            except Retained:
                retained.append(name)
        return retained

    return delete


def _numbered(
    storage: Storage, prefix: str, name_of: Callable[[int], str], first: int, gap: int
) -> list[str]:
    """Return names of numbered objects, in order; some of them may not be there.

    Args:
        gap: how many may be missing before the next one.
    """
    listed = [info.name.removeprefix(prefix) for info in storage.list(prefix)]
    numbers = [int(number) for number in listed if number.isdecimal()]
    end = looked = max(numbers, default=first - 1) + 1
    while looked < end + gap:
        if _is_there(storage, name_of(looked)):
            end = looked + 1
        looked += 1
    return [name_of(number) for number in range(first, end)]


def _is_there(storage: Storage, name: str) -> bool:
    try:
        storage.size(name)
    except ObjectNotFound:
        return False
    return True


def _delete_key(repository: Repository, purpose: str, key_id: str) -> int:
    """Delete every generation of a wrapped DEK; return how many."""
    layout, key = repository.layout, bytes.fromhex(key_id)
    names = _numbered(
        repository.storage,
        layout.dek(purpose, key),
        lambda number: layout.dek_generation(purpose, key, number),
        1,
        1,
    )
    for name in reversed(names):
        repository.storage.delete(name)
    return len(names)
