"""How surely the phases are known: bootstraps over runs and over steps, and a test for none.

Curves are arrays of shape (run, step); `widths`, as in `asced_analysis.change_points`, are the
log-SNR that each step spans.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from asced_analysis.change_points import means_of, segment

Floats: TypeAlias = npt.NDArray[np.float64]
Curves: TypeAlias = npt.NDArray[np.floating[Any]]

_MOST_BLOCKS = 1024  # runs are averaged to so many blocks before the bootstrap over them


def population_bootstrap(
    curves: Curves, widths: Floats, replicates: int, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Change points of the mean curve over resampled runs (blocks of runs, when there are many).

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
    first, second : numpy.ndarray, shape (replicate,)
        NaN where a replicate has no hump.
    """
    blocks: npt.NDArray[np.floating[Any]] = curves
    if len(curves) > _MOST_BLOCKS:
        order = np.array_split(rng.permutation(len(curves)), _MOST_BLOCKS)
        blocks = np.stack([curves[part].mean(axis=0, dtype=np.float64) for part in order])
    count = len(blocks)
    means = np.empty((replicates, curves.shape[1]))
    for row in range(replicates):
        weights = np.bincount(rng.integers(0, count, count), minlength=count)
        means[row] = weights @ blocks / count
    split = segment(means, widths)
    return split.first, split.second


def no_phases_test(
    curves: Curves, widths: Floats, replicates: int, rng: np.random.Generator
) -> tuple[float, str]:
    """Share of shuffled populations whose best split explains as much as the observed one.

    Each run's curve is turned by a random number of steps, which keeps its own shape and forgets
    its place; a handful of runs is shuffled in blocks of steps instead.

    Parameters
    ----------
    curves, widths, replicates, rng
        As in `population_bootstrap`; at most 1,024 runs are drawn.

    Returns
    -------
    p_value : float
    test : str
        What was done.
    """
    if len(curves) > _MOST_BLOCKS:
        curves = curves[rng.choice(len(curves), _MOST_BLOCKS, replace=False)]
    runs, steps = curves.shape
    observed = float(segment(curves.mean(axis=0, dtype=np.float64), widths).gain[0])
    turn = runs >= 8
    length = _block_length(steps)
    means = np.empty((replicates, steps))
    for row in range(replicates):
        offset = rng.integers(0, steps, (runs, 1))
        order = (np.arange(steps) + offset) % steps
        if not turn:
            pieces = [np.array_split(o, -(-steps // length)) for o in order]
            order = np.stack(
                [np.concatenate([p[i] for i in rng.permutation(len(p))]) for p in pieces]
            )
        shuffled = np.take_along_axis(curves, order, axis=1)
        means[row] = shuffled.mean(axis=0, dtype=np.float64)
    as_large = int((segment(means, widths).gain >= observed).sum())
    test = "circular shifts of each run" if turn else f"shuffled blocks of {length} steps"
    return (1 + as_large) / (1 + replicates), test


def step_bootstrap(
    curves: Curves, widths: Floats, replicates: int, rng: np.random.Generator
) -> Floats:
    """Change points of curves of which blocks of residuals were drawn anew.

    Parameters
    ----------
    curves, widths, replicates, rng
        As in `population_bootstrap`; every run by itself.

    Returns
    -------
    numpy.ndarray, shape (2, replicate, run)
        NaN where a replicate has no hump.
    """
    runs, steps = curves.shape
    fitted = means_of(curves, segment(curves, widths), widths)
    # three means and two places were fitted: residuals are too small by this factor
    residuals = (curves - fitted) * np.sqrt(steps / max(1, steps - 5))
    length = _block_length(steps)
    result = np.empty((2, replicates, runs))
    rows = np.arange(runs)[:, None]
    for replicate in range(replicates):
        starts = rng.integers(0, steps, (runs, -(-steps // length)))
        index = (starts[:, :, None] + np.arange(length)) % steps
        drawn = residuals[rows, index.reshape(runs, -1)[:, :steps]]
        split = segment(fitted + drawn, widths)
        result[:, replicate] = split.first, split.second
    return result


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
