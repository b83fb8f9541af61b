"""Plots of derived arrays as `ds.asced` gives them: numbers by run and step, images of a run."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from asced_analysis.plots import style
from asced_analysis.plots.images import check_run, some_steps
from asced_stores.errors import InputError

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from asced_analysis.phases.segmentation import Phases

MOST_PANELS = 8


def level_curve(
    levels: npt.ArrayLike,
    phases: Phases | None = None,
    *,
    steps: Sequence[int] | None = None,
    probability: float = 0.99,
    signal: str = "innovation",
    ax: Axes | None = None,
) -> Axes:
    """Level by step above which a pixel counts as abnormal.

    Parameters
    ----------
    levels : array, shape (step - 1,)
        Result of `abnormal_levels`.
    phases : Phases, optional
        Shown as shading with intervals.
    steps : sequence of int, optional
        The later step of each pair; from 1 on by default.
    probability, signal
        What `abnormal_levels` was asked for.
    ax : matplotlib.axes.Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib.axes.Axes

    Examples
    --------
    >>> import asced_analysis as aa
    >>> from asced_analysis import plots
    >>> from asced_analysis.statistics.regions import abnormal_levels
    >>> plots.level_curve(abnormal_levels(aa.open_runs("runs.zarr"))).get_xlabel()
    'step (0 = noise)'
    """
    values = np.asarray(levels, np.float64)
    if values.ndim != 1:
        raise InputError(f"levels of shape {values.shape} found; expected one number a step")
    x = np.arange(1, len(values) + 1) if steps is None else np.asarray(steps)
    with style.look():
        ax = style.axes(ax)
        ax.plot(x, values, color=style.BLUE, lw=2, marker="o", ms=3)
        ax.set_yscale("log")
        ax.set(
            xlabel=style.axis_label("step"),
            ylabel=style.quantity_label(signal, "dynamics", "units of the data"),
        )
        ax.set_title(f"Abnormal above: {100 * probability:g} % quantile of all pixels, smoothed")
        ax.margins(x=0.02)
        if phases is not None:
            style.shade_phases(ax, phases, "step")
    return ax


def run_curves(
    array: xr.DataArray, runs: Sequence[int] = (), *, axis: str = "step", ax: Axes | None = None
) -> Axes:
    """A number by run and step: where most runs lie, and some of them one by one.

    Parameters
    ----------
    array : xarray.DataArray, dims (run, step[, frame])
        Such as `ds.asced.norm()`; computed here, frames averaged.
    runs : sequence of int, optional
        Drawn one by one.
    axis : {"step", "log_snr"}
        Horizontal axis.
    ax : matplotlib.axes.Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib.axes.Axes

    Examples
    --------
    >>> import asced_analysis as aa
    >>> from asced_analysis import plots
    >>> ax = plots.run_curves(aa.open_runs("runs.zarr").asced.norm("innovation"), runs=[3, 5])
    """
    import seaborn as sns

    if not {"run", "step"} <= set(array.dims) or "y" in array.dims:
        raise InputError(
            f"an array over {', '.join(map(str, array.dims))} has no curve by run; expected run "
            "and step, such as ds.asced.norm(), or draw images of one run (plots.run_images)"
        )
    label = style.axis_label(axis, [name for name in ("step", "log_snr") if name in array.coords])
    others = [dim for dim in array.dims if dim not in ("run", "step")]
    values = array.mean(others).transpose("run", "step").compute()
    x = values[axis].values
    with style.look():
        own, ax = ax is None, style.axes(ax)
        low, middle, high = np.nanquantile(values.values, (0.05, 0.5, 0.95), axis=0)
        ax.fill_between(x, low, high, color=style.BLUE, alpha=0.2, lw=0, label="5 to 95 % of runs")
        ax.plot(x, middle, color=style.BLUE, lw=2, label="median run")
        colours = sns.color_palette("colorblind", 10)[1:]
        marks = "osD^v<>P"
        for index, run in enumerate(runs):
            check_run(values, run)
            curve = values.sel(run=run).values
            mark, colour = marks[index % len(marks)], colours[index % len(colours)]
            ax.plot(x, curve, color=colour, lw=1, marker=mark, ms=3, label=f"run {run}")
        if np.nanmin(values.values) > 0:
            ax.set_yscale("log")
        ax.set(xlabel=label, ylabel=_quantity(array))
        ax.set_title(f"{values.sizes['run']:,} runs")
        ax.margins(x=0.02)
        style.legend(ax, grow=own)
    return ax


def run_images(array: xr.DataArray, run: int, *, steps: Sequence[int] | None = None) -> Figure:
    """A derived array of one run as images on one colour scale, channels averaged.

    Parameters
    ----------
    array : xarray.DataArray, dims (run, [step, ...,] y, x)
        Such as `ds.asced.innovation()` or `ds.asced.trajectory_variance()`; only this run is
        computed.
    run : int
        Its name in the coordinate ``run``.
    steps : sequence of int, optional
        Steps to show; six over the whole run by default.

    Returns
    -------
    matplotlib.figure.Figure
        Signed numbers diverge from white at zero, logarithmically where steps differ much; the
        scale ends at the 99.9 % quantile of what is shown.

    Examples
    --------
    >>> import asced_analysis as aa
    >>> from asced_analysis import plots
    >>> ds = aa.open_runs("runs.zarr")
    >>> figure = plots.run_images(ds.asced.innovation(), run=3, steps=[2, 6, 11])
    """
    if not {"run", "y", "x"} <= set(array.dims):
        raise InputError(
            f"an array over {', '.join(map(str, array.dims))} has no images; expected run, y and x "
            "(plots.run_curves draws numbers by run and step)"
        )
    check_run(array, run)
    one = array.sel(run=run)
    if "step" in one.dims:
        every = one["step"].values
        chosen = [int(step) for step in (some_steps(every, 6) if steps is None else steps)]
        if not (set(chosen) <= set(every.tolist()) and 0 < len(chosen) <= MOST_PANELS):
            raise InputError(
                f"steps {chosen} found; expected 1 to {MOST_PANELS} of {every[0]} to {every[-1]}"
            )
        one = one.sel(step=chosen).transpose("step", ...)
        titles = [f"step {step}" for step in chosen]
    else:
        titles = []
        one = one.expand_dims("step")
    others = [dim for dim in one.dims if dim not in ("step", "y", "x")]
    shown = one.mean(others).transpose("step", "y", "x").values
    with style.look():
        figure = style.figure(height=1.9 if len(shown) > 3 else 3.2)
        grid = figure.subplots(1, len(shown), squeeze=False)[0]
        for panel, values in zip(grid, shown, strict=True):
            drawn = panel.imshow(values, **_colours(shown))
            panel.set(xticks=[], yticks=[])
            if titles:
                panel.set_title(titles.pop(0), fontsize="small")
        scale = figure.colorbar(drawn, ax=list(grid), label=_quantity(array, width=22), shrink=0.8)
        if drawn.norm.vmin < 0:  # few numbers: those around zero would lie on each other
            ten = 10.0 ** np.floor(np.log10(drawn.norm.vmax))
            scale.set_ticks([-ten, 0, ten], labels=[f"{-ten:g}", "0", f"{ten:g}"])
        logarithmic = drawn.norm.vmin < 0 and drawn.norm.linthresh < 0.5 * drawn.norm.vmax
        note = " (colours logarithmic)" if logarithmic else ""
        figure.suptitle(f"Run {run}{note}", fontsize="medium")
    return figure


def _colours(shown: npt.NDArray[np.floating[Any]]) -> dict[str, Any]:
    """Colours of all panels (step, y, x); logarithmic beyond most of the calmest step."""
    from matplotlib.colors import Normalize, SymLogNorm

    sizes = np.abs(shown)
    limit = float(np.nanquantile(sizes, 0.999)) or 1.0
    if np.nanmin(shown) >= 0:
        return {"cmap": style.SEQUENTIAL, "norm": Normalize(0, limit)}
    calm = float(np.nanquantile(sizes.reshape(len(sizes), -1), 0.9, axis=1).min())
    linear = float(np.clip(calm, 1e-4 * limit, 0.5 * limit))
    return {"cmap": style.DIVERGING, "norm": SymLogNorm(linear, vmin=-limit, vmax=limit)}


def _quantity(array: xr.DataArray, *, width: int = 60) -> str:
    """What an array holds, in lines of so many letters, with its units on the last."""
    name = array.attrs.get("long_name", str(array.name or "value").replace("_", " "))
    units = str(array.attrs.get("units", "units of the data"))
    return f"{fill(name, width)}\n{units if units.startswith('(') else f'({units})'}"
