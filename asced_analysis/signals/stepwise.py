"""Arrays that follow from a recorded one step by step, lazily, and read no more than is asked.

Dask computes a whole block before it takes a step out of it. Here a selection of steps, runs or
pixels is taken of the recorded array first: one step of the dynamics of 4x64x64 runs reads a fifth
of the file instead of all, and computes a 24th.
"""

from __future__ import annotations

import itertools
import math
from typing import Any, TypeAlias, cast

import dask.array
import numpy as np
import numpy.typing as npt

from asced_analysis.signals.means import mean_over_runs
from asced_stores.format.memory import empty

Factors: TypeAlias = npt.NDArray[np.float64]

BLOCK_BYTES = 16 * 2**20
"""Steps that share a block of a result: a mean or a window then works on it in the cache."""


def combine(
    data: Any, before: Factors, after: Factors, lag: int, axis: int, *, magnitudes: bool = False
) -> Any:
    """``after_k * (before_k * v_k - before_{k-1} * v_{k-1})``, or with no lag ``before_k * v_k``.

    Parameters
    ----------
    data : numpy.ndarray or dask.array.Array
        Values v, with steps along an axis.
    before, after : numpy.ndarray, shape (step,)
        Factors; those of `after` count with a lag only.
    lag : {0, 1}
    axis : int
        That of the steps.
    magnitudes : bool
        Of the absolute values.

    Returns
    -------
    numpy.ndarray or dask.array.Array, float32 or float64
        `lag` steps fewer; of a Dask array a `Stepwise`.
    """
    if not isinstance(data, dask.array.Array):
        return _block(np.asarray(data), before, after, lag, axis, magnitudes)
    steps = data.shape[axis] - lag
    dtype = np.dtype(np.float64 if data.dtype == np.float64 else np.float32)
    recorded = _merged(data, dtype.itemsize, axis)
    runs = [size for place, size in enumerate(recorded.chunksize) if place != axis]
    most = max(1, int(BLOCK_BYTES // max(1, dtype.itemsize * math.prod(runs))))
    cut = np.cumsum((0, *data.chunks[axis]))[1:-1]  # where the recorded array is cut already
    edges = sorted({0, steps, *range(0, steps, most), *(int(at) for at in cut if at < steps)})
    parts = []
    for first, last in itertools.pairwise(edges):
        own = slice(first, last + lag)
        part = recorded[(slice(None),) * axis + (own,)].rechunk({axis: -1})
        chunks = (*part.chunks[:axis], (last - first,), *part.chunks[axis + 1 :])
        parts.append(
            part.map_blocks(
                _block,
                before[own],
                after[own],
                lag,
                axis,
                magnitudes,
                dtype=dtype,
                chunks=chunks,
                meta=np.empty((0,) * data.ndim, dtype),
            )
        )
    joined = dask.array.concatenate(parts, axis=axis)  # type: ignore[no-untyped-call]
    result = Stepwise(joined.dask, joined.name, joined.chunks, meta=joined._meta)  # type: ignore[no-untyped-call]
    result.formula = (data, before, after, lag, axis, magnitudes)
    return result


def _merged(data: dask.array.Array, itemsize: int, axis: int) -> dask.array.Array:
    """Neighbouring runs in one block, where a few steps of many runs are looked at."""
    if axis == 0 or len(data.chunks[0]) < 2:
        return data
    one = max(1, itemsize * math.prod(data.chunksize[1:]))
    groups: list[int] = []
    for size in data.chunks[0]:
        if groups and one * (groups[-1] + size) <= BLOCK_BYTES:
            groups[-1] += size
        else:
            groups.append(size)
    merge: Any = data.rechunk
    merged: dask.array.Array = merge({0: tuple(groups)})
    return merged


class Stepwise(dask.array.Array):
    """What `combine` makes of a Dask array: selections are taken of that array first.

    Whatever else is done with it gives a plain Dask array.
    """

    formula: tuple[dask.array.Array, Factors, Factors, int, int, bool]

    def __getitem__(self, index: Any) -> dask.array.Array:
        """A selection; slices are taken of what is recorded, all else of what follows from it."""
        data, before, after, lag, axis, magnitudes = self.formula
        keys = index if isinstance(index, tuple) else (index,)
        if any(key is None or key is Ellipsis or isinstance(key, str) for key in keys):
            return _select(self, index)
        keys += (slice(None),) * (self.ndim - len(keys))
        chosen, rest = zip(*map(_split, keys, self.shape), strict=True)
        steps = chosen[axis]
        whole = [slice(0, size) for size in self.shape]
        if list(chosen) == whole or any(one.stop <= one.start for one in chosen):
            return _select(self, index)
        own = slice(steps.start, steps.stop + lag)
        recorded = data[(*chosen[:axis], own, *chosen[axis + 1 :])]
        result = combine(recorded, before[own], after[own], lag, axis, magnitudes=magnitudes)
        if all(isinstance(one, slice) and one == slice(None) for one in rest):
            return cast("dask.array.Array", result)
        return _select(result, rest)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        """NumPy's functions as Dask has them, but a mean over runs in one pass."""
        if func is np.nanmean and self.dtype == np.float32 and set(kwargs) <= {"axis", "dtype"}:
            axis = kwargs.get("axis")
            axes = tuple(np.sort(np.atleast_1d(np.arange(self.ndim) if axis is None else axis)))
            if len(args) == 1 and kwargs.get("dtype") is None and axes[:1] == (0,):
                return mean_over_runs(self, tuple(int(one) for one in axes))
        plain: Any = super().__array_function__
        return plain(func, types, args, kwargs)


def _select(array: Any, index: Any) -> dask.array.Array:
    """A selection as Dask makes it."""
    select: Any = dask.array.Array.__getitem__
    selected: dask.array.Array = select(array, index)
    return selected


def _split(key: Any, size: int) -> tuple[slice, Any]:
    """A range that holds what is asked for, and the rest of the selection."""
    if isinstance(key, slice) and key.step in (None, 1):
        start, stop, _ = key.indices(size)
        return slice(start, stop), slice(None)
    if isinstance(key, (int, np.integer)) and -size <= key < size:
        place = int(key) % size
        return slice(place, place + 1), 0
    return slice(0, size), key


def _block(
    values: npt.NDArray[Any],
    before: Factors,
    after: Factors,
    lag: int,
    axis: int,
    magnitudes: bool,
) -> npt.NDArray[Any]:
    """`combine` of one block; of float64 by NumPy."""
    values = np.abs(values) if magnitudes else values
    outer, inner = values.shape[:axis], values.shape[axis + 1 :]
    steps = values.shape[axis]
    if values.dtype not in (np.float16, np.float32):
        column = (-1, *(1,) * len(inner))
        scaled = values * before.reshape(column)
        return after.reshape(column)[1:] * np.diff(scaled, axis=axis) if lag else scaled
    from asced_analysis.signals.loops import combine_steps

    half = values.dtype == np.float16
    factors = before.astype(np.float32), after.astype(np.float32)
    out = empty((*outer, max(0, steps - lag), *inner), np.dtype(np.float32))
    for place in np.ndindex(*outer if out.size else (0,)):
        one = np.ascontiguousarray(values[place]).view(np.int16 if half else np.int32)
        target = out[place].reshape(steps - lag, -1)
        combine_steps(one.reshape(steps, -1), half, *factors, lag, target)
    return out
