"""The names of a cluster's superusers, read from its files.

The bootstrap superuser need not be called `postgres`, and whoever runs a restored copy
knows no name to connect with. Sources: `src/backend/utils/cache/relmapper.c`,
`src/include/catalog/pg_authid.h`, `storage/itemid.h` and `access/htup_details.h`.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

from drkit.errors import Corrupt
from drkit.model.page import PAGE
from drkit.postgres.files import read_regular

if TYPE_CHECKING:
    from collections.abc import Iterator

_PG_AUTHID = 1260
_BOOTSTRAP = 10
_MAP_MAGIC = 0x592717
_PAIR = struct.Struct("<II")
_ROLE = struct.Struct("<I64s?")  # oid, rolname, rolsuper
_LOWER = 12  # where a page's header says how far its line pointers go
_POINTERS = 24
_NORMAL = 1
_DATA_OFFSET = 22  # in a tuple's header


def superuser_names(data_directory: str) -> list[str]:
    """Return candidates, the bootstrap superuser's newest name first.

    Also names that a rename or DROP ROLE has ended: what is visible is not decided
    here, so a login has to show which one is right.

    Raises:
        Corrupt: the files are none of a PostgreSQL cluster.
    """
    path = os.path.join(data_directory, "global", str(_file_of_roles(data_directory)))
    found = list(_roles(read_regular(path)))
    found.reverse()  # newer versions of a row mostly lie behind older ones
    found.sort(key=lambda role: role[0] != _BOOTSTRAP)
    names = [name.rstrip(b"\0") for _, name, superuser in found if superuser]
    return [name.decode(errors="surrogateescape") for name in dict.fromkeys(names)]


def _file_of_roles(data_directory: str) -> int:
    path = os.path.join(data_directory, "global", "pg_filenode.map")
    data = read_regular(path)
    magic, count = _PAIR.unpack_from(data)
    if magic == _MAP_MAGIC and _PAIR.size * (count + 1) <= len(data):
        for number in range(count):
            oid, file = _PAIR.unpack_from(data, _PAIR.size * (number + 1))
            if oid == _PG_AUTHID:
                return int(file)
    raise Corrupt(f"{path} does not say where the roles are")


def _roles(data: bytes) -> Iterator[tuple[int, bytes, bool]]:
    """Yield oid, name and whether superuser of every version of every row."""
    for start in range(0, len(data) - PAGE + 1, PAGE):
        page = data[start : start + PAGE]
        lower = int.from_bytes(page[_LOWER : _LOWER + 2], "little")
        for at in range(_POINTERS, min(lower, PAGE) - 3, 4):
            pointer = int.from_bytes(page[at : at + 4], "little")
            offset, state = pointer & 0x7FFF, pointer >> 15 & 0x3
            if state == _NORMAL and offset + _DATA_OFFSET < PAGE:
                begin = offset + page[offset + _DATA_OFFSET]
                if begin + _ROLE.size <= PAGE:
                    yield _ROLE.unpack_from(page, begin)
