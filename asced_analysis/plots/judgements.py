"""Plots of what a calibration flags and of what a correction did."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from asced_analysis.correction.controls import IN_WORDS
from asced_analysis.plots import style
from asced_stores.errors import InputError

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

    from asced_analysis.evaluation import Evaluation
    from asced_analysis.thresholds.document import Thresholds


def scores(detected: xr.Dataset, thresholds: Thresholds, *, ax: Axes | None = None) -> Axes:
    """How the scores of runs lie about the level that flags them.

    Parameters
    ----------
    detected : xarray.Dataset
        With ``score`` and ``flagged`` (run): what `asced_analysis.detection.apply.detect` or a
        replay gives.
    thresholds : Thresholds
        Whose level is drawn. Where groups have levels of their own, scores are moved by what their
        level lies above the common one.
    ax : matplotlib.axes.Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    InputError
        When no run has a finite score, or `detected` does not say which groups its runs are of.

    Examples
    --------
    >>> import asced_analysis as aa
    >>> from asced_analysis import plots
    >>> ds = aa.open_runs("runs.zarr")
    >>> from asced_analysis.detection.apply import detect
    >>> thresholds = aa.Thresholds.load("thresholds.json")
    >>> plots.scores(detect(ds, thresholds), thresholds).get_ylabel()
    'runs'
    """
    from asced_analysis.detection.apply import own_levels_above

    by = str(thresholds.grouped_by)
    if thresholds.groups and (by not in detected.coords or detected[by].dims != ("run",)):
        raise InputError(
            f"these thresholds have levels by {by}, which `detected` does not say of its runs: add "
            f"the coordinate, detected.assign_coords({by}=('run', ...))"
        )
    values = np.asarray(detected["score"].values, np.float64)
    values = values - own_levels_above(detected, thresholds)
    finite = values[np.isfinite(values)]
    if not finite.size:
        raise InputError("no run has a finite score: there is nothing to draw")
    level = float(detected.attrs.get("level", thresholds.levels.level))
    above = np.asarray(detected["flagged"].values, np.bool_)
    flagged = int(np.count_nonzero(above))
    with style.look():
        ax = style.axes(ax, height=3.0)
        edges = np.histogram_bin_edges(np.append(finite, level), bins=40)
        bins = np.sort(np.append(edges, level)).tolist()  # no bar stands on both sides of the level
        for side, colour, name in (
            (values[np.isfinite(values) & ~above], style.BLUE, "not flagged"),
            (values[np.isfinite(values) & above], style.VERMILION, "flagged"),
        ):
            ax.hist(side, bins, color=colour, label=name)
        ax.axvline(level, color=style.GREY, ls="--", lw=1.2, label=f"level {level:.3g}")
        moved = f", level of its {thresholds.grouped_by} moved to the common one"
        ax.set(xlabel=f"score of a run{moved if thresholds.groups else ''}", ylabel="runs")
        ax.set_title(
            f"{flagged} of {values.size:,} runs flagged ({100 * flagged / values.size:.1f} %); "
            f"promised at most {100 * thresholds.guarantee.promised:g} %"
        )
        ax.legend(fontsize="small")
    return ax


def effects(evaluation: Evaluation, *, ax: Axes | None = None) -> Axes:
    """What the correction did to the flagged runs, beside the same at wrong places.

    Parameters
    ----------
    evaluation : Evaluation
        Result of `asced_analysis.evaluate`.
    ax : matplotlib.axes.Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    InputError
        When no run was flagged.

    Examples
    --------
    >>> from asced_analysis import plots
    >>> from asced_analysis.evaluation import Evaluation
    >>> ax = plots.effects(Evaluation.load("evaluation.json"))
    """
    effect = evaluation.flagged_runs.effect.all
    if effect.value is None:
        raise InputError("no run was flagged: there is no effect to draw")
    name = evaluation.correction or "second store"
    places = {control: f"control: {words}" for control, words in IN_WORDS.items()}
    if evaluation.against_other_runs:
        places["shuffled"] = "as many other runs"
    own = f"{name} in the mask" if name == evaluation.strategy else name
    rows = [(own, effect, style.VERMILION)]
    rows += [
        (places.get(name, f"control: {name}"), control.effect.all, style.BLUE)
        for name, control in evaluation.controls.items()
        if control.effect.all.value is not None
    ]
    with style.look():
        ax = style.axes(ax, height=1.1 + 0.45 * len(rows))
        for place, (_, figure, colour) in enumerate(rows):
            ends = [one for one in (figure.low, figure.value, figure.high) if one is not None]
            ax.plot(ends[len(ends) // 2], place, "o", color=colour)
            ax.plot(ends, [place] * len(ends), color=colour, lw=2)
        ax.axvline(0, color=style.GREY, lw=1)
        ax.set_yticks(range(len(rows)), [name for name, _, _ in rows])
        ax.set_ylim(len(rows) - 0.5, -0.5)
        ax.set_xlabel(evaluation.claims.axis)
        flagged = f"{evaluation.flagged} flagged runs"
        compared = flagged if evaluation.strategy else evaluation.pairs
        few = all(figure.low is None for _, figure, _ in rows)
        ax.set_title(f"{compared}; {'too few for' if few else '95 %'} intervals over runs")
    return ax
