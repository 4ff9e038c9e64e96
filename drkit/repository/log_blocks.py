"""Blocks of the log: copies of the entries at 256 names, so that it reads quickly.

They are a cache. A reader believes a block only where its entries, by their digests,
lead from the head that it has to the entry that ends the block, which it reads and
verifies by itself; else it reads the entries one by one.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from drkit.errors import DrkitError
from drkit.repository import limits
from drkit.repository.log_entries import EntryCopy
from drkit.repository.objects import Sealing, seal, unseal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from drkit.crypto.keys import Dek
    from drkit.protocols import Storage
    from drkit.repository.keyring import Keyring
    from drkit.repository.layout import Layout

ENTRIES = 256
_HEAD = struct.Struct("<I16s")  # length of the plaintext, id of the entry's DEK


class LogBlocks:
    """The blocks of one cluster's log."""

    def __init__(
        self, storage: Storage, layout: Layout, lineage: bytes, keyring: Keyring
    ) -> None:
        self._storage = storage
        self._layout = layout
        self._lineage = lineage
        self._keyring = keyring

    def get(self, first: int) -> list[EntryCopy] | None:
        """Return the copies of the entries of a block; None if there is none.

        What can't be read counts as not there.
        """
        name = self._layout.log_block(first)
        find = self._keyring.finder("catalog")
        try:
            data = self._storage.get(name, limit=limits.sealed(limits.LOG_BLOCK))
            plain = unseal(find, self._lineage, name, "catalog", data, limits.LOG_BLOCK)
            copies = list(_split(plain))
        except (DrkitError, struct.error):
            return None
        return copies if 0 < len(copies) <= ENTRIES else None

    def put(self, first: int, copies: Sequence[EntryCopy], dek: Dek) -> None:
        """Store a block, if it can be; nothing depends on it."""
        name = self._layout.log_block(first)
        plain = b"".join(
            _HEAD.pack(len(copy.plain), copy.key_id) + copy.plain for copy in copies
        )
        if len(plain) > limits.LOG_BLOCK:
            return
        try:
            self._storage.put(name, seal(Sealing(dek, self._lineage, name), plain))
        except DrkitError:
            return


def _split(plain: bytes) -> Iterator[EntryCopy]:
    at = 0
    while at < len(plain):
        length, key_id = _HEAD.unpack_from(plain, at)
        start = at + _HEAD.size
        at = start + length
        yield EntryCopy(key_id, plain[start:at])
