"""One look for all plots: the colour-blind safe palette of Okabe and Ito, and notebook widths."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from asced_stores.errors import InputError
from asced_stores.files import whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from asced_analysis.phases.segmentation import Phases

BLUE, VERMILION, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
GREY = "#595959"
PHASE_COLOURS = {"Profiling": "#56B4E9", "Mutation": ORANGE, "Refinement": GREEN}
SEQUENTIAL = "cividis"
"""A colour map that reads the same with and without colour vision."""

DIVERGING = "PuOr_r"
"""Two hues that colour-blind readers tell apart, and that meet in white."""

WIDTH = 7.2
"""Inches; a notebook column."""

LINE_STYLES: tuple[Any, ...] = (
    "-",
    (0, (5, 1.5)),
    (0, (1, 1)),
    (0, (6, 1.5, 1, 1.5)),
    (0, (10, 3)),
    (0, (4, 1.5, 1, 1.5, 1, 1.5)),
    (0, (1, 3)),
)
"""One for every ten curves; with ten colours, enough for the 64 groups of a result."""

CROWD = 7
"""From this many entries on, a legend stands below its axes."""

AXIS_LABELS = {
    "step": "step (0 = noise)",
    "log_snr": "log-SNR (nats; noise to the left)",
    "normalised_time": "normalised time (0 = noise, 1 = image)",
}
_MEASURES = {
    "dynamics": "|change| per step",
    "difference": "change per step",
    "magnitude": "magnitude",
    "value": "value",
}


@contextmanager
def look() -> Iterator[None]:
    """Seaborn's whitegrid at notebook scale, for the plot being drawn only."""
    import matplotlib as mpl
    import seaborn as sns

    own: dict[Any, Any] = {"axes.titlesize": "medium", "legend.frameon": True}
    style, scale = sns.axes_style("whitegrid"), sns.plotting_context("notebook", font_scale=0.9)
    with style, scale, mpl.rc_context(own):
        yield


def axes(ax: Axes | None, *, height: float = 3.8) -> Axes:
    """The axes that were given, or new ones in a figure that no window manager holds.

    Parameters
    ----------
    ax : matplotlib.axes.Axes, optional
        Where to draw.
    height : float, optional
        Of a new figure, in inches.

    Returns
    -------
    matplotlib.axes.Axes
    """
    if ax is not None:
        return ax
    new: Axes = figure(height=height).subplots()
    return new


