"""The parts that thresholds name: detection variants and correction strategies.

Looked up by name, so that thresholds need neither room's code to be read or listed. What a part is,
`asced_analysis.detection.registry` and `asced_analysis.correction.registry` say.
"""

from __future__ import annotations

from typing import Any

from asced_stores.registry import Registry

VARIANTS: Registry[Any] = Registry(
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

STRATEGIES: Registry[Any] = Registry(
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

NO_CORRECTION = "none"
"""Name of the strategy that only samples: of thresholds after whose window no step is left."""
