"""Quality of a population before and after: Frechet distance, precision, recall, realism."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asced_analysis.evaluation.intervals import Counts, Estimate, bootstrap, mean_estimate
from asced_analysis.realism.distances import (
    inside_manifold,
    neighbour_radii,
    weighted_frechet_distance,
)
from asced_analysis.realism.local import RealismModel

RESAMPLES = 200  # each costs an eigenvalue decomposition


@dataclass(frozen=True)
class Quality:
    """What the figures of one population are computed from.

    Attributes
    ----------
    vectors : float32 array, shape (n, d)
    realism : float64 array, shape (n,)
        Mean local distance of each run.
    realistic : bool array, shape (n,)
        Whether a run lies within the manifold of real images (precision).
    covered : bool array, shape (real, n)
        Whether each real image lies within the ball of each run (recall).
    """

    vectors: NDArray[np.float32]
    realism: NDArray[np.float64]
    realistic: NDArray[np.bool_]
    covered: NDArray[np.bool_]


def quality_of(
    vectors: NDArray[np.float32],
    realism: NDArray[np.float64],
    model: RealismModel,
    real_radii: NDArray[np.float32],
    neighbours: int,
) -> Quality:
    """Place a population against the judge's real images."""
    radii = neighbour_radii(vectors, neighbours)
    covered = np.concatenate(
        [
            _within(model.vectors[begin : begin + 512], vectors, radii)
            for begin in range(0, len(model.vectors), 512)
        ]
    )
    realistic = inside_manifold(vectors, model.vectors, real_radii)
    return Quality(vectors, realism, realistic, covered)


def _within(
    queries: NDArray[Any], support: NDArray[Any], radii: NDArray[np.float32]
) -> NDArray[np.bool_]:
    """Whether each query lies in the ball around each support vector."""
    squared = (queries**2).sum(1)[:, None] + (support**2).sum(1) - 2 * (queries @ support.T)
    return np.asarray(squared <= radii)


def compare(before: Quality, after: Quality, model: RealismModel) -> dict[str, Any]:
    """Figures before and after, and their change, with paired bootstrap intervals over runs."""
    runs = len(before.vectors)

    def frechet(quality: Quality, counts: Counts) -> float:
        return weighted_frechet_distance(quality.vectors, counts, model.mean, model.covariance)

    def recall(quality: Quality, counts: Counts) -> float:
        return float(quality.covered[:, counts > 0].any(1).mean())

    figures: dict[str, Any] = {}
    for name, statistic in (("frechet_distance", frechet), ("recall", recall)):
        figures[name] = _three(
            bootstrap(lambda c, s=statistic: s(before, c), runs, resamples=RESAMPLES),
            bootstrap(lambda c, s=statistic: s(after, c), runs, resamples=RESAMPLES),
            bootstrap(lambda c, s=statistic: s(after, c) - s(before, c), runs, resamples=RESAMPLES),
        )
    for name, first, second in (
        ("precision", before.realistic, after.realistic),
        ("local_realism", before.realism, after.realism),
    ):
        figures[name] = _three(
            mean_estimate(first),
            mean_estimate(second),
            mean_estimate(second.astype(np.float64) - first.astype(np.float64)),
        )
    return figures


def _three(before: Estimate, after: Estimate, change: Estimate) -> dict[str, Any]:
    """Plain values of a figure."""
    return {"before": before.to_dict(), "after": after.to_dict(), "change": change.to_dict()}
