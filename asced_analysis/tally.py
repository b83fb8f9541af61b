"""Counting values into a table of bit patterns, one row a group.

Counting costs 1.2 ns a value (`numpy.add.at` into rows that stay in the cache) where
`numpy.quantile` needs 35 and `numpy.median` 24.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from asced_analysis.bit_patterns import INFINITY, MAGNITUDE, SHIFT, SPAN, Kind
from asced_analysis.counts import Counts, neighbours
from asced_stores.errors import InputError
from asced_stores.memory import empty

_BLOCK = 1 << 10  # neighbouring keys that are kept or left out together
_BLOCKS_AT_ONCE = 16  # eight octaves: looked through together for what was counted
_ONE = np.int32(1)  # a Python 1 makes numpy.add.at fifty times slower on int32


class Tally:
    """Counts while blocks are read: one row of scratch memory a group, until `finish`.

    Not for sharing between threads. `add` is best called with tiles that fit the cache, and at
    most 2**31 times a pattern before `finish`.

    Parameters
    ----------
    groups : int
        Number of rows.
    kind : {"half", "single"}
        What the values are.
    signed : bool, optional
        Whether negative values are told from positive ones; otherwise magnitudes are counted.
    """

    def __init__(self, groups: int, kind: Kind = "single", *, signed: bool = False) -> None:
        self._kind: Kind = kind
        self._sides = 2 if signed else 1
        self._groups = groups
        self._scratch: npt.NDArray[np.int32] | None = None
        self._added = np.zeros(groups, np.int64)
        self._keys = np.empty(0, np.intp)
        self._magnitudes: npt.NDArray[Any] = np.empty(0, np.uint32)

    def add(self, group: int, values: npt.NDArray[np.floating[Any]]) -> None:
        """Count values (float16 for ``"half"``, float32 for ``"single"``) into one group.

        Parameters
        ----------
        group : int
            Row.
        values : numpy.ndarray of any shape
            C-contiguous.
        """
        width: Any = np.uint16 if self._kind == "half" else np.uint32
        pattern: npt.NDArray[Any] = values.reshape(-1).view(width)
        if self._keys.size < pattern.size:  # kept: fresh pages would cost 0.5 ns a value
            self._keys = np.empty(pattern.size, np.intp)
            self._magnitudes = np.empty(pattern.size, width)
        keys, magnitudes = self._keys[: pattern.size], self._magnitudes[: pattern.size]
        if self._sides == 1:
            pattern = np.bitwise_and(pattern, MAGNITUDE[self._kind], out=magnitudes)
        np.right_shift(pattern, SHIFT[self._kind], out=keys, casting="unsafe")
        if self._scratch is None:  # fresh: the system gives zeros, and only what is touched
            self._scratch = np.zeros((self._groups, self._sides * SPAN[self._kind]), np.int32)
        np.add.at(self._scratch[group], keys, _ONE)
        self._added[group] += pattern.size

    def finish(self) -> Counts:
        """The counts so far; the tally is empty afterwards."""
        groups = self._groups
        if self._scratch is None:
            return Counts.empty(self._kind, (groups,))
        blocks = self._scratch.reshape(groups, self._sides, -1, _BLOCK)
        touched = self._touched(blocks)
        special = INFINITY[self._kind] // _BLOCK  # infinity is the first key of its block
        infinite = blocks[:, :, special, 0].sum(axis=1, dtype=np.int64)
        nan = blocks[:, :, special:].sum(axis=(1, 2, 3), dtype=np.int64) - infinite
        used = touched[touched < special]
        keys = (used[:, np.newaxis] * _BLOCK + np.arange(_BLOCK)).reshape(-1)
        table = empty((groups, self._sides, used.size, _BLOCK), self._scratch.dtype)
        for own, place in neighbours(used):
            table[:, :, own] = blocks[:, :, place]
        table = table.reshape(groups, self._sides, -1)
        self._scratch = None
        self._added[:] = 0
        if self._sides == 1:
            return Counts(self._kind, keys, table[:, 0], nan, infinite)
        if used.size and keys[0] == 0:  # both zeros are one
            table[:, 0, 0] += table[:, 1, 0]
            table[:, 1, 0] = 0
        mirrored = np.concatenate([table[:, 1, ::-1], table[:, 0]], axis=-1)
        both = np.concatenate([-keys[::-1], keys])
        keep = np.ones(both.size, bool)
        keep[: keys.size][-1:] = keys[:1] != 0
        return Counts(self._kind, both[keep], mirrored[:, keep], nan, infinite)

    def _touched(self, blocks: npt.NDArray[np.int32]) -> npt.NDArray[np.intp]:
        """Blocks with counts in them, sorted.

        Only so much of the table is looked at until everything that was added is found: noting
        the range of each tile as it is counted would cost 0.2 ns a value, a search of the whole
        table 10 ms a task.
        """
        missing = self._added.copy()
        found: list[npt.NDArray[np.intp]] = []
        for first, last in _search(blocks.shape[2], INFINITY[self._kind] // _BLOCK):
            if not missing.any():
                break
            sums = blocks[:, :, first:last].sum(axis=(1, 3), dtype=np.int64)
            missing -= sums.sum(axis=1)
            found.append(first + np.flatnonzero(sums.any(axis=0)))
        return np.sort(np.concatenate(found)) if found else np.empty(0, np.intp)


def count(
    values: npt.NDArray[np.floating[Any]], kind: Kind = "single", *, signed: bool = False
) -> Counts:
    """Counts of an array, one group an entry of the leading axis.

    Parameters
    ----------
    values : numpy.ndarray, shape (group, ...)
        Cast to float16 or float32 by kind; ``"half"`` refuses wider numbers.
    kind : {"half", "single"}
        Exact counts of fp16 numbers, or bins of float32 numbers.
    signed : bool, optional
        Whether negative values are told from positive ones; magnitudes otherwise.

    Returns
    -------
    Counts
        With ``groups == (group,)``.

    Raises
    ------
    InputError
        When ``"half"`` is asked for numbers that are not float16.
    """
    if kind == "half" and values.dtype != np.float16:
        raise InputError(f"exact counts need float16 numbers, found {values.dtype}; use 'single'")
    tally = Tally(values.shape[0], kind, signed=signed)
    wanted = np.float16 if kind == "half" else np.float32
    for group, entry in enumerate(values):
        tally.add(group, np.ascontiguousarray(entry, dtype=wanted))
    return tally.finish()


def _search(blocks: int, special: int) -> Iterator[tuple[int, int]]:
    """Ranges of blocks in the order of how likely they hold counts.

    Zero; from a little above one down; what is not finite; what is larger.
    """
    yield 0, 1
    middle = min(special, blocks // 2 + _BLOCKS_AT_ONCE)
    for last in range(middle, 1, -_BLOCKS_AT_ONCE):
        yield max(1, last - _BLOCKS_AT_ONCE), last
    yield special, blocks
    for first in range(middle, special, _BLOCKS_AT_ONCE):
        yield first, min(special, first + _BLOCKS_AT_ONCE)
