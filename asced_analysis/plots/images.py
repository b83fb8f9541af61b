"""Plots over the image: maps per pixel position, one run as a film strip."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from asced_analysis.plots import style
from asced_analysis.plots.false_colours import false_colours
from asced_stores.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FRAMES = 8
"""Frames of a film strip side by side."""


def pixel_map(
    maps: xr.Dataset, variable: str = "mean", *, step: int | None = None, ax: Axes | None = None
) -> Axes:
    """One map over the image, channels averaged.

    Parameters
    ----------
    maps : xarray.Dataset
        Result of `pixel_maps`.
    variable : str
        ``mean, standard_deviation, largest`` or ``quantile`` (its largest probability).
    step : int, optional
        Which step; the average over steps by default.
    ax : matplotlib.axes.Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib.axes.Axes

    Examples
    --------
    >>> import asced_analysis as aa
    >>> from asced_analysis import plots
    >>> ds = aa.open_runs("runs.zarr")
    >>> from asced_analysis.statistics.by_pixel import pixel_maps
    >>> ax = plots.pixel_map(pixel_maps(ds), step=6)
    """
    if variable not in maps or "y" not in maps[variable].dims:
        raise InputError(f"no map {variable!r}; choose mean, standard_deviation, largest, quantile")
    chosen = maps[variable]
    title = variable.replace("_", " ")
    if variable == "quantile":
        title = f"{100 * float(maps['probability'].max()):g} % quantile"
        chosen = chosen.sel(probability=maps["probability"].max())
    if step is None:
        title, chosen = f"{title}, mean over steps", chosen.mean("step")
    else:
        title, chosen = f"{title}, step {step}", chosen.sel(step=step)
    others = [dim for dim in chosen.dims if dim not in ("y", "x")]
    with style.look():
        ax = style.axes(ax, height=4.4)
        image = ax.imshow(chosen.mean(others).transpose("y", "x").values, cmap=style.SEQUENTIAL)
        ax.grid(visible=False)
        ax.set(xlabel="column (pixels)", ylabel="row (pixels)")
        ax.set_title(f"{title}; {maps.attrs['runs']:,} runs")
        units = maps.attrs["units"]
        label = style.quantity_label(maps.attrs["signal"], "dynamics", units)
        ax.figure.colorbar(image, ax=ax, label=label)
    return ax


def film_strip(
    ds: xr.Dataset,
    run: int,
    *,
    signal: str = "innovation",
    steps: Sequence[int] | None = None,
    regions: pd.DataFrame | None = None,
    mask: npt.ArrayLike | None = None,
) -> Figure:
    """One run as a film strip: predicted x0 above, its dynamics below, regions drawn on both.

    Latents are shown in false colours: the three principal components of the run's last
    predicted x0, the same in every frame.

    Dynamics shrink from noise to image, so each of their frames has its own colour scale: from 0
    to the 99.9 % quantile of the frame, which stands in its corner.

    Parameters
    ----------
    ds : xarray.Dataset
        Runs as `open_runs` returns them; one run is read.
    run : int
        Its name in the coordinate ``run``.
    signal : {"innovation", "predicted_x0", "weighted_score"}
        Whose dynamics.
    steps : sequence of int, optional
        Steps to show; eight over the whole run by default, those at which its regions begin among
        them. Eight stand side by side.
    regions : pandas.DataFrame, optional
        Rows of `artifact_regions`; those of this run are framed at the steps at which they are
        abnormal.
    mask : array of bool, shape (y, x), optional
        Outlined in every frame.

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> import asced_analysis as aa
    >>> from asced_analysis import plots
    >>> ds = aa.open_runs("runs.zarr")
    >>> figure = plots.film_strip(ds, run=3, steps=[2, 6, 11])
    """
    from asced_analysis.signals import fields
    from asced_analysis.signals.dimensions import with_images

    ds = with_images(ds)
    check_run(ds, run)
    one = ds.sel(run=run)
    shown = pictures_of(one["x0"], ds.attrs)
    change = fields.dynamics(ds.sel(run=[run]), signal).isel(run=0)
    own = None if regions is None else regions[regions["run"] == run]
    chosen = _frames(change["step"].values, own) if steps is None else np.asarray(steps)
    columns = min(len(chosen), FRAMES)
    strips = -(-len(chosen) // FRAMES)
    with style.look():
        figure = style.figure(height=0.35 + 2.05 * strips)
        grid = figure.subplots(2 * strips, columns, squeeze=False)
        for place, step in enumerate(chosen.tolist()):
            upper, column = 2 * (place // FRAMES), place % FRAMES
            above, below = grid[upper, column], grid[upper + 1, column]
            above.imshow(shown(step), cmap="gray", vmin=0, vmax=1)
            above.set_title(f"step {step}", fontsize="small")
            size = abs(change.sel(step=step))
            others = [dim for dim in size.dims if dim not in ("y", "x")]
            _own_scale(below, size.max(others).transpose("y", "x").values)
            for axis in (above, below):
                axis.set(xticks=[], yticks=[])
                _overlay(axis, own, mask, step)
        for axis in grid[-2:, len(chosen) - FRAMES * (strips - 1) :].flat:
            axis.remove()
        for upper in range(0, 2 * strips, 2):
            grid[upper, 0].set_ylabel("predicted\nx0", fontsize="small")
            grid[upper + 1, 0].set_ylabel("|change|\n(data units)", fontsize="small")
        figure.suptitle(
            f"Run {run}: {signal.replace('_', ' ')}; colours from 0 to the number in each frame"
            + ("\npredicted x0 in false colours" if is_latent(one["x0"]) else ""),
            fontsize="medium",
        )
    return figure


def check_run(runs: xr.DataArray | xr.Dataset, run: int) -> None:
    """Refuse a run that is not there."""
    names = runs["run"].values
    if run not in names:
        raise InputError(f"no run {run}; the runs are {names[0]} to {names[-1]}")


def some_steps(steps: npt.NDArray[Any], number: int) -> npt.NDArray[Any]:
    """At most so many of the steps, spread evenly, the first and the last among them."""
    chosen: npt.NDArray[Any] = steps[
        np.unique(np.linspace(0, len(steps) - 1, number).round().astype(int))
    ]
    return chosen


def is_latent(x0: xr.DataArray) -> bool:
    """Whether channels are no colours."""
    return int(x0.sizes["channel"]) not in (1, 3)


def pictures_of(
    x0: xr.DataArray, attributes: Mapping[str, Any]
) -> Callable[[int], npt.NDArray[np.float32]]:
    """How one run's predicted x0 is shown at a step: grey, colours, or false colours.

    Parameters
    ----------
    x0 : xarray.DataArray
        Of one run, with the dimension step.
    attributes : mapping
        Of the store; ``value_range`` is that of the data, -1 to 1 by default.

    Returns
    -------
    callable
        Step to an array between 0 and 1, shape (y, x) or (y, x, 3).
    """

    def values(step: int) -> npt.NDArray[np.float32]:
        one = x0.sel(step=step)
        one = one.isel(frame=0) if "frame" in one.dims else one
        return np.nan_to_num(one.transpose("channel", "y", "x").values.astype(np.float32))

    if is_latent(x0):
        colours = false_colours(values(int(x0["step"].values[-1])))

        def shown(step: int) -> npt.NDArray[np.float32]:
            mixed = colours.colours(values(step)) / colours.reach
            return np.clip((np.moveaxis(mixed, 0, -1) + 1) / 2, 0, 1)

        return shown
    low, high = attributes.get("value_range") or (-1.0, 1.0)

    def plain(step: int) -> npt.NDArray[np.float32]:
        grey = np.moveaxis(values(step), 0, -1).squeeze(-1 if x0.sizes["channel"] == 1 else ())
        return np.clip((grey - low) / (high - low), 0, 1)

    return plain


def end_pictures(*runs: xr.Dataset) -> list[npt.NDArray[np.uint8]]:
    """What runs ended in, as one looks at it: the recorded images, else the final samples.

    Parameters
    ----------
    *runs : xarray.Dataset
        One run each, for example a run and its corrected version; latents share the first one's
        false colours.

    Returns
    -------
    list of uint8 array, shape (row, column, 1 or 3)
    """
    import xarray as xr

    if all("image" in run for run in runs):
        return [run["image"].values for run in runs]
    ends = [run["sample"] if "sample" in run else run["x0"].isel(step=-1) for run in runs]
    bare = [end.reset_coords(drop=True) for end in reversed(ends)]  # the last one's colours count
    together = xr.concat(bare, "step", join="override").assign_coords(step=range(len(bare)))
    shown = pictures_of(together, runs[0].attrs)
    found = [np.rint(255 * shown(step)).astype(np.uint8) for step in reversed(range(len(bare)))]
    return [picture if picture.ndim == 3 else picture[..., None] for picture in found]


def _own_scale(axis: Axes, values: npt.NDArray[Any]) -> None:
    """Sizes in colours of their own scale, whose end stands in the lower left corner."""
    top = float(np.nanquantile(values, 0.999)) or 1
    axis.imshow(values, cmap=style.SEQUENTIAL, vmin=0, vmax=top)
    axis.text(
        0.02,
        0.02,
        f"{top:.2g}",
        transform=axis.transAxes,
        fontsize="x-small",
        va="bottom",
        bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1},
    )


def _frames(
    steps: npt.NDArray[np.integer[Any]], regions: pd.DataFrame | None
) -> npt.NDArray[np.integer[Any]]:
    """Steps of a film strip: spread evenly, but each region is seen, the strongest ones first."""
    chosen = some_steps(steps, FRAMES)
    if regions is None:
        return chosen
    free = np.ones(len(chosen), bool)
    free[[0, -1]] = False
    strongest = regions.sort_values("excess", ascending=False)
    for onset, end in strongest[["onset_step", "end_step"]].to_numpy():
        abnormal = steps[(steps >= onset) & (steps <= end)]
        if not len(abnormal):
            continue
        seen = np.isin(chosen, abnormal)
        if not seen.any() and free.any():
            places = np.flatnonzero(free)
            nearest = places[np.argmin(abs(chosen[places] - abnormal[0]))]
            chosen[nearest], seen[nearest] = abnormal[0], True
        free &= ~seen
    return np.sort(chosen)


def _overlay(
    axis: Axes, regions: pd.DataFrame | None, mask: npt.ArrayLike | None, step: int
) -> None:
    """Frame the regions that are abnormal at this step; outline the mask."""
    from matplotlib.patches import Rectangle

    if mask is not None:
        axis.contour(np.asarray(mask, float), [0.5], colors=[style.VERMILION], linewidths=1)
    if regions is None:
        return
    active = regions[(regions["onset_step"] <= step) & (regions["end_step"] >= step)]
    boxes: Any = active[["left", "top", "width", "height"]].to_numpy()
    for left, top, width, height in boxes:
        corner = (left - 0.5, top - 0.5)
        axis.add_patch(
            Rectangle(corner, width, height, fill=False, edgecolor=style.VERMILION, lw=1.2)
        )
