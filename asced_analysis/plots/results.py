"""Plots of tables: phases of single runs, features, outlying runs, comparisons of two stores."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from asced_analysis.plots import style
from asced_stores.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from asced_analysis.phases.segmentation import Phases


def run_phases(phases: Phases, *, ax: Axes | None = None) -> Axes:
    """How the boundaries of single runs are spread, beside the population's.

    Parameters
    ----------
    phases : Phases
        Result of `segment_phases`.
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
    >>> ax = plots.run_phases(aa.segment_phases(ds, replicates=99, run_replicates=9))
    """
    with style.look():
        ax = style.axes(ax)
        steps = phases.activity["step"].values
        edges = np.concatenate([steps - 0.5, steps[-1:] + 0.5])
        for name, colour, hatch in (
            ("mutation", style.ORANGE, "//"),
            ("refinement", style.GREEN, "\\\\"),
        ):
            boundary = getattr(phases.population, name)
            found = phases.per_run[f"{name}_step"].dropna()
            share, _ = np.histogram(found, edges)
            ax.bar(
                steps,
                100 * share / max(1, len(found)),
                width=0.9,
                color=colour,
                alpha=0.6,
                hatch=hatch,
                edgecolor="white",
                label=f"{name} begins ({len(found):,} runs)",
            )
            if np.isfinite(boundary.step):
                ax.axvline(boundary.step, color=colour, lw=2.5, ls="--")
        ax.set(xlabel=style.axis_label("step"), ylabel="share of runs (%)")
        known = phases.per_run[["mutation_step", "refinement_step"]].notna()
        ax.set_ylim(0, None if known.to_numpy().any() else 1)
        missing = int((~known.any(axis=1)).sum())
        ax.set_title(
            f"{len(known):,} runs, {missing:,} of them with no boundary that is more than chance\n"
            f"both in {int(known.all(axis=1).sum()):,}; dashed: the population's"
        )
        if ax.get_legend_handles_labels()[0]:
            ax.legend(fontsize="small")
    return ax


def feature_spread(
    features: pd.DataFrame, *, run: int | None = None, ax: Axes | None = None
) -> Axes:
    """How every feature is spread over the runs, in its own robust units; one run marked.

    Parameters
    ----------
    features : pandas.DataFrame
        Result of `run_features`; runs with NaN are left out.
    run : int, optional
        A run to show among the others.
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
    >>> ax = plots.feature_spread(aa.run_features(ds), run=3)
    """
    import seaborn as sns

    known = features[np.isfinite(features.to_numpy()).all(axis=1)]
    if known.empty:
        raise InputError("no runs with finite features to show")
    if run is not None and run not in known.index:
        raise InputError(f"no finite features of run {run}; choose one of the frame's index")
    centre = known.median()
    spread = 1.4826 * (known - centre).abs().median()
    units = (known - centre) / spread.where(spread > 0, known.std() + 1e-12)
    with style.look():
        ax = style.axes(ax, height=1.1 + 0.26 * units.shape[1])
        names = [str(name).replace("_", " ") for name in units.columns]
        sns.boxenplot(
            data=units.set_axis(names, axis=1),
            orient="h",
            color=style.BLUE,
            ax=ax,
            flier_kws={"s": 6, "color": style.GREY},
        )
        if run is not None:
            ax.scatter(
                units.loc[run],
                np.arange(len(names)),
                color=style.VERMILION,
                marker="D",
                s=28,
                zorder=5,
                label=f"run {run}",
            )
            ax.legend(fontsize="small")
        ax.axvline(0, color=style.GREY, lw=1)
        ax.set(xlabel="deviation from the median (robust units)", ylabel="")
        ax.set_xscale("symlog", linthresh=3)
        ax.set_xticks(
            [-30, -10, -3, -1, 0, 1, 3, 10, 30],
            ["-30", "-10", "-3", "-1", "0", "1", "3", "10", "30"],
        )
        ax.set_title(f"Features of {len(known):,} runs")
    return ax


def feature_ranking(ranking: pd.DataFrame, *, runs: int = 15, ax: Axes | None = None) -> Axes:
    """The runs to look at first, with what makes each unusual.

    Parameters
    ----------
    ranking : pandas.DataFrame
        Result of `rank_runs`.
    runs : int, optional
        How many to show.
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
    >>> from asced_analysis.statistics.outliers import rank_runs
    >>> ax = plots.feature_ranking(rank_runs(aa.run_features(ds)), runs=5)
    """
    shown = ranking[np.isfinite(ranking["score"])].head(runs)[::-1]
    if shown.empty:
        raise InputError("no runs with a finite score to show")
    with style.look():
        ax = style.axes(ax, height=0.9 + 0.28 * len(shown))
        place = np.arange(len(shown))
        colours = np.where(shown["outlier"], style.VERMILION, style.BLUE)
        ax.hlines(place, 0, shown["score"], color=colours, lw=1.5)
        ax.scatter(shown["score"], place, color=colours, s=30, zorder=3)
        reasons = [
            f"run {run}: {row.reason.replace('_', ' ')} {row.deviation:+.1f}"
            for run, row in zip(shown.index, shown.itertuples(), strict=True)
        ]
        ax.set_yticks(place, reasons)
        low = min(0.0, float(shown["score"].min()))
        ax.set_xlim(low, 1.05 * float(shown["score"].max()))
        ax.set(xlabel="outlier score (no unit)", ylabel="")
        ax.set_title("Unusual runs (robust units of the most unusual feature)")
        ax.grid(visible=False, axis="y")
    return ax


def comparison(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Size of effect by log-SNR: whole images as a line, tiles as points, findings filled.

    Parameters
    ----------
    table : pandas.DataFrame
        Result of `compare`.
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
    >>> from asced_analysis.statistics.comparison import compare
    >>> halves = ds.isel(run=slice(0, 24)), ds.isel(run=slice(24, 48))
    >>> ax = plots.comparison(compare(*halves, tiles=2, levels=5))
    """
    with style.look():
        ax = style.axes(ax)
        whole = table[table["tile_row"] < 0]
        tiles = table[table["tile_row"] >= 0]
        for different, label in ((False, "tile, no finding"), (True, "tile, different")):
            chosen = tiles[tiles["different"] == different]
            ax.scatter(
                chosen["log_snr"],
                chosen["delta"],
                s=14,
                marker="o",
                facecolor=style.ORANGE if different else "none",
                edgecolor=style.ORANGE if different else style.GREY,
                alpha=0.7,
                label=label,
            )
        ax.plot(whole["log_snr"], whole["delta"], color=style.BLUE, lw=1.5)
        found = whole[whole["different"]]
        ax.scatter(
            found["log_snr"],
            found["delta"],
            color=style.BLUE,
            s=45,
            marker="s",
            zorder=3,
            label="whole image, different",
        )
        ax.axhline(0, color=style.GREY, lw=1)
        ax.set_ylim(-1.05, 1.05)
        ax.set(
            xlabel=style.axis_label("log_snr"),
            ylabel="Cliff's delta\n(> 0: the second moves more)",
        )
        first, second = _compared(table)
        rate = table.attrs.get("false_discovery_rate", 0.05)
        ax.set_title(f"{first} against {second};\nfalse discovery rate {100 * rate:g} %")
        ax.legend(fontsize="small", loc="best")
    return ax


