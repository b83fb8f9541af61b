"""Dask arrays that take a selection where they come from, however often they are cut.

Dask merges one selection into the reading of a file; of a selection of a selection, or of what was
computed, it works on whole blocks.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Self

import dask.array
import numpy as np


class _OneOfDask(type):
    """Makes a class equal to Dask's own, since xarray refuses to mix arrays of unequal classes."""

    def __eq__(cls, other: object) -> bool:
        return other is cls or isinstance(other, _OneOfDask) or other is dask.array.Array

    def __hash__(cls) -> int:
        return hash(dask.array.Array)


class SelectableArray(dask.array.Array, metaclass=_OneOfDask):
    """A Dask array whose rising rows and ranges along other axes are made anew.

    One place of an axis leaves such an array of fewer axes. Whatever else is done with it gives a
    plain Dask array, and it mixes with those.
    """

    part: Callable[[tuple[Any, ...]], dask.array.Array]

    @classmethod
    def of(cls, array: Any, part: Callable[[tuple[Any, ...]], dask.array.Array]) -> Self:
        """The same array with a function that makes a part of it.

        Parameters
        ----------
        array : dask.array.Array
        part : function of a tuple of selections, one an axis
            Those are ranges; along the first axis rising numbers are possible too.
        """
        made = cls(array.dask, array.name, array.chunks, meta=array._meta)
        made.part = part
        return made

    def __getitem__(self, index: Any) -> dask.array.Array:
        """A selection; what holds it is made alone, and the rest is taken of that."""
        keys = index if isinstance(index, tuple) else (index,)
        if any(key is None or key is Ellipsis or isinstance(key, str) for key in keys):
            return select(self, index)
        keys += (slice(None),) * (self.ndim - len(keys))
        chosen, rest = zip(*map(_split, keys, self.shape, range(self.ndim)), strict=True)
        sizes = [
            len(range(size)[one]) if isinstance(one, slice) else len(one)
            for one, size in zip(chosen, self.shape, strict=True)
        ]
        if 0 in sizes:
            return select(self, index)
        part = self if sizes == list(self.shape) else self.part(chosen)
        if all(isinstance(one, slice) and one == slice(None) for one in rest):
            return part
        taken = select(part, rest)
        if not isinstance(part, SelectableArray) or not all(map(_is_plain, rest)):
            return taken
        return SelectableArray.of(taken, functools.partial(_of_fewer_axes, part, rest, taken))

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        """NumPy's functions as Dask has them."""
        plain: Any = super().__array_function__
        return plain(
            func,
            {dask.array.Array if issubclass(one, SelectableArray) else one for one in types},
            args,
            kwargs,
        )


def select(array: dask.array.Array, index: Any) -> dask.array.Array:
    """A selection as Dask makes it.

    Parameters
    ----------
    array : dask.array.Array
    index
        As NumPy takes it.
    """
    plain: Any = dask.array.Array.__getitem__
    selected: dask.array.Array = plain(array, index)
    return selected


def _is_plain(key: Any) -> bool:
    """Whether an axis stays whole, or is dropped for its only place."""
    return isinstance(key, int) or (isinstance(key, slice) and key == slice(None))


def _of_fewer_axes(
    array: SelectableArray,
    dropped: tuple[Any, ...],
    taken: dask.array.Array,
    chosen: tuple[Any, ...],
) -> dask.array.Array:
    """A part of an array of which some axes were dropped.

    Scattered rows are taken of what was dropped already: they are those of groups, which share what
    is read.
    """
    if isinstance(chosen[0], np.ndarray):
        return select(taken, chosen)
    left = iter(chosen)
    return array[tuple(0 if isinstance(one, int) else next(left) for one in dropped)]


def _split(key: Any, size: int, axis: int) -> tuple[Any, Any]:
    """What holds all that is asked for, and what to take of it."""
    if isinstance(key, slice) and key.step in (None, 1):
        start, stop, _ = key.indices(size)
        return slice(start, stop), slice(None)
    if isinstance(key, (int, np.integer)) and -size <= key < size:
        place = int(key) % size
        return slice(place, place + 1), 0
    several = isinstance(key, slice) or (isinstance(key, (list, np.ndarray)) and np.ndim(key) < 2)
    if axis == 0 and several:
        rows = np.arange(size)[key if isinstance(key, slice) else np.asarray(key)]
        if (np.diff(rows) > 0).all():
            return rows, slice(None)
    return slice(0, size), key
