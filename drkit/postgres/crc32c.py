"""CRC-32C (Castagnoli), PostgreSQL's checksum of WAL records and control files.

Reflected polynomial 0x82F63B78, as in RFC 3720 (iSCSI). In Python, for the few hundred
bytes of such structures; `longcrc` is for more. Pages have another checksum.
"""

from __future__ import annotations

_POLYNOMIAL = 0x82F63B78


def _entry(value: int) -> int:
    for _ in range(8):
        value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
    return value


TABLE = tuple(_entry(value) for value in range(256))
"""What each byte makes of a checksum of 0."""


def crc32c(data: bytes | bytearray | memoryview, crc: int = 0) -> int:
    """Return the checksum of `data`, or go on from the `crc` of what precedes it."""
    crc ^= 0xFFFFFFFF
    for byte in data:
        crc = TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF
