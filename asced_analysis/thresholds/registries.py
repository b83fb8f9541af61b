"""The parts that thresholds name: detection variants and correction strategies.

Looked up by name, so that thresholds need neither room's code to be read or listed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asced_stores.registry import Registry

if TYPE_CHECKING:
    from asced_analysis.correction.strategy import Strategy
    from asced_analysis.detection.variant import Variant

VARIANTS: Registry[Variant] = Registry(
    "detection variant",
    group="asced.detection",
    package="asced_analysis.detection",
    modules=(
        "calibrated",
        "outcome",
        "self_consistency",
        "released",
        "paper",
        "trajectory_variance",
        "final_variance",
        "score_norm",
        "diffpath",
    ),
    attribute="VARIANT",
)

STRATEGIES: Registry[type[Strategy]] = Registry(
    "correction strategy",
    group="asced.correction",
    package="asced_analysis",
    modules=(
        "correction.ttc",
        "correction.renoise",
        "correction.noise_normalisation",
        "replay.best_of",
        "correction.state_replacement",
        "correction.score_clipping",
        "correction.stochastic_steps",
        "replay.noise_denoise",
        "replay.restart",
        "correction.none",
    ),
    attribute="STRATEGY",
)
