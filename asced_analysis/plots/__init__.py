"""Plots of every public result: labelled with units, legible at notebook width, colour-blind safe.

Every function takes ``ax=None`` and returns the Axes (or, where it needs several, the Figure).
Importing this package loads no matplotlib; drawing does.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asced_analysis.plots.curves import against_population as against_population
    from asced_analysis.plots.curves import dynamics_curves as dynamics_curves
    from asced_analysis.plots.curves import phase_curve as phase_curve
    from asced_analysis.plots.curves import quantile_heatmap as quantile_heatmap
    from asced_analysis.plots.curves import region_acceleration as region_acceleration
    from asced_analysis.plots.curves import region_frequency as region_frequency
    from asced_analysis.plots.derived import level_curve as level_curve
    from asced_analysis.plots.derived import run_curves as run_curves
    from asced_analysis.plots.derived import run_images as run_images
    from asced_analysis.plots.images import film_strip as film_strip
    from asced_analysis.plots.images import pixel_map as pixel_map
    from asced_analysis.plots.judgements import effects as effects
    from asced_analysis.plots.judgements import scores as scores
    from asced_analysis.plots.pairs import twins as twins
    from asced_analysis.plots.results import comparison as comparison
    from asced_analysis.plots.results import comparison_map as comparison_map
    from asced_analysis.plots.results import feature_ranking as feature_ranking
    from asced_analysis.plots.results import feature_spread as feature_spread
    from asced_analysis.plots.results import run_phases as run_phases
    from asced_analysis.plots.stories import story as story
    from asced_analysis.plots.style import save_figure as save_figure

_HOMES = {
    "against_population": "curves",
    "comparison": "results",
    "comparison_map": "results",
    "dynamics_curves": "curves",
    "effects": "judgements",
    "feature_ranking": "results",
    "feature_spread": "results",
    "film_strip": "images",
    "level_curve": "derived",
    "phase_curve": "curves",
    "pixel_map": "images",
    "quantile_heatmap": "curves",
    "region_acceleration": "curves",
    "region_frequency": "curves",
    "run_curves": "derived",
    "run_images": "derived",
    "run_phases": "results",
    "save_figure": "style",
    "scores": "judgements",
    "story": "stories",
    "twins": "pairs",
}

__all__ = [
    "against_population",
    "comparison",
    "comparison_map",
    "dynamics_curves",
    "effects",
    "feature_ranking",
    "feature_spread",
    "film_strip",
    "level_curve",
    "phase_curve",
    "pixel_map",
    "quantile_heatmap",
    "region_acceleration",
    "region_frequency",
    "run_curves",
    "run_images",
    "run_phases",
    "save_figure",
    "scores",
    "story",
    "twins",
]


def __getattr__(name: str) -> Any:
    """Load a plot's module when it is used."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
