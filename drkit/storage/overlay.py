"""A store as it would be after a loss: for drills, which must not cause one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drkit.errors import ObjectNotFound, StorageError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from drkit.model.objects import ObjectInfo
    from drkit.protocols import Buffer, Storage

_FLIPPED = 0x20  # one bit, as a disk or a memory loses it


class OverlayStorage:
    """Another store, in which some objects are gone and some have a wrong byte.

    It can only be read. The store below is never written to, and anybody else who reads
    it sees it whole.

    Args:
        hidden: names of objects that are not there.
        damaged: names of objects in whose middle a bit is wrong.
    """

    def __init__(
        self,
        inner: Storage,
        hidden: Collection[str] = (),
        damaged: Collection[str] = (),
    ) -> None:
        self._inner = inner
        self._hidden = frozenset(hidden)
        self._damaged = frozenset(damaged)

    @property
    def url(self) -> str:
        """The address of the store below."""
        return self._inner.url

    def put(self, name: str, data: Buffer) -> None:  # noqa: ARG002  the Protocol's
        """Refuse: a drill writes nothing to what it pretends to have lost."""
        raise self._refused(name)

    def delete(self, name: str) -> None:
        """Refuse, as `put` does."""
        raise self._refused(name)

    def get(
        self,
        name: str,
        offset: int = 0,
        length: int | None = None,
        *,
        limit: int | None = None,
    ) -> bytes:
        """Read an object as it would be after the loss."""
        self._find(name)
        data = self._inner.get(name, offset, length, limit=limit)
        if name not in self._damaged:
            return data
        place = self._inner.size(name) // 2 - offset
        if not 0 <= place < len(data):
            return data
        return data[:place] + bytes([data[place] ^ _FLIPPED]) + data[place + 1 :]

    def size(self, name: str) -> int:
        """Return an object's length; damage leaves it as it was."""
        self._find(name)
        return self._inner.size(name)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield what is left."""
        for info in self._inner.list(prefix):
            if info.name not in self._hidden:
                yield info

    def hidden(self, prefix: str) -> Sequence[str] | None:
        """Return what the store below hides; a loss that is played hides nothing."""
        return self._inner.hidden(prefix)

    def beneath(self, name: str, length: int) -> Sequence[bytes]:
        """Return what the store below hides of a name."""
        return self._inner.beneath(name, length)

    def _find(self, name: str) -> None:
        if name in self._hidden:
            raise ObjectNotFound(f"there is no object {name} in {self.url}")

    def _refused(self, name: str) -> StorageError:
        return StorageError(
            f"a drill may not write {name} to {self.url}",
            hint="this is a fault in drkit; please report it",
        )
