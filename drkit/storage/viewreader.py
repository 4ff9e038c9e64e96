"""A buffer as a readable file, without the copy that `io.BytesIO` makes of it."""

from __future__ import annotations

import io
import os

TYPE_CHECKING = False  # without importing typing
if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class ViewReader(io.RawIOBase):
    """Reads from a memoryview; an HTTP client may rewind it to hash and then send."""

    def __init__(self, view: memoryview) -> None:
        super().__init__()
        self._view = view
        self._at = 0

    def __len__(self) -> int:
        return len(self._view)

    def readable(self) -> bool:
        """Say yes."""
        return True

    def seekable(self) -> bool:
        """Say yes."""
        return True

    def tell(self) -> int:
        """Return where the next read begins."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to an offset from the start, from here or from the end."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: len(self._view)}
        self._at = max(0, base[whence] + offset)
        return self._at

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Copy the next bytes into `buffer`; return how many, 0 at the end."""
        target = memoryview(buffer).cast("B")
        part = self._view[self._at : self._at + len(target)]
        target[: len(part)] = part
        self._at += len(part)
        return len(part)
