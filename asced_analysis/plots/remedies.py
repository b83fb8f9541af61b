"""Plot of what was tried on a pipeline, at which price."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from asced_analysis.plots import style
from asced_analysis.realism.claims import claims_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from asced_analysis.evaluation import Remedies


def remedies(found: Remedies, *, ax: Axes | None = None) -> Axes:
    """Share of broken runs with every remedy, where it was chosen and on fresh seeds.

    Parameters
    ----------
    found : Remedies
        Result of `asced_analysis.evaluation.try_remedies`.
    ax : matplotlib.axes.Axes, optional
        Where to draw.

    Returns
    -------
    matplotlib.axes.Axes

    Examples
    --------
    >>> from asced_analysis import plots
    >>> from asced_analysis.evaluation import Remedies
    >>> ax = plots.remedies(Remedies.load("remedies.json"))
    >>> ax.get_title("left")
    '8 runs each; [evaluations an image], at most 14'
    """
    rows = [(one, style.BLUE, "o") for one in found.trials]
    rows += [(one, style.VERMILION, "s") for one in found.confirmed]
    names = {style.BLUE: "to choose", style.VERMILION: "on fresh seeds"}
    with style.look():
        ax = style.axes(ax, height=1.4 + 0.26 * len(rows))
        for height, (one, colour, marker) in enumerate(rows):
            value, low, high = np.array(
                [one.broken.value, one.broken.low, one.broken.high], np.float64
            )
            label = names.pop(colour, None)
            ax.plot([value], [height], marker, color=colour, ms=4.5, label=label)
            ax.plot([low, high], [height, height], color=colour, lw=1.4)
        ax.axvline(0.25, color=style.GREY, lw=1, ls=":")
        labels = [f"{one.title} [{one.evaluations:.3g}]" for one, _, _ in rows]
        ax.set_yticks(range(len(rows)), labels, fontsize="small")
        ax.set_ylim(len(rows) - 0.4, -0.6)
        ax.set_xlim(0.0, 1.0)
        ax.set_xlabel(f"share of runs as bad as\n{claims_of(found.reference).worst}")
        ax.set_title(
            f"{found.runs} runs each; [evaluations an image], at most {found.budget}", loc="left"
        )
        ax.legend(fontsize="small")
    return ax
