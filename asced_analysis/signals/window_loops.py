"""Folds of moving windows, compiled by Numba: each value is taken twice, however wide the window.

Rows are cut into blocks as long as the window, so that every window is the end of one block and the
beginning of the next: sums from each row to the end of its block, and a sum that grows row by row
(van Herk 1992; Gil and Werman 1993). Nothing is subtracted, so that an infinity or a large number
is forgotten when it leaves the window. Import this module where it is used: Numba takes 0.1 s.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from asced_analysis.signals.loops import compiled

_TILE_BYTES = 1 << 17  # of one fold of a window: it stays in the second-level cache
_MOST, _LEAST = 2048, 32  # values of a row that are worked on together

SUM, SQUARES, SMALLEST, LARGEST, COUNT = range(5)
"""What rows are folded by."""


@compiled
def _neutral(fold: int) -> float:
    """What changes nothing."""
    if fold == SMALLEST:
        return np.inf
    if fold == LARGEST:
        return -np.inf
    return 0.0


@compiled
def _take(
    fold: int, row: npt.NDArray[Any], before: npt.NDArray[np.float64], out: npt.NDArray[np.float64]
) -> None:
    """Fold a row into what was folded before; NaN changes nothing."""
    if fold == SUM:
        for at in range(row.size):
            value = np.float64(row[at])
            out[at] = before[at] + (value if value == value else 0.0)
    elif fold == SQUARES:
        for at in range(row.size):
            value = np.float64(row[at])
            out[at] = before[at] + (value * value if value == value else 0.0)
    elif fold == SMALLEST:
        for at in range(row.size):
            value = np.float64(row[at])
            out[at] = value if value < before[at] else before[at]
    elif fold == LARGEST:
        for at in range(row.size):
            value = np.float64(row[at])
            out[at] = value if value > before[at] else before[at]
    else:
        for at in range(row.size):
            out[at] = before[at] + (1.0 if row[at] == row[at] else 0.0)


@compiled
def _join(fold: int, one: npt.NDArray[np.float64], two: npt.NDArray[np.float64], out: Any) -> None:
    """Fold two folds."""
    if fold == SMALLEST:
        for at in range(out.size):
            out[at] = one[at] if one[at] < two[at] else two[at]
    elif fold == LARGEST:
        for at in range(out.size):
            out[at] = one[at] if one[at] > two[at] else two[at]
    else:
        for at in range(out.size):
            out[at] = one[at] + two[at]


@compiled
def fold_windows(
    values: npt.NDArray[Any], fold: int, first: int, length: int, out: npt.NDArray[Any]
) -> None:
    """Fold of the rows ``first + r`` to ``first + r + length - 1`` for each row r of the result.

    Parameters
    ----------
    values : numpy.ndarray, shape (row, value), float32 or float64
        Rows before the first and after the last count as NaN.
    fold : {SUM, SQUARES, SMALLEST, LARGEST, COUNT}
        NaN is left out. In float64.
    first : int
        Where the first window begins; below zero it begins before the rows.
    length : int
        Rows of a window.
    out : numpy.ndarray, shape (result, value), float32 or float64
    """
    rows, size = values.shape
    tile = max(_LEAST, min(_MOST, _TILE_BYTES // (8 * length)))
    ends = np.empty((length + 1, min(tile, size)))
    grown = np.empty(min(tile, size))
    for start in range(0, size, tile):
        stop = min(size, start + tile)
        width = stop - start
        begun = grown[:width]
        ends[length, :width] = _neutral(fold)
        for block in range(0, len(out), length):
            for place in range(length - 1, -1, -1):
                row = first + block + place
                if 0 <= row < rows:
                    _take(
                        fold, values[row, start:stop], ends[place + 1, :width], ends[place, :width]
                    )
                else:
                    ends[place, :width] = ends[place + 1, :width]
            begun[:] = _neutral(fold)
            for place in range(min(length, len(out) - block)):
                row = first + block + length + place - 1
                if place and 0 <= row < rows:
                    _take(fold, values[row, start:stop], begun, begun)
                _join(fold, ends[place, :width], begun, out[block + place, start:stop])
