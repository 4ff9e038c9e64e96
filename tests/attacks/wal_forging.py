"""WAL in which a row says something else, as PostgreSQL would have written it.

Sources: `src/include/access/xlogrecord.h` and `xlog_internal.h`.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from drkit.crypto.signing import parse_signing_key
from drkit.model.wal import WalFileName
from drkit.postgres.crc32c import crc32c
from drkit.repository.wal_signature import sign_wal
from tests.vectors.forge import Forger

if TYPE_CHECKING:
    from tests.protect import Protected

_PAGE, _HEADER, _CRC = 8192, 24, 20


def forge_rows(segment: bytes, old: bytes, new: bytes) -> bytes:
    """Replace a text of the same length in all records that lie within a page."""
    assert len(old) == len(new)
    found, forged, count = bytearray(segment), -1, 0
    while (forged := segment.find(old, forged + 1)) >= 0:
        start = _record_around(segment, forged)
        if start is not None:
            found[forged : forged + len(old)] = new
            end = start + _length(segment, start)
            found[start + _CRC : start + _HEADER] = _checksum(bytes(found[start:end]))
            count += 1
    assert count, "no record could be forged"
    return bytes(found)


def _record_around(segment: bytes, place: int) -> int | None:
    """Return where the record begins that holds a place, if it lies within a page."""
    page = place - place % _PAGE
    for start in range(place - place % 8, page, -8):
        end = start + _length(segment, start)
        if start + _HEADER <= place < end <= page + _PAGE:
            record = segment[start:end]
            if record[_CRC:_HEADER] == _checksum(record):
                return start
    return None


def _length(segment: bytes, start: int) -> int:
    return int.from_bytes(segment[start : start + 4], "little")


def _checksum(record: bytes) -> bytes:
    return struct.pack("<I", crc32c(record[:_CRC], crc32c(record[_HEADER:])))


class Intruder:
    """Has keys of a repository, and writes into its directory.

    Args:
        signs: he has the signing key of WAL as well, as a host that archives has.
    """

    def __init__(self, protected: Protected, *, signs: bool = False) -> None:
        self.protected = protected
        self.repository = protected.repository()
        self.signs = signs

    def forge(self, name: str, old: bytes, new: bytes) -> None:
        """Put a segment with other rows into the place of an archived one."""
        file = WalFileName.parse(name)
        honest = self.repository.wal.get(file)
        self.replace(file, forge_rows(honest, old, new))

    def replace(self, file: WalFileName, content: bytes) -> None:
        """Put another content into the place of an archived file."""
        stored = self.repository.wal.name(file)
        path = self.protected.repository_root / stored
        dek = self.repository.keyring.get("wal", path.read_bytes()[16:32])
        payloads = [
            (content[at : at + (1 << 20)], min(len(content) - at, 1 << 20), 0)
            for at in range(0, len(content), 1 << 20)
        ]
        if self.signs:
            key = self.protected.home / "keys/wal-signing.key"
            signer = parse_signing_key(key.read_text(), str(key))
            frame = sign_wal(signer, self.repository.lineage, stored, content)
            payloads.append((frame, len(frame), 0))
        forger = Forger(dek.secret, self.repository.lineage, "wal")
        version = 2 if self.signs else 1
        path.write_bytes(forger.seal(stored, payloads, version=version))
