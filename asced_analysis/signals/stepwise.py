"""Arrays that follow from a recorded one step by step, lazily, and read no more than is asked.

Dask computes a whole block before it takes a step out of it. Here a selection of steps, runs or
pixels is taken of the recorded array first: one step of the dynamics of 4x64x64 runs reads a fifth
of the file instead of all, and computes a 24th.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any, TypeAlias, cast

import dask.array
import numpy as np
import numpy.typing as npt

from asced_stores.format.memory import empty
from asced_stores.reading.selectable import SelectableArray

Factors: TypeAlias = npt.NDArray[np.float64]
Formula: TypeAlias = tuple[Factors, Factors, int, int, bool]

BLOCK_BYTES = 16 * 2**20
"""Runs that share a block of a result: a window over runs then works on it in the cache."""


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
    formula = (before, after, lag, axis, magnitudes)
    make: Any = _block
    dtype = np.dtype(np.float64 if data.dtype == np.float64 else np.float32)
    blocks = [
        part.map_blocks(
            make,
            *own,
            dtype=dtype,
            chunks=(*part.chunks[:axis], (part.shape[axis] - lag,), *part.chunks[axis + 1 :]),
            meta=np.empty((0,) * data.ndim, dtype),
        )
        for part, own in _parts(_in_blocks(data, dtype.itemsize, axis), *formula)
    ]
    joined = dask.array.concatenate(blocks, axis=axis)  # type: ignore[no-untyped-call]

    def part(chosen: tuple[Any, ...]) -> dask.array.Array:
        own = slice(chosen[axis].start, chosen[axis].stop + lag)
        recorded = data[(*chosen[:axis], own, *chosen[axis + 1 :])]
        return cast(
            "dask.array.Array",
            combine(recorded, before[own], after[own], lag, axis, magnitudes=magnitudes),
        )

    result = Stepwise.of(joined, part)
    result.recorded, result.formula = data, formula
    return result


def _parts(
    data: dask.array.Array, before: Factors, after: Factors, lag: int, axis: int, magnitudes: bool
) -> Iterator[tuple[dask.array.Array, Formula]]:
    """Ranges of steps as they are cut already, with those that their differences need."""
    steps = data.shape[axis] - lag
    cut = np.cumsum(data.chunks[axis][:-1])
    for first, last in itertools.pairwise((0, *(int(at) for at in cut if at < steps), steps)):
        own = slice(first, last + lag)
        part = data[(slice(None),) * axis + (own,)].rechunk({axis: -1})
        yield part, (before[own], after[own], lag, axis, magnitudes)


def _in_blocks(data: dask.array.Array, itemsize: int, axis: int) -> dask.array.Array:
    """As many neighbouring runs in one block as fit, where runs are not cut."""
    if axis == 0:
        return data
    each = max(1, int(BLOCK_BYTES // max(1, itemsize * math.prod(data.chunksize[1:]))))
    blocks: dask.array.Array = data.rechunk({0: each})  # type: ignore[no-untyped-call]
    return blocks


class Stepwise(SelectableArray):
    """What `combine` makes of a Dask array: selections are taken of that array first."""

    recorded: dask.array.Array
    formula: Formula

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        """NumPy's functions as Dask has them, but a mean over runs in one pass."""
        if func is np.nanmean and self.dtype == np.float32 and set(kwargs) <= {"axis", "dtype"}:
            axis = kwargs.get("axis")
            axes = tuple(np.sort(np.atleast_1d(np.arange(self.ndim) if axis is None else axis)))
            if len(args) == 1 and kwargs.get("dtype") is None and axes[:1] == (0,):
                return self._mean(tuple(int(one) for one in axes))
        return super().__array_function__(func, types, args, kwargs)

    def _mean(self, axes: tuple[int, ...]) -> Any:
        """Mean over runs and other axes, leaving NaN out, where Dask's takes five passes."""
        _, _, lag, axis, _ = self.formula
        sums = []
        add: Any = _sums
        for part, own in _parts(self.recorded, *self.formula):
            sizes = [(1,) * part.numblocks[0], *part.chunks[1:]]
            sizes[axis] = (part.shape[axis] - lag,)
            sums.append(part.map_blocks(add, *own, chunks=sizes, meta=self._meta))
        return dask.array.reduction(  # type: ignore[no-untyped-call]
            dask.array.concatenate(sums, axis=axis),  # type: ignore[no-untyped-call]
            _over_others,
            _mean,
            axis=axes,
            combine=_joined,
            concatenate=False,
            dtype=np.float32,
            meta=np.empty((0,) * (self.ndim - len(axes)), np.float32),
        )


Sums: TypeAlias = tuple[npt.NDArray[Any], npt.NDArray[Any]]


def _sums(values: npt.NDArray[Any], *formula: Any) -> Sums:
    """Sums over the runs of a block, leaving NaN out, and of how many runs (one number, if of all).

    The result is linear in what is recorded, so that its sum follows from the sum of that.
    """
    from asced_analysis.signals.loops import sum_runs

    *_, magnitudes = formula
    if not magnitudes:
        total = np.zeros((1, *values.shape[1:]), np.float32)
        if values.dtype == np.float16:
            halves = np.ascontiguousarray(values).view(np.int16)
            sum_runs(halves.reshape(len(values), -1), total.reshape(-1))
        else:
            values.sum(0, out=total[0])
        total = _block(total, *formula)
        if not np.isnan(total).any():
            return total, np.full((1,) * total.ndim, float(len(values)))
    every = _block(values, *formula)
    return np.nansum(every, 0, keepdims=True), (~np.isnan(every)).sum(0, float, keepdims=True)


def _over_others(sums: Sums, axis: tuple[int, ...], keepdims: bool) -> Sums:
    """Sums over runs summed along the other axes too."""
    total, count = sums
    if others := axis[1:]:
        count = np.broadcast_to(count, total.shape)
        return total.sum(others, float, keepdims=True), count.sum(others, keepdims=True)
    return total, count


def _joined(parts: Any, axis: tuple[int, ...], keepdims: bool) -> Sums:
    """Sums of several blocks, of which Dask hands over lists of lists."""
    if isinstance(parts, tuple):
        return parts
    total, count = _joined(parts[0], axis, keepdims)
    for place, part in enumerate(parts[1:]):
        more, of_how_many = _joined(part, axis, keepdims)
        total = np.add(total, more, out=total if place else None)
        count = count + of_how_many  # one number for all, or one a value
    return total, count


def _mean(parts: Any, axis: tuple[int, ...], keepdims: bool) -> npt.NDArray[np.float32]:
    """Sum by count; NaN where there is none."""
    total, count = _joined(parts, axis, keepdims)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (total / count).astype(np.float32).squeeze(axis)


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
