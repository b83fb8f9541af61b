"""A recorded variable as a Dask array that reads what is asked of it, however often it is cut."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import dask.array
import numpy as np
from numpy.typing import NDArray

from asced_stores.backends.opening import open_backend
from asced_stores.format.batches import read_rows
from asced_stores.format.index import RunIndex
from asced_stores.format.layout import ArrayLayout
from asced_stores.reading.selectable import SelectableArray, select
from asced_stores.store import TrajectoryStore

SHARD_BYTES, BLOCK_BYTES = 1 << 27, 1 << 25
"""A batch of a variable that is larger than the first is read in blocks of about the second."""


def recorded_array(store: TrajectoryStore, layout: ArrayLayout, index: RunIndex) -> SelectableArray:
    """One variable of the runs of an index, lazily; one chunk a batch.

    Parameters
    ----------
    store, layout, index
        Where it lies, how, and which runs.
    """
    source = LazyVariable(
        store.backend.address, store.backend.options, layout, index["batch"], index["slot"]
    )
    return _array(source, (store.id, index.commits))


class LazyVariable:
    """One variable of chosen runs as an array that reads what is asked of it.

    It travels to Dask's workers, so it holds a path and numbers only.
    """

    def __init__(
        self,
        url: str,
        storage_options: Mapping[str, Any] | None,
        layout: ArrayLayout,
        batches: NDArray[Any],
        slots: NDArray[Any],
        steps: slice | None = None,
    ) -> None:
        self._url = url
        self._options = storage_options
        self._layout = layout
        self.batches = batches
        self._slots = slots
        length, *rest = layout.variable.shape
        self._steps = slice(0, length) if steps is None else steps
        self.shape = (len(slots), self._steps.stop - self._steps.start, *rest)
        self.dtype = layout.dtype
        self.ndim = len(self.shape)

    @property
    def layout(self) -> ArrayLayout:
        """How the whole variable lies in its shards."""
        return self._layout

    def cut(self, rows: Any, steps: slice) -> LazyVariable:
        """Some of these runs, and some neighbouring steps (or of what comes first)."""
        first = self._steps.start
        return LazyVariable(
            *(self._url, self._options, self._layout, self.batches[rows], self._slots[rows]),
            slice(first + steps.start, first + steps.stop),
        )

    def token(self) -> tuple[Any, ...]:
        """What tells it from others of the same store."""
        layout = self._layout
        steps = (self._steps.start, self._steps.stop)
        return (layout.variable.name, layout.inner, self.batches, self._slots, steps)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        key = key if isinstance(key, tuple) else (key,)
        key += (slice(None),) * (self.ndim - len(key))
        runs, steps, rest = key[0], key[1], key[2:]
        backend = open_backend(self._url, storage_options=self._options)
        rows = np.arange(self.shape[0])[runs]
        outer = np.atleast_1d(rows)
        bounds, inner = _bounds(steps, self.shape[1])
        bounds = slice(bounds.start + self._steps.start, bounds.stop + self._steps.start)
        data = read_rows(backend, self._layout, self.batches[outer], self._slots[outer], bounds)
        data = data[:, inner]
        if rest:
            own = data.ndim - len(self.shape) + 2
            data = data[(slice(None),) * own + rest]
        return data if np.ndim(rows) else data[0]


def _bounds(steps: Any, length: int) -> tuple[slice, Any]:
    """Contiguous range of steps that holds those asked for, and where they lie in it."""
    wanted = np.arange(length)[steps]
    if np.ndim(wanted) == 0:
        return slice(int(wanted), int(wanted) + 1), 0
    if not len(wanted):
        return slice(0, 1), slice(0, 0)
    first, last = int(wanted.min()), int(wanted.max()) + 1
    if len(wanted) == last - first and (np.diff(wanted) == 1).all():
        return slice(first, last), slice(None)
    return slice(first, last), wanted - first


def _array(source: LazyVariable, origin: tuple[Any, ...]) -> SelectableArray:
    """An array of a source: one chunk a batch, cut along the steps where a batch is large."""
    from dask.base import tokenize

    edges = [*np.flatnonzero(np.diff(source.batches, prepend=-1)).tolist(), len(source.batches)]
    runs = tuple(b - a for a, b in itertools.pairwise(edges)) or (0,)
    steps, *rest = source.shape[1:]
    each, large = steps, max(runs) * math.prod(source.shape[1:]) * source.dtype.itemsize
    if large > SHARD_BYTES:
        inner = source.layout.inner[1]
        each = max(1, BLOCK_BYTES * steps // large // inner) * inner
    own = tuple(min(each, steps - at) for at in range(0, steps, each))
    lazy = dask.array.from_array(
        source,
        chunks=(runs, own, *((n,) for n in rest)),
        name=f"{source.layout.variable.name}-{tokenize(origin, source.token())}",
        meta=np.empty((0,) * source.ndim, source.dtype),
    )  # type: ignore[no-untyped-call]

    def part(chosen: tuple[Any, ...]) -> dask.array.Array:
        rows, steps, *others = chosen
        cut = _array(source.cut(rows, steps), origin)
        whole = all(one == slice(0, size) for one, size in zip(others, rest, strict=True))
        return cut if whole else select(cut, (slice(None), slice(None), *others))

    return SelectableArray.of(lazy, part)
