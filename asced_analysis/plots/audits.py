"""An audit as curves by step: what was found beside what the schedule asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from asced_analysis.plots import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from asced_analysis.audit import Audit

CURVES = {
    "energy": (style.BLUE, "energy of the sample"),
    "noise": (style.ORANGE, "noise, as the network sees it"),
    "next_noise": (style.GREEN, "noise of the next sample"),
}
LEAST, MOST = 0.02, 50.0
"""Shown of a ratio; what lies beyond is drawn at the edge."""


def audit_curves(audit: Audit, *, ax: Axes | None = None) -> Axes:
    """Ratios to what each step's level asks for, with intervals, tolerance and findings.

    Parameters
    ----------
    audit : Audit
        Result of `asced_analysis.audit`.
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
    >>> plots.audit_curves(aa.audit(ds)).get_ylabel()
    'ratio to what the level asks for'
    """
    steps = audit.steps
    with style.look():
        own, ax = ax is None, style.axes(ax)
        x = steps["step"].values
        tolerance = steps["energy_tolerance"].values
        ax.fill_between(
            x, 1 - tolerance, 1 + tolerance, color="#DDDDDD", lw=0, label="tolerance (energy)"
        )
        shown = []
        for name, (colour, label) in CURVES.items():
            values = [steps[f"{name}{end}"].values for end in ("", "_low", "_high")]
            if name == "noise":  # near the clean end no network knows it
                values = [np.where(steps["log_snr"] < 1, one, np.nan) for one in values]
            middle, low, high = (np.clip(one, LEAST, MOST) for one in values)
            at = x + (name == "next_noise")
            ax.fill_between(at, low, high, color=colour, alpha=0.25, lw=0)
            ax.plot(at, middle, color=colour, lw=2, marker="o", ms=3, label=label)
            shown += [middle[np.isfinite(middle)]]
        for step in sorted({one.step for one in audit.findings if one.step is not None}):
            names = ", ".join(one.name for one in audit.findings if one.step == step)
            ax.axvline(step, color=style.VERMILION, ls="--", lw=1.5, label=f"found: {names}")
        reach = np.concatenate([*shown, 1 - tolerance, 1 + tolerance])
        if reach.min() < 0.5 or reach.max() > 2:
            ax.set_yscale("log")
        ax.set(xlabel=style.AXIS_LABELS["step"], ylabel="ratio to what the level asks for")
        without = [one.name for one in audit.findings if one.step is None]
        ax.set_title(
            f"{audit.finite:,} of {audit.runs:,} runs"
            + ("; nothing found" if audit.sound else "")
            + (f"; found: {', '.join(without)}" if without else "")
        )
        style.legend(ax, grow=own)
    return ax
