"""The exact median of values that are made piece by piece, in constant memory.

Bit patterns of float32 numbers, put in order, are counted by their upper half and then, where the
middle lies, by their lower half: two passes instead of a copy that is sorted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt

_KEYS = 1 << 16


def median_of(parts: Callable[[], Iterable[npt.NDArray[np.float32]]], size: int) -> np.float32:
    """`numpy.median` of all values together.

    Parameters
    ----------
    parts : callable
        Gives the values anew each time, so many at a time; none is NaN.
    size : int
        Number of values, at least one.
    """
    from asced_analysis.counts.loops import count_upper

    upper = np.zeros(_KEYS, np.int64)
    for part in parts():
        count_upper(part.view(np.uint32), upper)
    below = np.cumsum(upper)
    ranks = (size - 1) // 2, size // 2
    holding = [int(np.searchsorted(below, rank, side="right")) for rank in ranks]
    lower = _lower(parts, sorted(set(holding)))
    found = []
    for rank, high in zip(ranks, holding, strict=True):
        rest = rank - (int(below[high - 1]) if high else 0)
        low = int(np.searchsorted(np.cumsum(lower[high]), rest, side="right"))
        found.append(high << 16 | low)
    keys = np.array(found, np.uint32)
    bits = np.where(keys >> 31, keys ^ np.uint32(1 << 31), ~keys)
    middle: np.float32 = bits.astype(np.uint32).view(np.float32).mean()
    return middle


def deviation_of(
    parts: Callable[[], Iterable[npt.NDArray[np.float32]]], size: int, centre: np.float32
) -> np.float32:
    """Median absolute deviation of all values from a centre.

    Parameters
    ----------
    parts, size
        As in `median_of`.
    centre : float32
        Their median, or zero.
    """
    return median_of(lambda: (np.abs(part - centre) for part in parts()), size)


def _lower(
    parts: Callable[[], Iterable[npt.NDArray[np.float32]]], holding: list[int]
) -> dict[int, npt.NDArray[np.int64]]:
    """Counts of the lower halves of patterns with these upper halves."""
    from asced_analysis.counts.loops import count_lower

    tables = {high: np.zeros(_KEYS, np.int64) for high in holding}
    for part in parts():
        for high, table in tables.items():
            count_lower(part.view(np.uint32), np.uint32(high), table)
    return tables
