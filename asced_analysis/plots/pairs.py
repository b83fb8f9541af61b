"""Runs beside their corrected versions: many by their ends, or one from noise to its end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from asced_analysis.plots import style
from asced_analysis.plots.images import end_pictures, pictures_of
from asced_analysis.plots.outlines import outlined_place
from asced_stores.errors import InputError

if TYPE_CHECKING:
    import numpy.typing as npt
    import xarray as xr
    from matplotlib.axes import Axes
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
                _show(axis, image)
            _outline(grid[0, column], mask, image)
            grid[0, column].set_title(f"run {run}", fontsize="small")
        grid[0, 0].set_ylabel(f"as sampled,\n{outlined_place(corrected.attrs)}", fontsize="small")
        grid[1, 0].set_ylabel("corrected", fontsize="small")
    return figure


def case_study(
    ds: xr.Dataset,
    corrected: xr.Dataset,
    *,
    run: int | None = None,
    signal: str = "innovation",
    steps: Sequence[int] | None = None,
) -> Figure:
    """A run that breaks: its steps, its dynamics, the flagged region and the corrected version.

    Parameters
    ----------
    ds : xarray.Dataset
        The recording, as `open_runs` returns it; one run is read.
    corrected : xarray.Dataset
        The replay of it, with ``mask``, ``flagged`` and ``score``.
    run : int, optional
        Its name in the coordinate ``run``; the flagged one of the highest score by default.
    signal : {"innovation", "predicted_x0", "weighted_score"}
        Whose dynamics.
    steps : sequence of int, optional
        Steps to show; six from the middle of sampling on by default.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        When no run is flagged, or the run is in only one of the two.

    Examples
    --------
    >>> import asced_analysis as aa
    >>> from asced_analysis import plots
    >>> ds = aa.open_runs("runs.zarr")
    >>> figure = plots.case_study(ds, aa.open_runs("corrected.zarr"), run=0)
    """
    from asced_analysis.signals import fields

    if run is None:
        flagged = corrected["run"].values[corrected["flagged"].values]
        if not len(flagged):
            raise InputError("no run is flagged: name the run to draw")
        run = int(corrected["score"].sel(run=flagged).idxmax())
    if run not in ds["run"].values or run not in corrected["run"].values:
        raise InputError(f"run {run} is not in both stores; choose one that is")
    one, repaired = ds.sel(run=run), corrected.sel(run=run)
    mask = np.asarray(repaired["mask"].values, np.bool_)
    change = abs(fields.dynamics(ds.sel(run=[run]), signal).isel(run=0)).compute()
    others = [dim for dim in change.dims if dim not in ("step", "y", "x")]
    sizes = change.max(others)
    if steps is None:
        last = int(sizes["step"].values[-1])
        steps = np.unique(np.linspace(0.25 * last, last, 6).round().astype(int)).tolist()
    end = int(corrected.attrs.get("correction_step") or 0)
    shown = pictures_of(one["x0"], corrected.attrs)
    with style.look():
        figure = style.figure(width=9.2, height=4.5)
        halves: Any = figure.subfigures(2, 1, height_ratios=[1.15, 1])
        upper, lower = halves
        grid = upper.subplots(2, len(steps), squeeze=False)
        for column, step in enumerate(steps):
            grid[0, column].imshow(shown(step), cmap="gray", vmin=0, vmax=1)
            values = sizes.sel(step=step).values
            top = float(np.nanquantile(values, 0.999)) or 1
            grid[1, column].imshow(values, cmap=style.SEQUENTIAL, vmin=0, vmax=top)
            grid[0, column].set_title(f"step {step}", fontsize="small")
            for axis in grid[:, column]:
                axis.set(xticks=[], yticks=[])
        grid[0, 0].set_ylabel("what the model\nexpects", fontsize="small")
        grid[1, 0].set_ylabel("what it\nrevises", fontsize="small")
        curve, *ends = lower.subplots(1, 4, width_ratios=[2.2, 1, 1, 1])
        place = outlined_place(corrected.attrs)
        _region_and_rest(curve, sizes, mask, end, place)
        titles = ("as sampled", place, "corrected version")
        image, other = end_pictures(one, repaired)
        pictures = (image, image, other)
        for axis, picture, title in zip(ends, pictures, titles, strict=True):
            _show(axis, picture)
            axis.set_title(title, fontsize="small")
        _outline(ends[1], mask, image)
    return figure


def _region_and_rest(
    ax: Axes, sizes: xr.DataArray, mask: npt.NDArray[np.bool_], end: int, place: str
) -> None:
    """Mean change by step inside and outside the mask, and where the correction falls."""
    from matplotlib.ticker import NullFormatter

    values: Any = sizes.transpose("step", "y", "x").values
    steps = sizes["step"].values
    if mask.any() and not mask.all():
        ax.plot(steps, values[:, mask].mean(1), color=style.VERMILION, label=place)
        ax.plot(steps, values[:, ~mask].mean(1), color=style.BLUE, label="rest of the image")
    else:
        ax.plot(steps, values.mean((1, 2)), color=style.BLUE, label="the image")
    if end:
        ax.axvline(end, color=style.GREY, ls="--", lw=1, label="corrected here")
    ax.legend(fontsize="small")
    ax.set(xlabel=style.axis_label("step"), ylabel="|change| (data units)")
    style.whole_steps(ax)
    ax.set_yscale("log")
    ax.yaxis.set_minor_formatter(NullFormatter())


def _show(axis: Axes, picture: npt.NDArray[Any]) -> None:
    """One picture without ticks."""
    axis.imshow(picture.squeeze(-1) if picture.shape[-1] == 1 else picture, cmap="gray")
    axis.set(xticks=[], yticks=[])


def _outline(axis: Axes, mask: npt.NDArray[np.bool_], picture: npt.NDArray[Any]) -> None:
    """A mask's edge on a picture of any whole multiple of its size."""
    if mask.any():
        scale = max(1, round(picture.shape[0] / mask.shape[0]))
        large = np.kron(mask, np.ones((scale, scale)))
        axis.contour(large, [0.5], colors=[style.ORANGE], linewidths=1.4)
