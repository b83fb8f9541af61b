"""`open_runs`: a store as a lazy xarray Dataset, one Dask chunk a shard."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from asced_stores.format.index import RunIndex, Select, load_index
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
        Each variable has one Dask chunk a batch, whole in the other dimensions; a batch of more
        than 128 MB is cut along the steps.

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
    from asced_stores.reading.recorded import recorded_array
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
        array = recorded_array(store, layout, index)
        variables[name] = (("run", *layout.variable.dims), array)
    for scalar in store.spec.scalars:
        variables[scalar.name] = ("run", index[scalar.name])
    spec = store.spec
    coordinates: dict[str, Any] = {name: ("run", index[name]) for name in RUN_COORDINATES}
    # a selection of steps still knows of how many
    steps = np.asarray(spec.step_numbers, np.int64)
    coordinates["step"] = ("step", steps, {"recorded": spec.sampled_steps})
    for name in ("timestep", "alpha", "sigma", "log_snr"):
        coordinates[name] = ("step", np.asarray(getattr(spec, name), np.float64))
    if spec.checkpoints:
        coordinates["checkpoint"] = np.asarray(spec.checkpoints, np.int64)
    modules = spec.attributes.get("activations")
    if modules and "activations" in variables:  # a replay has the one without the other
        named = [str(one["module"]) for one in modules for _ in range(int(one["values"]))]
        coordinates["module"] = ("activation", np.asarray(named))
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
