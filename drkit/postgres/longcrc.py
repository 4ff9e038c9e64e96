"""CRC-32C of long data, in numpy: many stretches of it side by side.

A CRC without its first and last inversion is linear: the CRC of A followed by B is
that of A followed by as many zeros, xor that of B. So stretches of equal length are
taken at once, byte by byte, and then joined two by two.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from drkit.postgres.crc32c import TABLE, crc32c

if TYPE_CHECKING:
    import numpy.typing as npt

    Words = npt.NDArray[np.uint32]

_TABLE = np.array(TABLE, dtype=np.uint32)
_BITS = np.uint32(1) << np.arange(32, dtype=np.uint32)
_LANES = 1024  # a power of 2
_SHORT = 2048  # bytes that plain Python is faster for


def long_crc32c(data: bytes) -> int:
    """Return the checksum of `data`."""
    if len(data) < _SHORT:
        return crc32c(data)
    lanes, shift = _stretches(data)
    while len(lanes) > 1:
        lanes = _apply(shift, lanes[0::2]) ^ lanes[1::2]
        shift = _apply(shift, shift)
    return int(lanes[0]) ^ 0xFFFFFFFF


def _stretches(data: bytes) -> tuple[Words, Words]:
    """Return the CRC of each stretch, and what as many zeros do to each single bit."""
    steps = -(-len(data) // _LANES)
    columns = np.zeros(_LANES * steps, dtype=np.uint8)
    start = len(columns) - len(data)  # zeros in front leave a CRC of 0 as it is
    columns[start:] = np.frombuffer(data, dtype=np.uint8)
    columns[start : start + 4] ^= 0xFF  # the same as a CRC that begins with all ones
    rows = columns.reshape(_LANES, steps)
    state = np.concatenate((np.zeros(_LANES, dtype=np.uint32), _BITS))
    for step in range(steps):
        low = state.astype(np.uint8)
        low[:_LANES] ^= rows[:, step]
        state = _TABLE[low] ^ (state >> np.uint32(8))
    return state[:_LANES], state[_LANES:]


def _apply(operator: Words, values: Words) -> Words:
    """Return what an operator makes of values, given what it makes of single bits."""
    chosen = np.where(values[:, None] & _BITS, operator, np.uint32(0))
    result: Words = np.bitwise_xor.reduce(chosen, axis=1)
    return result
