"""Loops over single values, compiled by Numba: differencing and counting.

A line of values goes through all of it while it stays in the first-level cache, without Python's
lock: 0.9 ns a difference, where NumPy's ufuncs and `add.at` needed 2.8. Import this module where
it is used: Numba takes 0.1 s. The loops are compiled once a machine (three seconds), then kept
beside this file or in the user's cache folder.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from asced_analysis.counts.bit_patterns import BLOCK
from asced_analysis.signals.loops import compiled, widen

_BLOCK_BITS = np.uint32(BLOCK.bit_length() - 1)
_TILE = 1 << 13  # values of a step that are counted before the next step's
_LINE = 1024  # values at a time: three lines of float32 and the part of a table that they hit


@compiled
def add_patterns(
    patterns: npt.NDArray[Any], mask: Any, shift: Any, table: npt.NDArray[np.int32], row: int
) -> None:
    """Count bit patterns by the key ``(pattern & mask) >> shift``.

    Places are found for a line before any is added to: of both loops, the first is done sixteen
    values at a time (0.35 ns a value instead of 0.75).

    Parameters
    ----------
    patterns : numpy.ndarray, shape (value,), uint16 or uint32
    mask, shift : numpy scalars of the same type
    table : numpy.ndarray, shape (block, row, BLOCK), int32
        Added to: key by key in blocks, those of all rows side by side.
    row : int
        Which row.
    """
    counts = table.reshape(-1)[row * BLOCK :]
    gap = np.uint32((table.shape[1] - 1) * BLOCK)
    places = np.empty(_LINE, np.uint32)
    for start in range(0, patterns.size, _LINE):
        line = patterns[start : start + _LINE]
        for at in range(line.size):
            key = np.uint32((line[at] & mask) >> shift)
            places[at] = key + (key >> _BLOCK_BITS) * gap
        for at in range(line.size):
            counts[places[at]] += np.int32(1)


@compiled
def count_upper(patterns: npt.NDArray[np.uint32], table: npt.NDArray[np.int64]) -> None:
    """Count float32 patterns by the upper half of their place in order.

    Parameters
    ----------
    patterns : numpy.ndarray, shape (value,), uint32
    table : numpy.ndarray, shape (65536,), int64
        Added to.
    """
    for at in range(patterns.size):
        bits = patterns[at]
        key = ~bits if bits >> np.uint32(31) else bits | np.uint32(1 << 31)
        table[key >> np.uint32(16)] += 1


@compiled
def count_lower(
    patterns: npt.NDArray[np.uint32], upper: np.uint32, table: npt.NDArray[np.int64]
) -> None:
    """Count the lower halves of those patterns whose upper half is given.

    Parameters
    ----------
    patterns : numpy.ndarray, shape (value,), uint32
    upper : numpy.uint32
    table : numpy.ndarray, shape (65536,), int64
        Added to.
    """
    for at in range(patterns.size):
        bits = patterns[at]
        key = ~bits if bits >> np.uint32(31) else bits | np.uint32(1 << 31)
        if key >> np.uint32(16) == upper:
            table[key & np.uint32(0xFFFF)] += 1


@compiled
def count_steps(
    data: npt.NDArray[Any],
    half: bool,
    runs: npt.NDArray[np.int64],
    first: int,
    before: npt.NDArray[np.float32],
    after: npt.NDArray[np.float32],
    lag: int,
    mask: Any,
    shift: Any,
    table: npt.NDArray[np.int32],
) -> None:
    """Count ``after_k * (before_k * v_k - before_{k-1} * v_{k-1})``, or with no lag ``before * v``.

    Step by step for some runs together, so that the counts of a step stay in the second-level
    cache for 8,192 values: run by run, those of all steps (2 MB) went through it.

    Parameters
    ----------
    data : numpy.ndarray, shape (run, step, frame, channel, pixel), int16 or int32, C-contiguous
        Patterns of fp16 or float32 numbers v.
    half : bool
        Which of them.
    runs : numpy.ndarray of int64
        Which runs to count.
    first : int
        Step that the factors begin with.
    before, after : numpy.ndarray, shape (step,), float32
    lag : {0, 1}
    mask, shift : numpy.uint32
        A key is ``(pattern & mask) >> shift``.
    table : numpy.ndarray, shape (block, row, BLOCK), int32
        Added to, as in `add_patterns`; row ``step * channels + channel``, `lag` steps fewer.
    """
    _, steps, frames, channels, pixels = data.shape
    lines = data.reshape(len(data), steps, frames * channels, pixels)
    length = min(pixels, _TILE)
    together = max(1, _TILE // length)
    now, last = np.empty((together, length), np.float32), np.empty((together, length), np.float32)
    for begin in range(0, runs.size, together):
        group = runs[begin : begin + together]
        for part in range(frames * channels):
            for start in range(0, pixels, length):
                size = min(length, pixels - start)
                for step in range(before.size):
                    now, last = last, now
                    row = (step - lag) * channels + part % channels
                    for place in range(group.size):
                        line = lines[group[place], first + step, part, start : start + size]
                        value, change = now[place], last[place]
                        if half:
                            widen(line, value)
                        else:
                            value.view(np.int32)[:size] = line
                        for at in range(size):
                            value[at] *= before[step]
                        if lag == 0:
                            add_patterns(value[:size].view(np.uint32), mask, shift, table, row)
                        elif step:
                            for at in range(size):
                                change[at] = (value[at] - change[at]) * after[step]
                            add_patterns(change[:size].view(np.uint32), mask, shift, table, row)


@compiled
def find_blocks(
    table: npt.NDArray[np.int32], order: npt.NDArray[np.int64], added: Any
) -> tuple[npt.NDArray[np.bool_], Any]:
    """Blocks of a table that hold counts, and the largest count.

    Parameters
    ----------
    table : numpy.ndarray, shape (block, row, BLOCK), int32
    order : numpy.ndarray of int64, shape (block,)
        In which to look at them, until all is found: of a table of 50 MB 6 are in use.
    added : int
        Sum of all counts.

    Returns
    -------
    numpy.ndarray of bool, shape (block,)
    int
    """
    used = np.zeros(len(table), np.bool_)
    most = np.int32(0)
    for block in order:
        if added == 0:
            break
        total = np.int64(0)
        for row in range(table.shape[1]):
            for key in range(BLOCK):
                count = table[block, row, key]
                total += count
                most = max(most, count)
        used[block] = total > 0
        added -= total
    return used, most