def figure(*, width: float = WIDTH, height: float = 3.8) -> Figure:
    """A new figure that shows in a notebook and needs no closing.

    Parameters
    ----------
    width, height : float
        Inches.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", dpi=110)


def curve_looks(number: int) -> list[dict[str, Any]]:
    """Colours and line styles of so many curves, no two alike up to seventy.

    Parameters
    ----------
    number : int
        Of curves.

    Returns
    -------
    list of dict
        ``color`` and ``linestyle`` of each; ten colours solid, then dashed, then dotted, ...
    """
    import seaborn as sns

    colours = sns.color_palette("colorblind", 10)
    styles = len(LINE_STYLES)
    return [
        {"color": colours[curve % 10], "linestyle": LINE_STYLES[curve // 10 % styles]}
        for curve in range(number)
    ]


def legend(ax: Axes, *, grow: bool = False) -> None:
    """A legend in the axes, or below them in columns where it would cover the curves.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        Whose labelled artists are named.
    grow : bool, optional
        Make the figure taller by a legend below, so that the axes keep their height.
    """
    from matplotlib.font_manager import FontProperties
    from matplotlib.transforms import ScaledTranslation

    handles, labels = ax.get_legend_handles_labels()
    if len(labels) < CROWD:
        ax.legend(loc="best", fontsize="small")
        return
    drawn_in: Any = ax.figure
    em = FontProperties(size="x-small").get_size_in_points() / 72
    room = ax.bbox.width / drawn_in.dpi
    # A letter is about 0.6 em wide; a line, its gap and the space between columns, 5.3 em.
    most = int((room / em - 5.3) / 0.6)
    labels = [label if len(label) <= most else f"{label[: most - 1]}\u2026" for label in labels]
    widest = max(len(label) for label in labels)
    columns = max(1, int(room / em / (5.3 + 0.6 * widest)))
    below = ScaledTranslation(0, -0.55, drawn_in.dpi_scale_trans)
    ax.legend(
        handles,
        labels,
        ncols=columns,
        fontsize="x-small",
        handlelength=2.8,
        columnspacing=1.2,
        labelspacing=0.35,
        loc="upper center",
        bbox_to_anchor=(0.5, 0),
        bbox_transform=ax.transAxes + below,
        borderaxespad=0,
    )
    if grow:
        rows = -(-len(labels) // columns)
        width, height = drawn_in.get_size_inches()
        drawn_in.set_size_inches(width, height + 1.5 * em * (rows + 1))


def axis_label(axis: str, choices: Iterable[str] = AXIS_LABELS) -> str:
    """Label of a horizontal axis, or an error that says which axes a plot has."""
    names = list(choices)
    if axis not in names:
        raise InputError(f"no axis {axis!r}; choose one of {', '.join(names)}")
    return AXIS_LABELS[axis]


def whole_steps(ax: Axes, axis: str = "step") -> None:
    """Let no tick stand between two steps, where steps are few."""
    from matplotlib.ticker import MaxNLocator

    if axis == "step":
        ax.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 2.5, 5, 10], integer=True))


def quantity_label(signal: str, measure: str, units: str) -> str:
    """What statistics of a signal are numbers of, with their units on a second line."""
    return f"{signal.replace('_', ' ')}: {_MEASURES[measure]}\n({units})"


def shade_phases(ax: Axes, phases: Phases, axis: str) -> None:
    """Shade the three phases behind a plot and name them along the top.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        What is shaded; its limits stay as they are.
    phases : Phases
        Whose population boundaries.
    axis : {"step", "normalised_time", "log_snr"}
        What the horizontal axis shows.
    """
    low, high = ax.get_xlim()
    for name, left, right in phases.population.spans(axis, low, high):
        ax.axvspan(left, right, color=PHASE_COLOURS[name], alpha=0.13, lw=0, zorder=0)
        narrow = right - left < 0.13 * (high - low)
        ax.text(
            (left + right) / 2 if not narrow else right - 0.01 * (high - low),
            0.98,
            name,
            transform=ax.get_xaxis_transform(),
            ha="right" if narrow else "center",
            va="top",
            fontsize="small",
            color=GREY,
            bbox={"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 1},
        )
    for boundary in phases.population:
        if boundary.step != boundary.step:
            continue
        ax.axvline(getattr(boundary, axis), color=GREY, lw=1, ls="--", zorder=1)
        ax.axvspan(*getattr(boundary, f"{axis}_interval"), color=GREY, alpha=0.2, lw=0, zorder=0)
    ax.set_xlim(low, high)


def save_figure(drawn: Axes | Figure, path: str | os.PathLike[str]) -> None:
    """Write a plot as PNG, SVG or PDF.

    Parameters
    ----------
    drawn : matplotlib.axes.Axes or matplotlib.figure.Figure
        What a plot function returned.
    path : path
        Its ending decides the form.

    Raises
    ------
    InputError
        When matplotlib has no such form.

    Examples
    --------
    >>> import asced_analysis as aa
    >>> from asced_analysis import plots
    >>> ds = aa.open_runs("runs.zarr")
    >>> plots.save_figure(plots.film_strip(ds, run=3), "run3.png")
    """
    figure_of: Any = drawn if hasattr(drawn, "savefig") else drawn.get_figure()
    form = os.fspath(path).rpartition(".")[2].lower()
    if form not in figure_of.canvas.get_supported_filetypes():
        raise InputError(f"no figure format {form!r}; use png, svg or pdf")
    with whole(path, overwrite=True) as part:
        figure_of.savefig(part, format=form, bbox_inches="tight")
