"""How surely the phases are known: bootstraps over runs and over steps, and a test for none.

Curves are arrays of shape (run, step); `widths`, as in `asced_analysis.phases.change_points`, are
the log-SNR that each step spans.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from asced_analysis.phases.change_points import means_of, segment

Floats: TypeAlias = npt.NDArray[np.float64]
Curves: TypeAlias = npt.NDArray[np.floating[Any]]

_MOST_BLOCKS = 1024  # runs are averaged to so many blocks before the bootstrap over them
_FEWEST_RUNS = 5  # below, resampled runs say too little: of 3, 95 % intervals covered 91 %
_RUNS_TO_TURN = 8  # with fewer, turned curves hardly average out


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
        draws = list(_redrawn(mean, widths, replicates, rng))
        return np.concatenate(draws) if draws else np.empty((0, curves.shape[1]))
    blocks: npt.NDArray[np.floating[Any]] = curves
    if len(curves) > _MOST_BLOCKS:
        order = np.array_split(rng.permutation(len(curves)), _MOST_BLOCKS)
        blocks = np.stack([curves[part].mean(axis=0, dtype=np.float64) for part in order])
    count = len(blocks)
    means = np.empty((replicates, curves.shape[1]))
    for row in range(replicates):
        weights = np.bincount(rng.integers(0, count, count), minlength=count)
        means[row] = weights @ blocks / count
    return means


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
    turn = runs >= _RUNS_TO_TURN
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


def boundary_tests(
    curves: Curves,
    split: tuple[float, float],
    widths: Floats,
    replicates: int,
    rng: np.random.Generator,
) -> tuple[float, float]:
    """Whether the curve rises where the middle begins, and falls where it ends.

    A trend, or a rise to a plateau, is also split best into three, and noise decides where. So
    what lies before the second boundary is tested for a rise, and what lies after the first one
    for a fall, against runs whose curves were turned there by a random number of steps each.

    Parameters
    ----------
    curves, widths, replicates, rng
        As in `population_bootstrap`; at most 1,024 runs are drawn.
    split : tuple of float
        Positions at which the middle and the last segment begin; NaN where there are none, and
        the whole curve is tested for both.

    Returns
    -------
    rise, fall : float
        Shares of turned populations that rise or fall as much; NaN of fewer than eight runs.
    """
    if len(curves) < _RUNS_TO_TURN:
        return np.nan, np.nan
    if len(curves) > _MOST_BLOCKS:
        curves = curves[rng.choice(len(curves), _MOST_BLOCKS, replace=False)]
    begin, end = (int(split[0]), int(split[1])) if np.isfinite(split).all() else (0, len(widths))
    sides = (curves[:, :end], widths[:end], -1), (curves[:, begin:], widths[begin:], 1)
    found = []
    for part, own, direction in sides:
        steps = part.shape[1]
        means = np.empty((1 + replicates, steps))
        means[0] = part.mean(axis=0, dtype=np.float64)
        for row in range(1, 1 + replicates):
            order = (np.arange(steps) + rng.integers(0, steps, (len(part), 1))) % steps
            means[row] = np.take_along_axis(part, order, axis=1).mean(axis=0, dtype=np.float64)
        gain = largest_step(means, own, direction)[1]
        found.append(float((1 + (gain[1:] >= gain[0]).sum()) / (1 + replicates)))
    return found[0], found[1]


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
    result = np.empty((2, replicates, len(curves)))
    for row, drawn in enumerate(_redrawn(curves, widths, replicates, rng)):
        split = segment(drawn, widths)
        result[:, row] = split.first, split.second
    return result


def _redrawn(
    curves: Curves, widths: Floats, replicates: int, rng: np.random.Generator
) -> Iterator[Floats]:
    """Curves whose residuals from three means were drawn anew, in blocks of steps."""
    runs, steps = curves.shape
    fitted = means_of(curves, segment(curves, widths), widths)
    # three means and two places were fitted: residuals are too small by this factor
    residuals = (curves - fitted) * np.sqrt(steps / max(1, steps - 5))
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
