"""CRC-32C of a file out of the CRC-32Cs of its pieces, so that no byte is read twice.

A shard carries a CRC-32C for every inner chunk. The commit marker carries one for the whole file;
by linearity it follows from those of the chunks: with ``Z_n`` the operator that appends ``n`` zero
bytes, ``crc(a + b) = Z_len(b)(crc(a)) ^ crc(b)``. A second pass would cost a sixth of the time of
writing (5 GB/s against 1.2 GB/s to disk).
"""

from __future__ import annotations

import functools
from typing import Any

from fastcrc.crc32 import iscsi

_POLYNOMIAL = 0x82F63B78
_Operator = tuple[int, ...]


def crc32c(data: Any) -> int:
    """CRC-32C (Castagnoli) of a contiguous buffer; other threads go on meanwhile."""
    return int(iscsi(data))


def extend(checksum: int, data: Any) -> int:
    """CRC-32C of what ``checksum`` covers, followed by ``data``."""
    return int(iscsi(data, checksum))


def combine(first: int, second: int, length: int) -> int:
    """CRC-32C of two pieces laid end to end.

    Parameters
    ----------
    first, second : int
        CRC-32C of either piece.
    length : int
        Length of the second piece, in bytes.
    """
    table = _tables(length)
    return (
        table[0][first & 255]
        ^ table[1][first >> 8 & 255]
        ^ table[2][first >> 16 & 255]
        ^ table[3][first >> 24]
        ^ second
    )


def _apply(operator: _Operator, vector: int) -> int:
    """Multiply a matrix over GF(2), given by columns, with a vector."""
    result = 0
    for column in operator:
        if vector & 1:
            result ^= column
        vector >>= 1
    return result


def _square(operator: _Operator) -> _Operator:
    return tuple(_apply(operator, column) for column in operator)


@functools.lru_cache(maxsize=64)
def _tables(length: int) -> tuple[tuple[int, ...], ...]:
    """Four tables of 256 entries that append ``length`` zero bytes to a checksum."""
    one_bit = (_POLYNOMIAL, *(1 << bit for bit in range(31)))
    power = _square(_square(_square(one_bit)))  # one byte
    columns: _Operator = tuple(1 << bit for bit in range(32))
    while length:
        if length & 1:
            columns = tuple(_apply(power, column) for column in columns)
        power = _square(power)
        length >>= 1
    return tuple(
        tuple(_apply(columns, value << shift) for value in range(256)) for shift in (0, 8, 16, 24)
    )
