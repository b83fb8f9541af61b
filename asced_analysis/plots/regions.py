"""Regions of abnormal dynamics: one against the rest of its image, and when many begin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from asced_analysis.plots import style

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from asced_analysis.phases.segmentation import Phases


def region_acceleration(profile: pd.DataFrame, *, run: Any = None, ax: Axes | None = None) -> Axes:
    """Dynamics of an artifact region against the rest of its image (the paper's figure 4c).

    Parameters
    ----------
    profile : pandas.DataFrame
        Result of `region_profile`: columns ``step, place, dynamics, acceleration``.
    run : optional
        Name of the run for the title.
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
    >>> region = artifact_regions(ds, reference="run").iloc[0]
    >>> ax = plots.region_acceleration(region_profile(ds, region), run=region["run"])
    """
    with style.look():
        ax = style.axes(ax)
        # dynamics shrink from noise to image by orders of magnitude: linear only where the rest is;
        # before anything is drawn, so that the margins are those of this scale
        rest = profile.loc[profile["place"] == "rest", "acceleration"].abs()
        usual = float(rest[rest > 0].median()) if (rest > 0).any() else 1.0
        ax.set_yscale("symlog", linthresh=usual)
        colours = {"region": style.VERMILION, "rest": style.BLUE}
        marks = {"region": "o", "rest": "s"}
        for place, rows in profile.groupby("place", sort=False):
            ax.plot(
                rows["step"],
                rows["acceleration"],
                color=colours[str(place)],
                marker=marks[str(place)],
                ms=4,
                label={"region": "region", "rest": "rest of the image"}[str(place)],
            )
        ax.axhline(0, color=style.GREY, lw=1)
        ax.set(
            xlabel=style.axis_label("step"),
            ylabel="acceleration |D(k)| - |D(k-1)|\n(data units); logarithmic",
        )
        if run is not None:
            # a row of a table with other numbers in it names its run as a float
            ax.set_title(f"Run {run:.0f}" if isinstance(run, float) else f"Run {run}")
        ax.legend(fontsize="small")
    return ax


def region_frequency(
    regions: pd.DataFrame, *, steps: int, phases: Phases | None = None, ax: Axes | None = None
) -> Axes:
    """How often abnormal dynamics begin, by normalised step (the paper's figure 7).

    Parameters
    ----------
    regions : pandas.DataFrame
        Result of `artifact_regions`.
    steps : int
        Number of steps of the runs.
    phases : Phases, optional
        Shown as shading.
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
    >>> from asced_analysis.statistics.regions import artifact_regions
    >>> regions = artifact_regions(ds, reference="run")
    >>> ax = plots.region_frequency(regions, steps=ds.sizes["step"])
    """
    with style.look():
        ax = style.axes(ax)
        edges = (np.arange(steps + 1) - 0.5) / steps
        onset = regions["onset_step"].to_numpy(float) / steps
        total = max(1, len(onset))
        share, _ = np.histogram(onset, edges)
        ax.bar(
            (edges[:-1] + edges[1:]) / 2,
            100 * share / total,
            width=0.9 / steps,
            color=style.VERMILION,
        )
        ax.set(
            xlabel="normalised step of onset (0 = noise, 1 = image)",
            ylabel="share of abnormal regions (%)",
            xlim=(-0.02, 1.02),
        )
        ax.set_title(f"{len(onset):,} regions in {regions['run'].nunique():,} runs")
        if phases is not None:
            style.shade_phases(ax, phases, "normalised_time")
    return ax
