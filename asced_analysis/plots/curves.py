"""Curves and heat maps over steps: dynamics, quantiles, phases."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from asced_analysis.plots import style
from asced_stores.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.colorbar import Colorbar
    from matplotlib.colors import Normalize, SymLogNorm

    from asced_analysis.phases.segmentation import Phases

DECADES = 1e-6
"""Least share of the largest value that a logarithmic colour scale shows."""

NAMED_GROUPS = 20
"""Of more groups only so many are named in a legend."""

SIGNED_DECADES = 1e-3
"""Least share of the largest size from which a signed colour scale is logarithmic."""


def dynamics_curves(
    statistics: xr.Dataset,
    phases: Phases | None = None,
    *,
    axis: str = "step",
    ax: Axes | None = None,
) -> Axes:
    """Median and quantile bands by step, with the phases behind them.

    Parameters
    ----------
    statistics : xarray.Dataset
        Result of `step_statistics`; groups are drawn as one median curve each, in another line
        style every ten, and many are named below the axes: of more than 20 the ten that move
        most and the ten that move least, the others are grey.
    phases : Phases, optional
        Shown as shading with intervals.
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
    >>> ds = aa.open_runs("runs.zarr")
    >>> plots.dynamics_curves(aa.step_statistics(ds)).get_xlabel()
    'step (0 = noise)'
    """
    label = style.axis_label(axis, ("step", "log_snr"))
    with style.look():
        own, ax = ax is None, style.axes(ax)
        x = statistics[axis].values
        median = statistics["median"]
        groups = [dim for dim in median.dims if dim != "step"]
        if groups:
            names = _in_sight(median, str(groups[0]))
            others = [name for name in statistics[groups[0]].values if name not in names]
            for place, name in enumerate(others):
                named = "" if place else f"{len(others)} others, between these"
                ax.plot(x, median.sel({groups[0]: name}).values, color="0.8", lw=0.8, label=named)
            for name, curve in zip(names, style.curve_looks(len(names)), strict=True):
                chosen = median.sel({groups[0]: name}).values
                ax.plot(x, chosen, label=f"{groups[0]} {name}", **curve)
        else:
            _bands(ax, x, statistics)
            ax.plot(x, median.values, color=style.BLUE, lw=2, label="median")
        if statistics.attrs["measure"] in ("dynamics", "magnitude"):
            ax.set_yscale("log")
        ax.set(xlabel=label, ylabel=_quantity(statistics))
        style.whole_steps(ax, axis)
        ax.set_title(f"{statistics.attrs['runs']:,} runs, all pixels")
        ax.margins(x=0.02)
        if phases is not None:
            style.shade_phases(ax, phases, axis)
        style.legend(ax, grow=own)
    return ax


def _in_sight(median: xr.DataArray, dim: str) -> list[Any]:
    """Groups to name: all, or of many those that move most and least, in their own order."""
    names: list[Any] = median[dim].values.tolist()
    if len(names) <= NAMED_GROUPS:
        return names
    size = np.log(np.abs(median.transpose(dim, ...).values).reshape(len(names), -1) + 1e-30)
    order = np.argsort(np.nanmean(size, axis=1)).tolist()
    half = NAMED_GROUPS // 2
    return [names[place] for place in sorted(order[:half] + order[-half:])]


def against_population(
    statistics: xr.Dataset,
    curve: pd.DataFrame,
    phases: Phases | None = None,
    *,
    name: str = "region",
    ax: Axes | None = None,
) -> Axes:
    """Dynamics of one pixel or region against the bands of all pixels of all runs.

    Parameters
    ----------
    statistics : xarray.Dataset
        Result of `step_statistics` of the dynamics, without groups.
    curve : pandas.DataFrame
        Columns ``step`` and ``dynamics``: the mean of ``|D_k|`` over the region.
    phases : Phases, optional
        Shown as shading.
    name : str, optional
        What the curve is called in the legend.
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
    >>> from asced_analysis.statistics.regions import artifact_regions, region_profile
    >>> stats = aa.step_statistics(ds, signal="innovation")
    >>> region = artifact_regions(ds, reference="run").iloc[0]
    >>> profile = region_profile(ds, region)
    >>> ax = plots.against_population(stats, profile[profile["place"] == "region"])
    """
    with style.look():
        ax = dynamics_curves(statistics, phases, ax=ax)
        ax.plot(curve["step"], curve["dynamics"], color=style.VERMILION, marker="o", ms=4, lw=2)
        ax.lines[-1].set_label(name)
        style.legend(ax)
    return ax


def quantile_heatmap(statistics: xr.Dataset, *, ax: Axes | None = None) -> Axes:
    """Heat map step x quantile, on a logarithmic colour scale; from zero both ways if signed.

    Parameters
    ----------
    statistics : xarray.Dataset
        Result of `step_statistics` without groups. The quantiles are taken anew from the counts,
        finely, whatever was asked for.
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
    >>> plots.quantile_heatmap(aa.step_statistics(ds)).get_ylabel()
    'quantile'
    """
    from matplotlib.colors import SymLogNorm

    from asced_analysis.statistics.by_step import counts_of

    if set(statistics["median"].dims) != {"step"}:
        raise InputError("a heat map needs statistics without groups; select one group first")
    levels = np.array([0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999])
    table = counts_of(statistics).quantile(levels)
    with style.look():
        ax = style.axes(ax)
        steps = statistics["step"].values
        edges = np.concatenate([steps - 0.5, steps[-1:] + 0.5])
        shown, colours, norm, extend = _heat(table)
        places = np.arange(levels.size + 1)
        image = ax.pcolormesh(edges, places, shown, cmap=colours, norm=norm)
        ax.set_yticks(np.arange(levels.size) + 0.5, [f"{100 * level:g} %" for level in levels])
        ax.set(xlabel=style.axis_label("step"), ylabel="quantile")
        style.whole_steps(ax)
        ax.grid(visible=False)
        scale = ax.figure.colorbar(image, ax=ax, label=_quantity(statistics), extend=extend)
        if isinstance(norm, SymLogNorm):
            _name_decades(scale, norm)
        ax.set_title(f"{statistics.attrs['runs']:,} runs, all pixels")
    return ax


def phase_curve(phases: Phases, *, axis: str = "step", ax: Axes | None = None) -> Axes:
    """The activity curve with the two boundaries and their intervals.

    Parameters
    ----------
    phases : Phases
        Result of `segment_phases`.
    axis : {"step", "normalised_time", "log_snr"}
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
    >>> ds = aa.open_runs("runs.zarr")
    >>> phases = aa.segment_phases(ds, replicates=99, run_replicates=0)
    >>> ax = plots.phase_curve(phases, axis="log_snr")
    """
    label = style.axis_label(axis)
    with style.look():
        ax = style.axes(ax)
        curve = phases.activity
        ax.plot(curve[axis].values, 100 * curve.values, color=style.BLUE, marker="o", ms=4)
        ax.set(
            xlabel=label,
            ylabel=f"active pixels (% beyond {phases.cutoff:g} robust units)",
        )
        style.whole_steps(ax, axis)
        ax.set_ylim(0, 115 * float(curve.max()) or 1)
        ax.margins(x=0.02)
        style.shade_phases(ax, phases, axis)
        found = any(boundary.step == boundary.step for boundary in phases.population)
        intervals = f", {100 * phases.confidence:g} % intervals" if found else ""
        ax.set_title(f"{phases.runs:,} runs{intervals}\n{phases.verdict()}")
    return ax


def _heat(
    table: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.float64], str, Normalize | None, Literal["min", "neither"]]:
    """What a heat map draws, its colours and their scale, and which end of that has a point."""
    from matplotlib.colors import LogNorm, SymLogNorm

    sizes = np.abs(table[np.isfinite(table) & (table != 0)])
    if not sizes.size:
        return table, style.SEQUENTIAL, None, "neither"
    top = float(sizes.max())
    if np.nanmin(table) < 0:
        linear = float(np.clip(np.quantile(sizes, 0.1), SIGNED_DECADES * top, 0.1 * top))
        return table, style.DIVERGING, SymLogNorm(linear, vmin=-top, vmax=top), "neither"
    # Differences of fp16 numbers are often exactly or nearly zero: such quantiles would take the
    # whole scale, and a logarithm leaves zero blank.
    low = max(float(sizes.min()), DECADES * top)
    below: Literal["min", "neither"] = "min" if np.nanmin(table) < low else "neither"
    return np.maximum(table, 0.5 * low), style.SEQUENTIAL, LogNorm(low, top), below


def _name_decades(scale: Colorbar, norm: SymLogNorm) -> None:
    """Mark zero and the decades beyond the linear middle of a signed scale, both ways."""
    first, last = np.ceil(np.log10(norm.linthresh)), np.floor(np.log10(norm.vmax or 1.0))
    decades = 10.0 ** np.arange(first, last + 1)
    ticks = np.concatenate([-decades[::-1], [0], decades])
    scale.set_ticks(ticks.tolist(), labels=[f"{tick:g}" for tick in ticks])
    scale.minorticks_off()


def _quantity(statistics: xr.Dataset) -> str:
    """What statistics by step are numbers of."""
    about = statistics.attrs
    return style.quantity_label(about["signal"], about["measure"], about["units"])


def _bands(ax: Axes, x: Any, statistics: xr.Dataset) -> None:
    """Bands between symmetric quantiles, the widest the palest."""
    levels = statistics["probability"].values
    table = statistics["quantile"].transpose("probability", "step").values
    pairs = [
        (low, high)
        for low, lower in enumerate(levels)
        for high, upper in enumerate(levels)
        if lower < 0.5 and abs(lower + upper - 1) < 1e-9
    ]
    for number, (low, high) in enumerate(sorted(pairs, key=lambda pair: levels[pair[0]])):
        ax.fill_between(
            x,
            table[low],
            table[high],
            color=style.BLUE,
            alpha=0.16 + 0.14 * number,
            lw=0,
            label=f"{100 * levels[low]:g} to {100 * levels[high]:g} %",
        )
