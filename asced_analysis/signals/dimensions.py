"""Dimensions that a selection took away, given back."""

from __future__ import annotations

import xarray as xr

from asced_stores.errors import InputError

FIELDS = ("eps", "x0", "x_init", "checkpoint_sample", "sample")
"""Recorded variables that have the shape of a sample."""


def with_all_dims(ds: xr.Dataset) -> xr.Dataset:
    """Give back the dimensions that ``isel(run=3)`` or ``isel(channel=0)`` took away.

    Parameters
    ----------
    ds : xarray.Dataset
        Runs as `open_runs` returns them, or a selection of them.

    Returns
    -------
    xarray.Dataset
        With ``run``, and ``channel`` in whatever has pixels, of length 1 where they were missing.

    Raises
    ------
    InputError
        Where one step was taken: a trajectory has several.
    """
    ds = with_channel(ds)
    if "run" in ds.dims:
        return ds
    values = {name: ds[name].values[()] for name in ds.coords if not ds[name].dims}
    ds = ds.drop_vars(values).expand_dims(run=[values.pop("run", 0)])
    return ds.assign_coords({name: ("run", [value]) for name, value in values.items()})


def with_images(ds: xr.Dataset) -> xr.Dataset:
    """As `with_all_dims`, for what needs images and not pixels alone.

    Parameters
    ----------
    ds : xarray.Dataset
        Runs as `open_runs` returns them, or a selection of them.

    Raises
    ------
    InputError
        Where one step, row or column was taken.
    """
    ds = with_all_dims(ds)
    check_images(ds)
    return ds


def check_images(ds: xr.Dataset) -> None:
    """Refuse runs of which one row or column of pixels was taken."""
    for name, what in (("y", "row"), ("x", "column")):
        if name not in ds.dims:
            raise InputError(
                f"one {what} of pixels was selected; expected images, as "
                f"isel({name}=slice(2, 3)) takes them"
            )


def with_channel(ds: xr.Dataset) -> xr.Dataset:
    """Give back a dimension ``channel``, in whatever has pixels.

    Parameters
    ----------
    ds : xarray.Dataset
        Runs as `open_runs` returns them, or a selection of them.

    Raises
    ------
    InputError
        Where one step was taken.
    """
    if "step" not in ds.dims:
        raise InputError(
            "one step was selected; expected several, as isel(step=slice(3, 5)) takes them"
        )
    flat = {
        name: ds[name]
        .drop_vars("channel", errors="ignore")
        .expand_dims("channel", axis=ds[name].dims.index("y"))
        for name in FIELDS
        if name in ds.data_vars and "y" in ds[name].dims and "channel" not in ds[name].dims
    }
    return ds.drop_vars("channel", errors="ignore").assign(flat) if flat else ds
