"""Plots of the experiments, the paper's own marks beside them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from asced_analysis.plots import save_figure, style
from experiments.paper import published

LABELS = {
    "frechet_distance": "Frechet distance",
    "precision": "precision",
    "recall": "recall",
    "local_realism": "local distance",
}


def draw(results: Mapping[str, Any], folder: Path) -> list[Path]:
    """Every plot there are results for."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    plots = {"figure4": _figure_four, "figure7": _figure_seven, "figure8": _figure_eight}
    for name, plot in plots.items():
        if name in results:
            path = folder / f"paper-{name}.png"
            save_figure(plot(results[name]), path)
            with Image.open(path) as whole:  # 126 kB -> 39 kB: a plot has few colours
                whole.convert("RGB").quantize(128).save(path, optimize=True)
            made.append(path)
    return made


def _figure_four(one: Mapping[str, Any]) -> Any:
    """Acceleration by place, and |D| of artifact regions over that of the others."""
    colours = (style.VERMILION, style.BLUE, style.GREEN)
    with style.look():
        figure = style.figure(height=5.2)
        grid = figure.subplots(2, len(one["signals"]), sharex=True)
        for (upper, lower), (signal, found) in zip(grid.T, one["signals"].items(), strict=True):
            steps = np.asarray(found["step"])
            for colour, (place, values) in zip(colours, found["places"].items(), strict=True):
                _band(upper, steps[1:], values["acceleration"], colour, place)
                if values["artifact_over_this"]:
                    _band(lower, steps, values["artifact_over_this"], colour, f"over {place}")
            upper.set_yscale("symlog", linthresh=0.1)
            upper.set_yticks([-10, -1, -0.1, 0, 0.1])
            upper.set_title(signal.replace("_", " "), fontsize="medium")
            upper.axhline(0, color=style.GREY, lw=1)
            lower.axhline(1, color=style.GREY, lw=1)
            lower.set_xlabel("step (0 = noise)")
            for ax in (upper, lower):
                ax.axvspan(
                    *(share * one["steps"] for share in published.ABNORMAL),
                    color=style.GREY,
                    alpha=0.1,
                )
        grid[0, 0].set_ylabel("acceleration\n(data units)")
        grid[1, 0].set_ylabel("|D| of artifact regions\nover that of other places")
        grid[0, 0].legend(fontsize="x-small", loc="upper left")
        grid[1, 1].legend(fontsize="x-small", loc="upper left")
        figure.suptitle(f"{one['runs_of_each']} broken and as many whole runs", fontsize="medium")
    return figure


def _band(ax: Any, x: Any, curve: Mapping[str, Any], colour: str, label: str) -> None:
    """A curve in its interval."""
    ax.plot(x, curve["mean"], color=colour, marker="o", ms=3, lw=1.2, label=label)
    ax.fill_between(x, curve["low"], curve["high"], color=colour, alpha=0.25, lw=0)


def _figure_seven(one: Mapping[str, Any]) -> Any:
    """Frequency of abnormal dynamics, and of the steps at which regions begin."""
    with style.look():
        figure = style.figure(height=3.2)
        panels = figure.subplots(1, 3)
        x = one["share_of_sampling"]
        titles = {
            "released": "flagged runs (%),\nrule of the code",
            "paper": "flagged pixels (%),\nEq. 4",
        }
        for ax, (rule, values) in zip(panels, one["rules"].items(), strict=False):
            for kind, colour in (("broken", style.VERMILION), ("whole", style.BLUE)):
                ax.plot(
                    x, 100 * np.asarray(values[kind]), color=colour, marker="o", ms=3, label=kind
                )
            ax.set_title(titles[rule], fontsize="small")
            ax.legend(fontsize="x-small")
        for signal, colour in (("weighted_score", style.ORANGE), ("innovation", style.GREEN)):
            counts = np.asarray(one["onsets"][signal]["by_step"], float)
            shares = np.arange(len(counts)) / len(counts)
            panels[2].plot(
                shares,
                100 * counts / max(1.0, counts.sum()),
                color=colour,
                marker="o",
                ms=3,
                label=f"{signal.replace('_', ' ')} ({counts.sum():,.0f})",
            )
        panels[2].set_title("regions that begin (%),\n5 robust units", fontsize="small")
        panels[2].legend(fontsize="x-small")
        for ax in panels:
            ax.axvspan(*published.ABNORMAL, color=style.GREY, alpha=0.12)
            ax.set(xlabel="share of sampling", xlim=(0, 1))
            ax.set_ylim(bottom=0)
    return figure


def _figure_eight(results: Mapping[str, Any]) -> Any:
    """Change of each figure by T_c, with intervals."""
    with style.look():
        figure = style.figure(height=5.0)
        panels = figure.subplots(2, 2, sharex=True).ravel()
        colours = (style.VERMILION, style.BLUE)
        for place, (colour, (variant, one)) in enumerate(
            zip(colours, results.items(), strict=False)
        ):
            ordered = sorted(one, key=float)
            x = [float(share) + 0.012 * place for share in ordered]
            for ax, name in zip(panels, LABELS, strict=True):
                change = [one[share]["quality"][name]["change"] for share in ordered]
                value = np.array([c["value"] for c in change])
                low, high = (np.array([c[end] for c in change], float) for end in ("low", "high"))
                ax.errorbar(
                    x,
                    value,
                    yerr=[np.maximum(value - low, 0), np.maximum(high - value, 0)],
                    color=colour,
                    marker="o",
                    ms=4,
                    capsize=2,
                    label=f"detector {variant}",
                )
                ax.set_title(f"change of {LABELS[name]}", fontsize="small")
        for ax in panels:
            ax.axhline(0, color=style.GREY, lw=1)
            ax.axvline(published.LAST_USEFUL, color=style.GREY, lw=1, ls="--")
        for ax in panels[2:]:
            ax.set_xlabel("$T_c/T$ (dashed: the paper's choice)")
        panels[0].legend(fontsize="x-small")
    return figure
