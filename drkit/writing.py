"""Writing to files, in pieces that file systems take well."""

from __future__ import annotations

import os

TYPE_CHECKING = False  # without importing typing
if TYPE_CHECKING:
    from drkit.protocols import Buffer

# Longer writes make the page cache use folios as large: ext4 of Linux 6.18 took writes
# of 2 MiB at a third of the speed of these (0.45 against 1.4 GB/s).
_PIECE = 256 << 10


def write_all(descriptor: int, data: Buffer) -> None:
    """Write all of `data` where the file stands."""
    view = memoryview(data).cast("B")
    while view:
        view = view[os.write(descriptor, view[:_PIECE]) :]


def write_all_at(descriptor: int, data: Buffer, position: int) -> None:
    """Write all of `data` from `position` on."""
    view = memoryview(data).cast("B")
    while view:
        count = os.pwrite(descriptor, view[:_PIECE], position)
        position, view = position + count, view[count:]
