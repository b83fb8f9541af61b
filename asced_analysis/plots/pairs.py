"""Runs beside their corrected versions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from asced_analysis.plots import style
from asced_analysis.plots.images import end_pictures
from asced_analysis.plots.outlines import outlined_place
from asced_stores.errors import InputError

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure


def paired_runs(
    ds: xr.Dataset, corrected: xr.Dataset, *, runs: Sequence[int] | None = None
) -> Figure:
    """Runs as sampled, with the flagged region outlined, above their corrected versions.

    Parameters
    ----------
    ds : xarray.Dataset
        The recording, as `open_runs` returns it; only the drawn images are read.
    corrected : xarray.Dataset
        The replay of it, with ``mask``.
    runs : sequence of int, optional
        Names in the coordinate ``run``; the eight flagged ones of the highest score by default.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        When no run is flagged, or a run is in only one of the two.

    Examples
    --------
    >>> import asced_analysis as aa
    >>> from asced_analysis import plots
    >>> ds = aa.open_runs("runs.zarr")
    >>> figure = plots.paired_runs(ds, aa.open_runs("corrected.zarr"), runs=[0, 1])
    """
    if runs is None:
        flagged = corrected["run"].values[corrected["flagged"].values]
        order = np.argsort(-corrected["score"].sel(run=flagged).values, kind="stable")
        runs = [int(run) for run in flagged[order][:8]]
    if not len(runs):
        raise InputError("no run is flagged: name the runs to draw")
    missing = [r for r in runs if r not in ds["run"].values or r not in corrected["run"].values]
    if missing:
        raise InputError(f"run {missing[0]} is not in both stores; choose runs that are")
    with style.look():
        figure = style.figure(width=max(style.WIDTH, 0.95 * len(runs)), height=2.4)
        grid = figure.subplots(2, len(runs), squeeze=False)
        for column, run in enumerate(runs):
            mask = corrected["mask"].sel(run=run).values.astype(bool)
            pair = end_pictures(ds.sel(run=run), corrected.sel(run=run))
            for axis, image in zip(grid[:, column], pair, strict=True):
                axis.imshow(image.squeeze(-1) if image.shape[-1] == 1 else image, cmap="gray")
                axis.set(xticks=[], yticks=[])
            if mask.any():
                scale = image.shape[0] / mask.shape[0]
                large = np.kron(mask, np.ones((max(1, round(scale)),) * 2))
                grid[0, column].contour(large, levels=[0.5], colors=[style.ORANGE], linewidths=1.2)
            grid[0, column].set_title(f"run {run}", fontsize="small")
        grid[0, 0].set_ylabel(f"as sampled,\n{outlined_place(corrected.attrs)}", fontsize="small")
        grid[1, 0].set_ylabel("corrected", fontsize="small")
    return figure
