"""How well boundaries are known: bootstraps over runs and over steps.

Curves are arrays of shape (run, step); `widths`, as in `asced_analysis.phases.change_points`, are
the log-SNR that each step spans.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from asced_analysis.phases.change_points import Segmentation, means_of, segment

Floats: TypeAlias = npt.NDArray[np.float64]
Curves: TypeAlias = npt.NDArray[np.floating[Any]]

_FREEDOM, _BY_CHANCE = 8, 6
"""Degrees of freedom of the best split, and what its steps explain of noise, in its variances:
with 5 and 0, intervals of weak boundaries that were found covered 81 to 84 %, with these 92 to 95.
"""
MOST_RUNS = 1024
"""More runs are averaged to so many blocks of runs."""
_FEWEST_RUNS = 5  # below, resampled runs say too little: of 3, 95 % intervals covered 91 %


def population_bootstrap(
    curves: Curves, widths: Floats, replicates: int, rng: np.random.Generator
) -> Floats:
    """Mean curves of resampled runs (of blocks of runs, when there are many).

    Of fewer than five runs, blocks of residuals of the mean curve are drawn instead.

    Parameters
    ----------
    curves : numpy.ndarray, shape (run, step)
        Activity.
    widths : numpy.ndarray, shape (step,)
        Of the steps.
    replicates : int
        How many.
    rng : numpy.random.Generator
        Where randomness comes from.

    Returns
    -------
    numpy.ndarray, shape (replicate, step)
    """
    if len(curves) < _FEWEST_RUNS:
        mean = curves.mean(axis=0, keepdims=True, dtype=np.float64)
        draws = list(_redrawn(mean, segment(mean, widths), widths, replicates, rng))
        return np.concatenate(draws) if draws else np.empty((0, curves.shape[1]))
    blocks = blocks_of_runs(curves, rng)
    count = len(blocks)
    means = np.empty((replicates, curves.shape[1]))
    for row in range(replicates):
        weights = np.bincount(rng.integers(0, count, count), minlength=count)
        means[row] = weights @ blocks / count
    return means


def blocks_of_runs(curves: Curves, rng: np.random.Generator) -> Curves:
    """The runs, or means of blocks of them."""
    if len(curves) <= MOST_RUNS:
        return curves
    order = np.array_split(rng.permutation(len(curves)), MOST_RUNS)
    return np.stack([curves[part].mean(axis=0, dtype=np.float64) for part in order])


def largest_step(curves: Floats, widths: Floats, direction: int) -> tuple[Floats, Floats]:
    """Where curves are best split in two, and what that explains.

    Parameters
    ----------
    curves : numpy.ndarray, shape (curve, step)
    widths : numpy.ndarray, shape (step,)
    direction : {-1, 1}
        A rise or a fall.

    Returns
    -------
    place : numpy.ndarray, shape (curve,)
        Position at which the second part begins; NaN where there is no such step.
    gain : numpy.ndarray, shape (curve,)
        Sum of squares explained.
    """
    total = widths.sum()
    excess = np.cumsum((curves - (curves @ widths / total)[:, None]) * widths, axis=1)[:, :-1]
    left = np.cumsum(widths)[:-1]
    gain = np.where(direction * excess > 0, excess**2 * total / (left * (total - left)), 0.0)
    best: Floats = gain.max(axis=1, initial=0.0)
    place = np.where(best > 0, gain.argmax(axis=1) + 1, np.nan) if gain.size else best * np.nan
    return place, best


def step_bootstrap(
    curves: Curves,
    places: Floats,
    split: Callable[[Floats], Floats],
    widths: Floats,
    replicates: int,
    rng: np.random.Generator,
) -> Floats:
    """Change points of curves of which blocks of residuals were drawn anew.

    Parameters
    ----------
    curves, widths, replicates, rng
        As in `population_bootstrap`; every run by itself.
    places : numpy.ndarray, shape (2, run)
        Where the curves are split; NaN where there is one step only.
    split : callable
        Finds them.

    Returns
    -------
    numpy.ndarray, shape (replicate, 2, run)
        NaN where a replicate is not split.
    """
    fitted = Segmentation(places[0], places[1], np.zeros(len(curves)))
    every = _redrawn(curves, fitted, widths, replicates, rng)
    return np.stack([split(drawn) for drawn in every])


def _redrawn(
    curves: Curves,
    split: Segmentation,
    widths: Floats,
    replicates: int,
    rng: np.random.Generator,
) -> Iterator[Floats]:
    """Curves whose residuals from the means were drawn anew, in blocks of steps."""
    runs, steps = curves.shape
    fitted = means_of(curves, split, widths)
    # Three means and two places, the best of all: residuals are too small, and steps too high.
    residuals = (curves - fitted) * np.sqrt(steps / max(1, steps - _FREEDOM))
    centre = (fitted @ widths / widths.sum())[:, None]
    explained = ((fitted - centre) ** 2).sum(axis=1, keepdims=True)
    by_chance = _BY_CHANCE * (residuals**2).mean(axis=1, keepdims=True)
    left = np.clip(1 - by_chance / np.maximum(explained, 1e-300), 0.1, 1)
    fitted = centre + (fitted - centre) * np.sqrt(left)
    length = _block_length(steps)
    rows = np.arange(runs)[:, None]
    for _ in range(replicates):
        starts = rng.integers(0, steps, (runs, -(-steps // length)))
        index = (starts[:, :, None] + np.arange(length)) % steps
        yield fitted + residuals[rows, index.reshape(runs, -1)[:, :steps]]


def interval(draws: Floats, tail: float) -> tuple[Floats, Floats]:
    """Percentile interval over the leading axis, rounded outwards to whole steps.

    Parameters
    ----------
    draws : numpy.ndarray, shape (replicate, ...)
        NaN are left out.
    tail : float
        Probability outside, at each end.

    Returns
    -------
    lower, upper : numpy.ndarray, shape (...)
        NaN where there is no finite draw.
    """
    known = np.isfinite(draws).sum(axis=0)
    ordered = np.sort(draws, axis=0)  # NaN last
    last = np.maximum(known - 1, 0)
    ends = []
    for rank in (np.floor(tail * last), np.ceil((1 - tail) * last)):
        index = rank.astype(np.intp)[np.newaxis]
        ends.append(np.take_along_axis(ordered, index, axis=0)[0])
    return ends[0], ends[1]


def _block_length(steps: int) -> int:
    """Length of the blocks of a bootstrap over steps."""
    return max(1, round(float(np.cbrt(steps))))
