"""Counting values into a table of bit patterns, one row a group."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from asced_analysis.counts.bit_patterns import BLOCK, INFINITY, MAGNITUDE, SHIFT, SPAN, Kind
from asced_analysis.counts.histograms import Counts, neighbours
from asced_stores.errors import InputError
from asced_stores.format.memory import empty

_ABOVE_ONE = 16  # blocks: eight octaves
_EVERY_BIT: Mapping[str, Any] = {"half": np.uint16(0xFFFF), "single": np.uint32(0xFFFFFFFF)}


class Tally:
    """Counts while blocks are read: one row of scratch memory a group, until `finish`.

    Not for sharing between threads. A pattern may occur 2**31 times before `finish`.

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
        most = 2**32 // (SPAN[kind] * (2 if signed else 1))
        if groups > most:  # places in the table are counted in 32 bits
            raise InputError(
                f"{groups} groups of counts; at most {most} at once, so count in parts"
            )
        self._kind: Kind = kind
        self._sides = 2 if signed else 1
        self._groups = groups
        self._scratch: npt.NDArray[np.int32] | None = None
        self._added = 0
        self._mask = _EVERY_BIT[kind] if signed else MAGNITUDE[kind]

    def add(self, group: int, values: npt.NDArray[np.floating[Any]]) -> None:
        """Count values (float16 for ``"half"``, float32 for ``"single"``) into one group.

        Parameters
        ----------
        group : int
            Row.
        values : numpy.ndarray of any shape
            C-contiguous.
        """
        from asced_analysis.counts.loops import add_patterns

        patterns = values.reshape(-1).view(self._mask.dtype)
        add_patterns(patterns, self._mask, SHIFT[self._kind], self._table(), group)
        self._added += patterns.size

    def add_steps(
        self,
        data: npt.NDArray[np.floating[Any]],
        runs: npt.NDArray[np.intp],
        first: int,
        before: npt.NDArray[np.floating[Any]],
        after: npt.NDArray[np.floating[Any]],
        lag: int,
    ) -> None:
        """Count ``after_k * (before_k * v_k - before_{k-1} * v_{k-1})`` of each step in its group.

        Parameters
        ----------
        data : numpy.ndarray, shape (run, step, frame, channel, pixel)
            The numbers v, counted in float32.
        runs : numpy.ndarray of int, shape (run,)
            Which runs.
        first : int
            Step that the factors begin with.
        before, after : numpy.ndarray, shape (step,)
        lag : {0, 1}
            1 for differences; 0 for ``before_k * v_k``. Groups are ``(step - lag, channel)``.
        """
        from asced_analysis.counts.loops import count_steps

        half = data.dtype == np.float16
        numbers = np.ascontiguousarray(data, None if half else np.float32)
        count_steps(
            numbers.view(np.int16 if half else np.int32),
            half,
            runs,
            first,
            before.astype(np.float32),
            after.astype(np.float32),
            lag,
            self._mask,
            SHIFT[self._kind],
            self._table(),
        )
        self._added += (len(before) - lag) * len(runs) * math.prod(data.shape[2:])

    def _table(self) -> npt.NDArray[np.int32]:
        """Scratch memory, shape (block, group, key): the system gives zeros, once it is touched.

        Blocks of all groups lie side by side, so that some 6 MB are touched at the keys that
        occur; group by group it was a page of 2 MB a step, 2 ms for 24 steps.
        """
        if self._scratch is None:
            blocks = self._sides * SPAN[self._kind] // BLOCK
            self._scratch = np.zeros((blocks, self._groups, BLOCK), np.int32)
        return self._scratch

    def finish(self) -> Counts:
        """The counts so far, in as few bytes as hold them; the tally is empty afterwards."""
        from asced_analysis.counts.loops import find_blocks

        groups = self._groups
        if self._scratch is None:
            return Counts.empty(self._kind, (groups,))
        sides = np.arange(self._sides) * (SPAN[self._kind] // BLOCK)
        order = np.add.outer(_likeliest(self._kind), sides).reshape(-1)
        found, most = find_blocks(self._scratch, order, self._added)
        blocks = self._scratch.reshape(self._sides, -1, groups, BLOCK)
        touched = np.flatnonzero(found.reshape(self._sides, -1).any(axis=0))
        special = INFINITY[self._kind] // BLOCK  # infinity is the first key of its block
        infinite = blocks[:, special, :, 0].sum(axis=0, dtype=np.int64)
        nan = blocks[:, special:].sum(axis=(0, 1, 3), dtype=np.int64) - infinite
        used = touched[touched < special]
        keys = (used[:, np.newaxis] * BLOCK + np.arange(BLOCK)).reshape(-1)
        table = empty(
            (groups, self._sides, used.size, BLOCK), np.min_scalar_type(-1 - most * self._sides)
        )
        for own, place in neighbours(used):
            table[:, :, own] = blocks[:, place].transpose(2, 0, 1, 3)
        table = table.reshape(groups, self._sides, -1)
        self._scratch = None
        self._added = 0
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


@cache
def _likeliest(kind: Kind) -> npt.NDArray[np.int64]:
    """Blocks of one sign in the order of how likely they hold counts.

    Zero; from a little above one down; what is not finite; what is larger.
    """
    blocks, special = SPAN[kind] // BLOCK, INFINITY[kind] // BLOCK
    middle = min(special, blocks // 2 + _ABOVE_ONE)
    order = [[0], range(middle - 1, 0, -1), range(special, blocks), range(middle, special)]
    return np.concatenate(order).astype(np.int64)
