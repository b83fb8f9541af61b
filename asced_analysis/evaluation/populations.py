"""Quality of a population against real images: Frechet distance, precision, recall, distance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from asced_analysis.evaluation.intervals import (
    Change,
    Counts,
    Estimate,
    bootstrap,
    change_estimate,
    change_of_share,
    mean_estimate,
    share_estimate,
    unpaired_estimate,
)
from asced_analysis.realism.distances import (
    inside_manifold,
    neighbour_radii,
    row_blocks,
    squared_distances,
    weighted_frechet_distance,
)
from asced_analysis.realism.local import RealismModel

RESAMPLES = 200  # each costs an eigenvalue decomposition
ROWS_AT_ONCE = 512


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
    covered : uint8 array, shape (real, n / 8)
        Whether each real image lies within the ball of each run (recall), eight runs a byte: as
        a table of bool it was most of an evaluation's memory (41 MB for 10,240 runs).
    """

    vectors: NDArray[np.float32]
    realism: NDArray[np.float64]
    realistic: NDArray[np.bool_]
    covered: NDArray[np.uint8]

    @property
    def found(self) -> NDArray[np.bool_]:
        """Whether each real image lies within the ball of any run."""
        return np.asarray(self.covered.any(1))


Statistic = Callable[[Quality, RealismModel, Counts], float]


def quality_of(
    vectors: NDArray[np.float32],
    realism: NDArray[np.float64],
    model: RealismModel,
    real_radii: NDArray[np.float32],
    neighbours: int,
) -> Quality:
    """Place a population against the judge's real images."""
    radii = neighbour_radii(vectors, neighbours)
    centre = vectors.mean(0, dtype=np.float64)
    covered = np.concatenate(
        [
            np.packbits(squared_distances(model.vectors[part], vectors, centre) <= radii, axis=1)
            for part in row_blocks(len(model.vectors), len(vectors))
        ]
    )
    realistic = inside_manifold(vectors, model.vectors, real_radii)
    return Quality(vectors, realism, realistic, covered)


def _frechet(quality: Quality, model: RealismModel, counts: Counts) -> float:
    """Frechet distance with each run so many times."""
    return weighted_frechet_distance(quality.vectors, counts, model.mean, model.covariance)


def _recall(quality: Quality, model: RealismModel, counts: Counts) -> float:
    """Share of real images in the ball of any run that was drawn."""
    drawn = np.packbits(counts > 0)
    parts = np.arange(0, len(quality.covered), ROWS_AT_ONCE)
    found = sum(int((quality.covered[at : at + ROWS_AT_ONCE] & drawn).any(1).sum()) for at in parts)
    return found / len(quality.covered)


def _change(
    of: Statistic, before: Quality, after: Quality, model: RealismModel, counts: Counts
) -> float:
    """Difference of a figure between two populations of the same runs."""
    return of(after, model, counts) - of(before, model, counts)


OF_SETS: dict[str, Statistic] = {"frechet_distance": _frechet, "recall": _recall}
BOUNDS = {"frechet_distance": (0.0, np.inf), "recall": (0.0, 1.0)}


def estimates(quality: Quality, model: RealismModel) -> dict[str, Estimate]:
    """Figures of one population, with bootstrap intervals over runs."""
    runs = len(quality.vectors)
    figures = {
        name: bootstrap(
            partial(statistic, quality, model), runs, resamples=RESAMPLES, bounds=BOUNDS[name]
        )
        for name, statistic in OF_SETS.items()
    }
    if figures["recall"].low == figures["recall"].high:  # no draw of the runs moves it
        figures["recall"] = share_estimate(quality.found)
    figures["precision"] = share_estimate(quality.realistic)
    figures["local_realism"] = mean_estimate(quality.realism)
    return figures


def compare(
    before: Quality, after: Quality, model: RealismModel, *, paired: bool = True
) -> dict[str, Change]:
    """Figures before and after, and their change with its interval.

    Parameters
    ----------
    before, after : Quality
    model : RealismModel
    paired : bool
        Whether both are of the same runs: then these are resampled together.
    """
    runs = len(before.vectors)
    first, second = estimates(before, model), estimates(after, model)
    if paired:
        change = {
            name: bootstrap(
                partial(_change, statistic, before, after, model),
                runs,
                resamples=RESAMPLES,
            )
            for name, statistic in OF_SETS.items()
        }
        if change["recall"].low == change["recall"].high:
            change["recall"] = change_of_share(before.found, after.found)
        change["precision"] = change_of_share(before.realistic, after.realistic)
        change["local_realism"] = change_estimate(after.realism - before.realism)
    else:
        change = {name: _apart(first[name], second[name]) for name in OF_SETS}
        change["precision"] = unpaired_estimate(after.realistic, before.realistic)
        change["local_realism"] = unpaired_estimate(after.realism, before.realism)
    return {name: Change(first[name], second[name], change[name]) for name in first}


def _apart(first: Estimate, second: Estimate) -> Estimate:
    """Difference of two independent estimates, from their intervals.

    (MOVER: Zou and Donner, Statistics in Medicine 27, 2008.)
    """
    assert first.value is not None
    assert second.value is not None
    value = second.value - first.value
    if first.low is None or second.low is None or first.high is None or second.high is None:
        return Estimate(value, None, None)
    down = np.hypot(second.value - second.low, first.high - first.value)
    up = np.hypot(second.high - second.value, first.value - first.low)
    return Estimate(value, float(value - down), float(value + up))
