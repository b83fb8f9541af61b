"""`open_runs`: a store as a lazy xarray Dataset, one Dask chunk a shard."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from asced_stores.backends.opening import open_backend
from asced_stores.format.batches import read_rows
from asced_stores.format.index import RunIndex, Select, load_index
from asced_stores.format.layout import ArrayLayout
from asced_stores.store import TrajectoryStore

if TYPE_CHECKING:
    import xarray

RUN_COORDINATES = (
    *("run", "seed", "prompt", "label", "guidance_scale", "arguments"),
    *("rank", "batch", "status", "overflows", "first_bad_step"),
)


def open_runs(
    path: str | os.PathLike[str] | TrajectoryStore,
    select: Select | None = None,
    statuses: Sequence[str] = ("complete",),
    *,
    storage_options: Mapping[str, Any] | None = None,
) -> xarray.Dataset:
    """Open the committed runs of a store, lazily.

    Parameters
    ----------
    path : path, str or TrajectoryStore
        Local path, ``memory://name`` or ``s3://bucket/prefix``; or what ``to_netcdf`` or
        ``to_zarr`` wrote of such a dataset.
    select : sequence of int, mask, slice or function, optional
        Which runs, by number, or by what `asced_stores.format.index.RunIndex` knows of them.
    statuses : sequence of str
        ``complete`` by default: a failed run (NaN, infinity) is left out unless asked for.
    storage_options : mapping, optional
        ``endpoint`` and others, for object storage.

    Returns
    -------
    xarray.Dataset
        Dimensions ``run, step, [frame,] channel, y, x`` and those of the store's own variables.
        Each variable has one Dask chunk a batch, whole in the other dimensions.

    Raises
    ------
    StoreError
        If there is no store, or it is damaged.

    Examples
    --------
    >>> from asced_stores import open_runs
    >>> ds = open_runs("runs.zarr")
    >>> ds["eps"].dims
    ('run', 'step', 'channel', 'y', 'x')
    >>> open_runs("runs.zarr", select=[3, 5])["run"].values.tolist()
    [3, 5]
    """
    from asced_stores.reading.saved import RunsDataset, open_saved

    if isinstance(path, TrajectoryStore):
        store = path
    else:
        saved = open_saved(path)
        if saved is not None:
            return saved if select is None else saved.isel(run=_chosen(saved, select))
        store = TrajectoryStore.open(path, storage_options=storage_options)
    index = load_index(store).with_status(statuses).select(select)
    variables: dict[str, Any] = {}
    for name, layout in store.layouts.items():
        array = _lazy(store, layout, index)
        variables[name] = (("run", *layout.variable.dims), array)
    for scalar in store.spec.scalars:
        variables[scalar.name] = ("run", index[scalar.name])
    spec = store.spec
    coordinates: dict[str, Any] = {name: ("run", index[name]) for name in RUN_COORDINATES}
    # a selection of steps still knows of how many
    coordinates["step"] = ("step", np.arange(spec.steps), {"recorded": spec.steps})
    for name in ("timestep", "alpha", "sigma", "log_snr"):
        coordinates[name] = ("step", np.asarray(getattr(spec, name), np.float64))
    if spec.checkpoints:
        coordinates["checkpoint"] = np.asarray(spec.checkpoints, np.int64)
    dataset = RunsDataset(variables, coordinates, attrs=store.attributes)
    dataset.encoding["source"] = store.path
    return dataset


def _chosen(saved: xarray.Dataset, select: Select) -> NDArray[np.intp]:
    """Positions of chosen runs in a saved dataset."""
    columns = {
        str(name): saved[name].values for name in saved.coords if saved[name].dims == ("run",)
    }
    positions = np.arange(saved.sizes["run"])
    chosen = RunIndex({**columns, "slot": positions}).select(select)
    return np.asarray(chosen["slot"], np.intp)


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
    ) -> None:
        self._url = url
        self._options = storage_options
        self._layout = layout
        self._batches = batches
        self._slots = slots
        self.shape = (len(slots), *layout.variable.shape)
        self.dtype = layout.dtype
        self.ndim = len(self.shape)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        key = key if isinstance(key, tuple) else (key,)
        key += (slice(None),) * (self.ndim - len(key))
        runs, steps, rest = key[0], key[1], key[2:]
        backend = open_backend(self._url, storage_options=self._options)
        rows = np.arange(self.shape[0])[runs]
        outer = np.atleast_1d(rows)
        bounds, inner = _bounds(steps, self.shape[1])
        data = read_rows(backend, self._layout, self._batches[outer], self._slots[outer], bounds)
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


def _lazy(
    store: TrajectoryStore,
    layout: ArrayLayout,
    index: RunIndex,
) -> Any:
    import dask.array

    lazy = LazyVariable(
        store.backend.address, store.backend.options, layout, index["batch"], index["slot"]
    )
    runs = tuple(len(rows) for _, rows in index.groups()) or (0,)
    chunks = (runs, *((n,) for n in layout.variable.shape))
    meta = np.empty((0,) * lazy.ndim, layout.dtype)
    name = f"{layout.variable.name}-{_token(store, layout, index)}"
    return dask.array.from_array(lazy, chunks=chunks, name=name, meta=meta)  # type: ignore[no-untyped-call]


def _token(store: TrajectoryStore, layout: ArrayLayout, index: RunIndex) -> str:
    from dask.base import tokenize

    key = (
        store.id,
        index.commits,
        layout.variable.name,
        layout.inner,
        index["batch"],
        index["slot"],
    )
    return str(tokenize(*key))
