"""Detection variants by name."""

from __future__ import annotations

VARIANTS = (
    "released",
    "paper",
    "calibrated",
    "outcome",
    "trajectory_variance",
    "final_variance",
    "score_norm",
    "diffpath",
)
