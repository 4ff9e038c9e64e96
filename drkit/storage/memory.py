"""Objects in memory: the reference for every other driver."""

from __future__ import annotations

import threading

from drkit.errors import ObjectExists, ObjectNotFound, StorageError
from drkit.model.objects import ObjectInfo
from drkit.storage.names import check_length, check_name, check_prefix, check_range

TYPE_CHECKING = False  # without importing typing
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from drkit.protocols import Buffer


class MemoryStorage:
    """Keeps objects for as long as the process lives; see `drkit.protocols.Storage`."""

    def __init__(self) -> None:
        self._objects: dict[str, bytes] = {}
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        """Say that nothing here outlives the process."""
        return "memory://"

    def put(self, name: str, data: Buffer) -> None:
        """Create `name`."""
        check_name(name)
        content = bytes(data)
        with self._lock:
            if name in self._objects:
                raise ObjectExists(f"object {name} exists already in {self.url}")
            self._objects[name] = content

    def get(
        self,
        name: str,
        offset: int = 0,
        length: int | None = None,
        *,
        limit: int | None = None,
    ) -> bytes:
        """Read a range."""
        check_range(name, offset, length)
        content = self._content(name)
        if length is None:
            check_length(name, self.url, len(content), limit)
        end = len(content) if length is None else offset + length
        if max(offset, end) > len(content):
            raise StorageError(
                f"object {name} has {len(content)} bytes; bytes {offset} to {end}"
                " were asked for"
            )
        return content[offset:end]

    def size(self, name: str) -> int:
        """Return the length in bytes."""
        return len(self._content(name))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield what is there now; later changes don't show."""
        check_prefix(prefix)
        with self._lock:
            found = [
                ObjectInfo(name, len(content))
                for name, content in self._objects.items()
                if name.startswith(prefix)
            ]
        return iter(sorted(found))

    def delete(self, name: str) -> None:
        """Remove `name` if it is there."""
        check_name(name)
        with self._lock:
            self._objects.pop(name, None)

    def hidden(self, prefix: str) -> Sequence[str]:
        """Hide nothing: what is deleted is gone."""
        check_prefix(prefix)
        return []

    def beneath(self, name: str, length: int) -> Sequence[bytes]:  # noqa: ARG002
        """Hide nothing."""
        check_name(name)
        return []

    def _content(self, name: str) -> bytes:
        check_name(name)
        with self._lock:
            content = self._objects.get(name)
        if content is None:
            raise ObjectNotFound(f"there is no object {name} in {self.url}")
        return content