def comparison_map(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Where and when two stores differ: size of effect by tile and log-SNR, findings dotted.

    Parameters
    ----------
    table : pandas.DataFrame
        Result of `compare`.
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
    >>> from asced_analysis.statistics.comparison import compare
    >>> halves = ds.isel(run=slice(0, 24)), ds.isel(run=slice(24, 48))
    >>> ax = plots.comparison_map(compare(*halves, tiles=2, levels=5))
    """
    named = table.assign(place=table["tile_row"] * (table["tile_column"].max() + 1))
    named["place"] += table["tile_column"]
    wide = named.pivot(index="place", columns="log_snr", values="delta").sort_index()
    found = named.pivot(index="place", columns="log_snr", values="different").sort_index()
    first = named.drop_duplicates("place").set_index("place").loc[wide.index]
    labels = [
        "whole image" if row < 0 else f"row {row}, column {column}"
        for row, column in zip(first["tile_row"], first["tile_column"], strict=True)
    ]
    with style.look():
        ax = style.axes(ax, height=1.2 + 0.24 * len(labels))
        columns, rows = np.arange(wide.shape[1] + 1), np.arange(len(labels) + 1)
        image = ax.pcolormesh(columns, rows, wide, cmap=style.DIVERGING, vmin=-1, vmax=1)
        y, x = np.nonzero(found.to_numpy(bool))
        ax.scatter(x + 0.5, y + 0.5, s=9, color="black")
        step = -(-wide.shape[1] // 8)
        ax.set_xticks(columns[:-1:step] + 0.5, [f"{level:.1f}" for level in wide.columns[::step]])
        ax.set_yticks(rows[:-1] + 0.5, labels)
        ax.invert_yaxis()
        ax.grid(visible=False)
        ax.set(xlabel=style.axis_label("log_snr"), ylabel="")
        ax.figure.colorbar(image, ax=ax, label="Cliff's delta (> 0: the second moves more)")
        rate = table.attrs.get("false_discovery_rate", 0.05)
        one, other = _compared(table)
        ax.set_title(
            f"{one} against {other};\ndots: tiles that differ (false discovery rate "
            f"{100 * rate:g} %)"
        )
    return ax


def _compared(table: pd.DataFrame) -> list[str]:
    """Both stores by name and number of runs."""
    runs = table.attrs.get("runs", ["?", "?"])
    names = table.attrs.get("stores", ["the first", "the second"])
    return [f"{name} ({number} runs)" for name, number in zip(names, runs, strict=True)]
