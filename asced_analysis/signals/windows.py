"""Moving windows over what is derived of runs: `xarray.DataArray.rolling`, as fast as it is read.

xarray lays a window's values beside each other and sums those, twice: 640 runs of 4x64x64 took it
2 s of processor time, 19 times what reading them takes. It asks no array how to do better, and a
DataArray of another class is unequal to any in `xarray.testing`. So its methods are replaced, once,
by ones that look at the array first; of all but ours they do what they did.
"""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import dask.array
import numpy as np
import numpy.typing as npt
import xarray as xr
from xarray.computation.rolling import DataArrayRolling

from asced_stores.format.memory import empty
from asced_stores.reading.selectable import SelectableArray

Floats: TypeAlias = npt.NDArray[np.floating[Any]]


NAMES = ("mean", "sum", "var", "std", "min", "max")
"""Methods of `xarray.DataArray.rolling` that take one pass."""


@dataclass(frozen=True)
class Window:
    """What is asked of the values around each value along an axis.

    Attributes
    ----------
    before : int
        How many values of the window come before it.
    length : int
        Values of a window, this one included.
    least : int
        As many must there be for a result; elsewhere it is NaN. At least 1.
    what : {"mean", "sum", "var", "std", "min", "max"}
        Of those that are not NaN.
    """

    before: int
    length: int
    least: int
    what: str


def over_windows(data: Any, axis: int, window: Window) -> dask.array.Array:
    """Windows along one axis of a lazy array, lazily.

    Parameters
    ----------
    data : dask.array.Array, float32 or float64
        A block of the result is made of as many values along the axis as one of its blocks has,
        or of four windows and more.
    axis : int
    window : Window

    Returns
    -------
    dask.array.Array
        Of the same shape and type.
    """
    size, each = data.shape[axis], max(data.chunks[axis])
    shared = window.length - 1  # with the block before
    own = each - shared if each > 4 * shared else 4 * window.length
    edges = [0, size] if each == size else [*range(0, size, own), size]
    parts = []
    fold: Any = _of_block
    for start, stop in itertools.pairwise(edges):
        low = max(0, start - window.before)
        high = min(size, stop - window.before + window.length - 1)
        block = data[(slice(None),) * axis + (slice(low, high),)].rechunk({axis: -1})
        lengths = (*block.chunks[:axis], (stop - start,), *block.chunks[axis + 1 :])
        own = (axis, start - low, stop - start, window)
        parts.append(block.map_blocks(fold, *own, chunks=lengths, dtype=data.dtype))
    joined: dask.array.Array = dask.array.concatenate(parts, axis)  # type: ignore[no-untyped-call]
    return joined


def _of_block(values: Floats, axis: int, skip: int, rows: int, window: Window) -> Floats:
    """Windows of a block, whose first rows and last are those of its neighbours."""
    shape = (math.prod(values.shape[:axis]), values.shape[axis], -1)
    out = empty((*values.shape[:axis], rows, *values.shape[axis + 1 :]), values.dtype)
    if out.size:
        flat = np.ascontiguousarray(values).reshape(shape)
        for one, target in zip(flat, out.reshape(len(flat), rows, -1), strict=True):
            _fill(one, skip - window.before, window, target)
    return out


def _fill(values: Floats, first: int, window: Window, out: Floats) -> None:
    """Windows of rows, of which the first begins at a row (below zero: before all)."""
    from asced_analysis.signals import window_loops as loops

    def folded(kind: int, out: Floats) -> Floats:
        loops.fold_windows(values, kind, first, window.length, out)
        return out

    if np.isnan(values.sum()):
        count = folded(loops.COUNT, np.empty(out.shape))
    else:  # quicker to see than to count
        begin = first + np.arange(len(out))[:, None]
        count = np.minimum(begin + window.length, len(values)) - np.maximum(begin, 0.0)
    if window.what in ("min", "max"):
        folded(loops.SMALLEST if window.what == "min" else loops.LARGEST, out)
    elif window.what in ("mean", "sum"):
        folded(loops.SUM, out)
        if window.what == "mean":
            np.divide(out, count, out=out, where=count > 0, casting="same_kind")
    else:
        mean, squares = (folded(kind, np.empty(out.shape)) for kind in (loops.SUM, loops.SQUARES))
        known = np.maximum(count, 1.0)
        mean /= known
        variance = np.maximum(squares / known - mean * mean, 0.0)
        out[...] = variance if window.what == "var" else np.sqrt(variance)
    if (count < window.least).any():
        np.copyto(out, np.nan, where=count < window.least)


def _is_ours(array: xr.DataArray) -> bool:
    """Whether it is read from a store, or follows from what is, and lazy."""
    return isinstance(array.data, SelectableArray) and array.dtype in (np.float32, np.float64)


def _looking_first(name: str) -> Any:
    """A method of moving windows that takes one pass over our arrays."""
    plain: Any = getattr(DataArrayRolling, name)

    @functools.wraps(plain)
    def method(self: Any, keep_attrs: bool | None = None, **options: Any) -> xr.DataArray:
        if options or len(self.dim) != 1 or not _is_ours(self.obj):
            result: xr.DataArray = plain(self, keep_attrs=keep_attrs, **options)
            return result
        length, axis = self.window[0], self.obj.get_axis_num(self.dim[0])
        before = length // 2 if self.center[0] else length - 1
        window = Window(before, length, self.min_periods, name)
        result = self.obj.copy(data=over_windows(self.obj.data, axis, window))
        return result if self._get_keep_attrs(keep_attrs) else result.drop_attrs(deep=False)

    method.of_signals = True  # type: ignore[attr-defined]
    return method


for _name in NAMES:
    if not hasattr(getattr(DataArrayRolling, _name), "of_signals"):
        setattr(DataArrayRolling, _name, _looking_first(_name))
