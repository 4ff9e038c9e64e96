"""How long an object of each kind can be: a longer one is refused before it is read.

Whoever can write to the store can put anything under any name. The table is in
docs/repository-format.md, "Limits". On the path of `wal push`: imports nothing.
"""

from __future__ import annotations

MIB, GIB = 1 << 20, 1 << 30

# As they are stored, for they are not sealed.
IDENTITY = 64 << 10
WRAPPED_KEY = 64 << 10
WAL_DAY = 64
LEASE = 4 << 10
PROBE = 64

# What is in them, for they are sealed.
LOG_ENTRY = MIB
LOG_BLOCK = 16 * MIB
MANIFEST = GIB
FINGERPRINT = GIB
FINDINGS = 64 * MIB
EVIDENCE = 16 * MIB
WAL_SEGMENT = GIB  # unless the cluster's own size is known
WAL_TEXT = MIB  # of a `.backup` or `.history` file


def sealed(plain: int) -> int:
    """Return how long an object may be that holds `plain` bytes at most.

    Frames of 2 MiB cost 28 bytes each; that is left to who writes smaller ones.
    """
    return plain + plain // 256 + (4 << 10)
